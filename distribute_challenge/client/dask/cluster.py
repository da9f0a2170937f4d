"""Where a Dask cluster is, and how this program connects to it: addresses, TLS, versions."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import socket
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distribute_challenge import processors
from distribute_challenge.address import CLUSTER_VARIABLE, Address
from distribute_challenge.client.dask.freight import encodable
from distribute_challenge.client.importing import importing
from distribute_challenge.client.local import OwnedServer
from distribute_challenge.client.parcels.parcel import client_name
from distribute_challenge.client.peers.inside import are_here
from distribute_challenge.errors import PoolError, ServerUnavailable
from distribute_challenge.tls import Tls

if TYPE_CHECKING:
    from distribute_challenge.client.dask.closing import Client

log = logging.getLogger(__name__)

CONNECT_S = 10.0
RETRY_S = 0.2
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
_MAIN = str(Path(__file__).with_name("__main__.py"))


def is_inside(address: Address | None) -> bool:
    """Whether this program is a function's, on a worker of that cluster."""
    inside = os.environ.get(CLUSTER_VARIABLE)
    if not inside:
        return False
    if address is None:  # A cluster of each function's own would be one within the other.
        return True
    own = Address.parse(inside.partition("://")[2])
    is_same = not _hosts(own.host).isdisjoint(_hosts(address.host)) or are_here(own.host, address.host)
    return own.port == address.port and is_same


@functools.lru_cache(maxsize=64)
def _hosts(name: str) -> frozenset[str]:
    """The name of a host, and its addresses."""
    found = {name}
    with contextlib.suppress(OSError):  # It has no address here, and so no other name.
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    return frozenset(found)


class LocalCluster(OwnedServer):
    """A Dask cluster of this machine and this program: a scheduler, and a worker for each processor.

    Or so many workers; and with its scheduler on that port.
    """

    name = "Dask cluster"

    def __init__(self, workers: int | None = None, port: int = 0) -> None:
        super().__init__()
        self._workers = workers or processors.usable()
        self._port = port

    def command(self) -> list[str]:
        """How it is started."""
        return [_MAIN, str(self._workers), "--port", str(self._port)]

    def environment(self) -> dict[str, str]:
        """Its event loops say nothing of callbacks that fail: a worker that ends may look for the others once
        more, and would tell in 20 lines that it cannot find them."""
        quiet = "{'tornado.application': 'critical'}"
        return {"DASK_LOGGING": os.environ.get("DASK_LOGGING", quiet)}


def check_installed() -> None:
    """Import Dask, for all that comes. Raises PoolError if it is not there."""
    try:
        with importing:
            import distribute_challenge.client.dask.closing
    except ImportError as error:
        raise PoolError(
            f"dask:// needs Dask, which is not installed ({error}): install it with `pip install "
            "'distribute-challenge[dask]'` or, in a clone, `pip install -e '.[dask]'`"
        ) from None
    del distribute_challenge


def connect(address: Address, tls: Tls | None) -> Client:
    """A client of the scheduler there. Raises ServerUnavailable; PoolError if versions do not fit."""
    await_listener(address, 0)
    security = None if tls is None else _security(tls)
    try:
        client = _made(address, security)
    except Exception as error:  # Dask raises many kinds.
        hint = "needs no certificate (tls= gives one)"
        if tls is not None:
            hint = f"takes certificates of {tls.ca} (if it needs none, give no tls= and no COMPUTE_TLS_CERT)"
        raise ServerUnavailable(
            f"what listens at {address} does not answer as a Dask scheduler "
            f"({str(error) or type(error).__name__}): see that one is there, and {hint}"
        ) from None
    try:
        check_python(client)
    except BaseException as error:
        client.end()
        if isinstance(error, OSError | RuntimeError) and not isinstance(error, PoolError):
            raise gone(address, error) from None
        raise
    return client


def gone(address: Address, error: BaseException) -> ServerUnavailable:
    """The error of who has lost the scheduler."""
    return ServerUnavailable(
        f"the Dask scheduler at {address} has gone, or is stopping ({str(error) or type(error).__name__})"
    )


def _made(address: Address, security: Any) -> Client:
    """A client that is made in a thread of its own: if the other end says nothing, Dask waits for ever.

    Raises TimeoutError if there is none soon, and what Dask raises.
    """
    made: Future[Client] = Future()

    def make() -> None:
        from distribute_challenge.client.dask.closing import Client

        url = f"{'tcp' if security is None else 'tls'}://{address}"
        try:
            name = encodable(client_name())
            client = Client(url, security=security, set_as_default=False, timeout=CONNECT_S, name=name)
        except Exception as error:
            if made.set_running_or_notify_cancel():
                made.set_exception(error)
            return
        if made.set_running_or_notify_cancel():
            made.set_result(client)
        else:  # It is too late.
            client.end()

    thread = threading.Thread(target=make, name="connect", daemon=True)
    thread.start()
    thread.join(2 * CONNECT_S)
    if made.cancel():
        raise TimeoutError(f"nothing came in {2 * CONNECT_S:g} s")
    return made.result()


def await_listener(address: Address, wait_s: float) -> None:
    """Wait until something listens there, at most so long: Dask's own client says neither what nor when.

    Raises ServerUnavailable.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection(address, timeout=CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ServerUnavailable(
                    f"no Dask scheduler answers at {address} ({error.strerror or error}): start one with "
                    f"`dask scheduler`, and workers with `dask worker {address}`, or have a cluster of "
                    'this program\'s own with server="dask://"'
                ) from None
        time.sleep(RETRY_S)  # Nothing tells when a scheduler comes up.


def _security(tls: Tls) -> Any:
    from distributed import Security

    tls.client_context()  # It names the file that is wrong.
    return Security(
        tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key, require_encryption=True
    )


def check_python(client: Client) -> None:
    """Raise PoolError unless workers, or the scheduler while there are none, run this version of Python."""
    try:
        versions = client.ask_workers(platform.python_version)
    except TimeoutError:
        if client.status != "running":  # It looks for its scheduler.
            raise
        log.info("a Dask worker is stuck: it is not known which Python the workers run")
        return
    ends = {f"the Dask worker {name}": version for name, version in versions.items()}
    ends = ends or {"the Dask scheduler": client.run_on_scheduler(platform.python_version)}
    for name, version in ends.items():
        there = ".".join(version.split(".")[:2])
        if there != HERE:
            older, newer = sorted((HERE, there), key=lambda version: int(version.split(".")[1]))
            who = "this program" if older == HERE else name
            raise PoolError(
                f"{name} runs Python {there}, and this program {HERE}: through Dask values need the same on "
                f"both ends. Update {who} to Python {newer}"
            )
