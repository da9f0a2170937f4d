"""Whether this program is itself a function's, on a worker of the pool that it calls."""

from __future__ import annotations

import functools
import logging
import os
import socket

from distribute_challenge.address import INSIDE_VARIABLE, Address

log = logging.getLogger(__name__)


def is_inside(address: Address) -> bool:
    """Whether this program runs on a worker of the server at `address`, or below one."""
    inside = os.environ.get(INSIDE_VARIABLE)
    if not inside:
        return False
    own = Address.parse(inside)
    return own.port == address.port and (own.host == address.host or are_here(own.host, address.host))


@functools.lru_cache(maxsize=64)
def are_here(*hosts: str) -> bool:
    """Whether all these are names of this machine: an address of another one cannot be bound."""
    for host in hosts:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as sock:
                sock.bind(address)
        except (OSError, UnicodeError) as error:
            log.debug("%s is not this machine: %s", host, error)
            return False
    return True
