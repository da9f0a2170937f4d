"""From an address to an executor there. It chooses, no more."""

from __future__ import annotations

import atexit
import os

from distribute_challenge.address import Address, chosen
from distribute_challenge.client import private
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.tls import Tls

# Connections belong to a process: a forked child makes its own.
_Key = tuple[str, Tls | None, int]
_pools: dict[_Key, PoolExecutor] = {}


def executor_at(server: str | None, tls: Tls | None = None, wait_s: float = 0) -> PoolExecutor:
    """This process's executor on the pool at an address, closed when the program ends.

    A server that is not there when it is first needed is waited for, at most as long as whoever needs it
    first says. Raises PoolError if the environment has some of the variables for TLS, and not all.
    """
    key = (chosen(server), Tls.choose(tls), os.getpid())
    pool = _pools.get(key)
    if pool is None:
        mine = PoolExecutor(key[0], tls=key[1], wait=wait_s)
        pool = _pools.setdefault(key, mine)  # In one step: another thread may have been faster.
        if pool is mine:
            atexit.register(_close, key)
    return pool


def _close(key: _Key) -> None:
    if key[2] == os.getpid():  # And not a forked child that ends: another thread may have held a lock then.
        _pools[key].shutdown()


def check_address(server: str) -> None:
    """Raise ValueError or TypeError if that is no address."""
    if not isinstance(server, str) or private.worker_count(server) is None:
        Address.parse(server)
