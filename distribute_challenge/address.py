"""Where calls go, as text: a server's `HOST:PORT`, a private pool, a Dask cluster. Nothing connects here."""

from __future__ import annotations

import encodings.idna  # noqa: F401  Else the first look-up of a host imports it, and may be forked meanwhile.
import errno
import ipaddress
import os
import socket
import time
from typing import Any, NamedTuple

from distribute_challenge import processors

SERVER_VARIABLE = "COMPUTE_SERVER"
ANY_USER_VARIABLE = "COMPUTE_ALLOW_ANY_LOCAL_USER"
INSIDE_VARIABLE = "COMPUTE_INSIDE"  # Set for workers, and so for their child processes.
CLUSTER_VARIABLE = "COMPUTE_CLUSTER"  # Likewise, beside a Dask worker: the address of its scheduler.
PEER_THREAD = "peer "  # So begin the names of threads that serve a connection; where that comes from follows.
WORKER_VARIABLE = "COMPUTE_WORKER"  # A worker's number, from 0: to choose a GPU by, say.
DEFAULT_HOST = "localhost"
DEFAULT_PORT = 18811
LOCAL = "local://"
DASK = "dask://"
DASK_PORT = 8786
TAKEN_S = 1.0


class Address(NamedTuple):
    """A host and a TCP port.

    >>> Address.parse("example.org:5000")
    Address(host='example.org', port=5000)
    >>> str(Address.parse("[::1]"))
    '[::1]:18811'
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.

        Raises ValueError, which says what an address looks like, or TypeError for what is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"an address is a text, HOST:PORT, not {text!r}")
        host, port = text, str(DEFAULT_PORT)
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            port = rest.removeprefix(":") or port if bracket else ""
        elif ":" in text:
            host, _, port = text.rpartition(":")
        if host.partition("/")[0] == "local":
            raise ValueError(f"{text!r} is not an address: a private pool of four workers is local://4")
        is_host = host and "/" not in host and (":" not in host or text.startswith("["))
        if not (is_host and port.isascii() and port.isdigit()):
            raise ValueError(f"{text!r} is not an address: write HOST:PORT, for example {cls.default()}")
        if not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not an address: a port is a number from 1 to 65535")
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{text!r} is not an address: no host is called that ({error})") from None
        return cls(host, int(port))

    @classmethod
    def default(cls) -> Address:
        """Where a server listens unless told otherwise."""
        return cls(DEFAULT_HOST, DEFAULT_PORT)

    def as_named(self, host: str) -> Address:
        """The same by the name under which it is listened on: certificates have names.

        One that stands for all addresses is in no certificate, and nowhere to connect to: that is localhost.

        >>> Address("192.0.2.7", 18811).as_named("pool.example.org").host
        'pool.example.org'
        >>> Address("0.0.0.0", 18811).as_named("0.0.0.0").host
        'localhost'
        """
        return self._replace(host=DEFAULT_HOST if self.host in ("0.0.0.0", "::") else host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def chosen() -> str:
    """The text of the address in the environment's COMPUTE_SERVER, else of the default one."""
    return os.environ.get(SERVER_VARIABLE) or str(Address.default())


def is_loopback(address: Address) -> bool:
    """Whether an address is one that only this machine has."""
    try:
        return address.host == "localhost" or ipaddress.ip_address(address.host).is_loopback
    except ValueError:  # The name of another machine.
        return False


def page_url(address: Address, token: str, *, with_tls: bool) -> str:
    """The URL of the live page, for those who have its token.

    >>> page_url(Address("127.0.0.1", 8787), "abc", with_tls=False)
    'http://127.0.0.1:8787/?token=abc'
    """
    return f"http{'s' if with_tls else ''}://{address}/?token={token}"


def worker_count(server: str) -> int | None:
    """N of `local://N`; None for another address. Raises ValueError."""
    if not server.startswith(LOCAL):
        return None
    text = server.removeprefix(LOCAL) or str(processors.usable())
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if count < 1:
        raise ValueError(f"{server!r} is not an address: local:// takes a number of workers, as in local://4")
    return count


def dask_scheduler(server: str) -> Address | None:
    """The scheduler in `dask://HOST:PORT`; None for `dask://` alone. Raises ValueError.

    >>> dask_scheduler("dask://example.org")
    Address(host='example.org', port=8786)
    """
    text = server.removeprefix(DASK)
    if not text:
        return None
    has_port = ":" in text.rpartition("]")[2]
    if text.isdigit():
        raise ValueError(
            f"{server!r} is not an address: write dask://HOST:PORT; or dask:// alone, for a cluster of this "
            "program's own, as large as the machine"
        )
    try:
        return Address.parse(text if has_port else f"{text}:{DASK_PORT}")
    except ValueError as error:
        raise ValueError(
            f"{server!r} is not an address: write dask://HOST:PORT, or dask:// ({error})"
        ) from None


def check_address(server: str) -> None:
    """Raise ValueError or TypeError if that is no address."""
    if isinstance(server, str) and server.startswith(DASK):
        dask_scheduler(server)
    elif not isinstance(server, str) or worker_count(server) is None:
        Address.parse(server)


def bind(sock: socket.socket, address: Any) -> None:
    """Bind a socket. Raises OSError; if the address is taken, when it has been for `TAKEN_S` seconds.

    Workers of a server that was killed just now may still be ending, and the next one is to have their ports.
    """
    deadline = time.monotonic() + TAKEN_S
    while True:
        try:
            return sock.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
        time.sleep(TAKEN_S / 20)  # Nothing tells when an address becomes free.
