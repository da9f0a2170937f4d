"""One lease in use: acquire a worker, run a function on it, give it back.

An exception may arrive between any two steps here: Ctrl-C does. Whatever happens once a connection may hold
a lease, the connection is either settled (the lease has ended, by our own word) or closed, upon which the
server replaces the workers that it held. There is no third way, and so no lease that is forgotten.
"""

from __future__ import annotations

import logging
from typing import Any

from distribute_challenge.client.connections import Connections
from distribute_challenge.errors import PoolError, WorkerLost
from distribute_challenge.wire import payload
from distribute_challenge.wire.ending import Ending

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 10


def run(connections: Connections, name: str, source: str, call: bytes) -> Any:
    """Run one function on the pool; return its value, or raise its exception.

    `name` is the function's, for messages. Raises ServerUnavailable; WorkerLost if the worker died under the
    function; PoolError if workers cannot be reached.
    """
    for _ in range(MAX_ATTEMPTS):
        try:
            outcome = _run_once(connections, name, source, call)
        except _Unusable as reason:
            log.info("%s", reason)
        else:
            return payload.load_outcome(outcome)
    raise PoolError(f"{MAX_ATTEMPTS} workers one after another did not take {name}: see the server's log")


def _run_once(connections: Connections, name: str, source: str, call: bytes) -> bytes:
    """The outcome of one function, on the first worker to be had."""
    server, is_new = connections.take_server()
    is_settled = False
    try:
        try:
            port = server.acquire()
        except EOFError as error:
            if is_new:
                raise server.unavailable(error) from None
            # It had been idle, and the server was restarted meanwhile: nothing is lost.
            raise _Unusable(f"an idle connection to the server had ended ({error})") from None
        try:
            outcome = _run_on(connections, port, name, source, call)
        except _Unreachable:
            server.free(port, finished=0, failed=0)
            is_settled = True
            raise
        except _Broken as broken:
            ending = server.recycle(port, str(broken))
            is_settled = True
            raise broken.error(name, ending) from None
        is_value = payload.is_value(outcome)
        server.free(port, finished=int(is_value), failed=int(not is_value))
        is_settled = True
        return outcome
    finally:
        if is_settled:
            connections.put_server(server)
        else:
            server.close()


def _run_on(connections: Connections, port: int, name: str, source: str, call: bytes) -> bytes:
    """The outcome of one function on a leased worker. Raises _Broken or _Unreachable if there is none."""
    try:
        worker = connections.take_worker(port)
    except (EOFError, ConnectionResetError, TimeoutError) as error:  # It died, or it is stuck.
        raise _Broken(f"it does not answer its client ({error})", has_run=False) from None
    except OSError as error:
        # The server listens for its workers even while they are replaced: this is on our side of it.
        raise _Unreachable(
            f"cannot reach the worker at {connections.worker_address(port)} that the server handed out "
            f"({error}): clients need the ports of all workers, also through a tunnel"
        ) from None
    try:
        outcome = worker.run_code(source, call)
    except BaseException as error:
        worker.close()
        if isinstance(error, EOFError):
            raise _Broken(f"it died under {name}", has_run=True) from None
        if payload.is_busy(error):
            raise _Broken("it still runs the function of a client that gave up", has_run=False) from None
        raise
    connections.put_worker(port, worker)
    return outcome


class _Unusable(Exception):
    """The worker that was handed out did not take the function. Another one may."""


class _Unreachable(PoolError):
    """There is nothing wrong with the worker, but this program cannot connect to it."""


class _Broken(Exception):
    """The worker must be replaced."""

    def __init__(self, reason: str, *, has_run: bool) -> None:
        super().__init__(reason)
        self.has_run = has_run

    def error(self, name: str, ending: Ending) -> Exception:
        """What that means for the function: it was lost, or another worker may take it."""
        if not self.has_run:
            return _Unusable(f"{ending.worker} was replaced: {self}")
        message = f"{ending.worker} died while it ran {name}: {ending.how}"
        lines = "".join(f"\n    {line}" for line in ending.last_lines)
        return WorkerLost(f"{message}. The last it printed:{lines}" if lines else message)
