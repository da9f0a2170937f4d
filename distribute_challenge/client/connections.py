"""The connections of this program to one pool: made when first needed, kept for the next call.

Each call in progress has a server connection to itself, because one that waits for a worker answers
nothing else. At most `MAX_IDLE` server connections and `MAX_IDLE` worker connections are kept while idle.
"""

from __future__ import annotations

import logging
import threading

import rpyc

from distribute_challenge.address import Address
from distribute_challenge.errors import PoolError, ServerUnavailable
from distribute_challenge.wire.ending import Ending
from distribute_challenge.wire.transport import Link

log = logging.getLogger(__name__)

MAX_IDLE = 8


class ServerConnection:
    """The server's calls, on one connection."""

    def __init__(self, address: Address) -> None:
        self._address = address
        try:
            self._link = Link(address)
        except OSError as error:
            raise self.unavailable(error) from None
        try:
            root = self._link.root
            self._acquire_worker = rpyc.async_(root.acquire_worker)  # So that it may take any time.
            self._free_worker = rpyc.async_(root.free_worker)
            self._recycle_worker = root.recycle_worker
            self._link.trust()
        except (EOFError, OSError) as error:
            self._link.close()
            raise self.unavailable(error) from None
        except AttributeError:
            self._link.close()
            raise PoolError(f"what listens at {address} is not the server of a pool: check it") from None
        except BaseException:
            self._link.close()
            raise

    def acquire(self) -> int:
        """Wait in line for a worker; its port.

        Raises ServerUnavailable if the server is stopping, EOFError if the connection broke.
        """
        try:
            return int(self._acquire_worker().value)
        except RuntimeError as error:  # The server says that it is stopping.
            raise ServerUnavailable(f"{self._address}: {error.args[0]}") from None

    def free(self, port: int, *, finished: int, failed: int) -> None:
        """End the lease. Sent, and not waited for: the answer holds nothing."""
        try:
            self._free_worker(port, finished, failed).add_callback(_report_refusal)
        except EOFError as error:
            log.debug("worker %d was not freed, since the server has gone: %s", port, error)

    def recycle(self, port: int, reason: str) -> Ending:
        """End the lease and have the worker replaced; how its process ended."""
        try:
            return Ending.from_json(self._recycle_worker(port, reason))
        except (EOFError, OSError) as error:
            raise ServerUnavailable(
                f"the server at {self._address} has ended, and its workers with it ({error})"
            ) from None

    def is_open(self) -> bool:
        """Whether the connection has not ended, as far as known."""
        return not self._link.closed

    def close(self) -> None:
        """End the connection. The server then replaces the workers that it held."""
        self._link.close()

    def unavailable(self, error: BaseException) -> ServerUnavailable:
        """What to tell the user when the server does not answer."""
        return ServerUnavailable(
            f"no server answers at {self._address} ({error}): start one with `python3 server.py 2`, "
            f'or say where it is with server="HOST:PORT" or the environment\'s COMPUTE_SERVER'
        )


class WorkerConnection:
    """A worker's calls, on one connection. Making it raises OSError or EOFError if the worker has gone."""

    def __init__(self, address: Address) -> None:
        self._link = Link(address)
        try:
            self._run_code = rpyc.async_(self._link.root.run_code)  # So that it may take any time.
            self._link.trust()
        except BaseException:
            self._link.close()
            raise

    def run_code(self, source: str, call: bytes) -> bytes:
        """The outcome of a function. Raises RuntimeError if the worker runs another, EOFError if it died."""
        return bytes(self._run_code(source, call).value)

    def is_idle(self) -> bool:
        """Whether the connection is open and nothing is under way on it."""
        return self._link.is_quiet()

    def close(self) -> None:
        """End the connection, also while the worker is busy."""
        self._link.close()


class Connections:
    """The idle connections to one pool. Safe to use from any thread."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._lock = threading.Lock()  # guards the two below
        self._servers: list[ServerConnection] = []
        self._workers: dict[int, WorkerConnection] = {}  # by port, longest idle first

    def take_server(self) -> tuple[ServerConnection, bool]:
        """A server connection for one call, and whether it is a new one."""
        with self._lock:
            if self._servers:
                return self._servers.pop(), False
        return ServerConnection(self.address), True

    def put_server(self, server: ServerConnection) -> None:
        """Keep a server connection for another call."""
        with self._lock:
            if server.is_open() and len(self._servers) < MAX_IDLE:
                self._servers.append(server)
                return
        server.close()

    def take_worker(self, port: int) -> WorkerConnection:
        """A connection to the worker leased on `port`. Raises OSError or EOFError if it has gone."""
        with self._lock:
            worker = self._workers.pop(port, None)
        if worker is not None:
            if worker.is_idle():
                return worker
            worker.close()  # Its process has been replaced since.
        return WorkerConnection(self.worker_address(port))

    def worker_address(self, port: int) -> Address:
        """Where the worker with a port listens: beside its server."""
        return Address(self.address.host, port)

    def put_worker(self, port: int, worker: WorkerConnection) -> None:
        """Keep a worker connection for another call, in place of the one that has been idle longest."""
        surplus = []
        with self._lock:
            surplus.append(self._workers.pop(port, None))
            self._workers[port] = worker
            if len(self._workers) > MAX_IDLE:
                surplus.append(self._workers.pop(next(iter(self._workers))))
        for connection in surplus:
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle: list[ServerConnection | WorkerConnection] = [*self._servers, *self._workers.values()]
            self._servers.clear()
            self._workers.clear()
        for connection in idle:
            connection.close()


def _report_refusal(answer: rpyc.AsyncResult) -> None:
    if answer.error:
        try:
            answer.value  # noqa: B018  Raises what the server said.
        except Exception as error:
            log.warning("the server did not free a worker: %s", error)
