"""One lease in use: acquire a worker, run functions on it, give it back."""

from __future__ import annotations

import logging
from typing import Any

from distribute_challenge.client.connections import Connections, ServerConnection
from distribute_challenge.errors import PoolError, WorkerLost
from distribute_challenge.wire import payload

log = logging.getLogger(__name__)


def run(connections: Connections, name: str, source: str, call: bytes) -> Any:
    """Run one function on the pool; return its value, or raise its exception.

    `name` is the function's, for messages. Raises ServerUnavailable, or WorkerLost if the worker died.
    """
    while True:
        lane = Lane(connections)
        try:
            outcome = lane.run(name, source, call)
        finally:
            lane.end()
        if outcome is not None:
            return payload.load_outcome(outcome)


class Lane:
    """A lease on one worker, from its making to `end`.

    Making it waits in line for a worker. Raises ServerUnavailable.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._server, self.port = _acquire(connections)
        self._is_held = True
        self._is_in_doubt = False  # whether a function may be running on the worker
        self._finished = 0
        self._failed = 0

    def run(self, name: str, source: str, call: bytes) -> bytes | None:
        """The outcome of one function. None if this worker could not take it: try another one.

        Raises WorkerLost if the worker died.
        """
        try:
            worker = self._connections.take_worker(self.port)
        except (EOFError, ConnectionResetError, TimeoutError) as error:  # It died, or it is stuck.
            self._recycle(f"it does not answer its client ({error})")
            return None
        except OSError as error:
            # The server listens for its workers even while they are replaced: this is on our side of it.
            address = self._connections.worker_address(self.port)
            raise PoolError(
                f"cannot reach the worker at {address} that the server handed out ({error}): "
                "clients need the ports of all workers, also through a tunnel"
            ) from None
        self._is_in_doubt = True
        try:
            outcome = worker.run_code(source, call)
        except RuntimeError:  # What a function raises is in its outcome: this is the worker's own answer.
            worker.close()
            self._recycle("it still runs the function of a client that gave up")
            return None
        except EOFError:
            worker.close()
            raise _worker_lost(name, self._recycle(f"it died under {name}")) from None
        except BaseException:
            worker.close()
            raise
        self._is_in_doubt = False
        self._connections.put_worker(self.port, worker)
        if payload.is_value(outcome):
            self._finished += 1
        else:
            self._failed += 1
        return outcome

    def end(self) -> None:
        """Give the worker back."""
        if self._is_in_doubt:
            # Interrupted in mid-function. When this connection ends, the server replaces the worker.
            self._server.close()
            return
        if self._is_held:
            self._server.free(self.port, finished=self._finished, failed=self._failed)
        self._connections.put_server(self._server)

    def _recycle(self, reason: str) -> dict[str, Any]:
        log.info("worker %d is to be replaced: %s", self.port, reason)
        self._is_in_doubt = True
        ending = self._server.recycle(self.port, reason)
        self._is_held = self._is_in_doubt = False
        return ending


def _acquire(connections: Connections) -> tuple[ServerConnection, int]:
    """A worker's port, and the connection that holds its lease."""
    while True:
        server, is_new = connections.take_server()
        try:
            return server, server.acquire()
        except EOFError as error:
            server.close()
            if is_new:
                raise server.unavailable(error) from None
            # It had been idle, and the server was restarted meanwhile: nothing is lost, try a new one.
        except BaseException:
            server.close()
            raise


def _worker_lost(name: str, ending: dict[str, Any]) -> WorkerLost:
    how = f"killed by {ending['signal']}" if ending["signal"] else f"exit code {ending['exit_code']}"
    message = f"the worker on port {ending['port']} (process {ending['pid']}) died while it ran {name}: {how}"
    lines = "".join(f"\n    {line}" for line in ending["last_lines"])
    return WorkerLost(f"{message}. The last it printed:{lines}" if lines else message)
