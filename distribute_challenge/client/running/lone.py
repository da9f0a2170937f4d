"""One call in the caller's own thread: acquire a worker, run the function there, give the worker back.

An exception may arrive between any two steps here: Ctrl-C does. Whatever happens once a connection may hold
a lease, the connection is either settled (the lease has ended, by our own word) or closed, upon which the
server replaces the workers that it held. There is no third way, and so no lease that is forgotten.
"""

from __future__ import annotations

import logging
import math
import time

from distribute_challenge.calls import payload
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.shipping import Parcel
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.failures import (
    Broken,
    Overdue,
    Unreachable,
    Unusable,
    why_no_worker,
)
from distribute_challenge.client.peers.printing import Printer
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection
from distribute_challenge.errors import PoolError, WorkerLost
from distribute_challenge.wire.link import Answer

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 10
SMALL_BYTES = 1 << 16  # of a call: a socket takes so many at once


class Lease:
    """A server connection that may hold a worker: kept at the end if it is settled, else closed."""

    def __init__(self, connections: Connections, server: ServerConnection) -> None:
        self.port = -1
        self.server = server
        self._connections = connections
        self._is_settled = False

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_settled:
            self._connections.put_server(self.server)
        else:
            self.server.close()

    def settle(self) -> None:
        """The connection holds no worker, by our own word."""
        self._is_settled = True

    def run(self, name: str, parcel: Parcel, timeout_s: float | None) -> Outcome:
        """The outcome of one call on the leased worker, which is given back.

        Raises Unusable if it did not take the call, WorkerLost if it died under it, TaskTimeout, Unreachable.
        """
        try:
            outcome = _run_on(self._connections, self.port, name, parcel, timeout_s)
        except Unreachable:
            self.server.free(self.port, finished=0, failed=0)
            self.settle()
            raise
        except Broken as broken:
            ending = self.server.recycle(self.port, str(broken))
            self.settle()
            if broken.ends_task or ending.has_begun(parcel.id):
                raise broken.error(name, ending) from None
            raise broken.unusable(ending) from None
        finished, failed = outcome.counts()
        self.server.free(self.port, finished=finished, failed=failed)
        self.settle()
        return outcome


def run(connections: Connections, name: str, parcel: Parcel, options: Options) -> Outcome:
    """The outcome of one call on the first worker to be had.

    `name` is the function's, for messages. Raises ServerUnavailable; WorkerLost if the worker died under the
    function; TaskTimeout; PoolError if workers cannot be reached.
    """
    retries = options.retries
    for _ in range(MAX_ATTEMPTS + retries):
        server, is_new = connections.take_server()
        with Lease(connections, server) as lease:
            try:
                lease.port = server.acquire()
            except EOFError as error:
                if is_new:
                    raise server.unavailable(error) from None
                # It had been idle, and the server was restarted meanwhile: nothing is lost.
                connections.forget_facts()
                log.info("an idle connection to the server had ended (%s)", error)
                continue
            try:
                return lease.run(name, parcel, options.timeout_s)
            except Unusable as reason:
                log.info("%s", reason)
            except WorkerLost as loss:
                if not retries:
                    raise
                retries -= 1
                log.info("%s; it is run again", loss)
    raise PoolError(f"{MAX_ATTEMPTS} workers one after another did not take {name}: see the server's log")


def find_lease(connections: Connections, wait_s: float = 0) -> Lease | None:
    """A worker that is free now, or within `wait_s` seconds; None if there is none."""
    while True:
        server, is_new = connections.take_server()
        try:
            port = server.find(wait_s)
        except (EOFError, OSError) as error:
            server.close()
            if is_new:
                raise server.unavailable(error) from None
            continue
        if port == -1:
            connections.put_server(server)
            return None
        lease = Lease(connections, server)
        lease.port = port
        return lease


def _listen(worker: WorkerConnection, answer: Answer) -> bool:
    """Take in what comes within a tick; False if nothing came. EOFError if the worker died unanswered."""
    try:
        return worker.link.serve_for_a_tick()
    except EOFError:
        if answer.is_here:  # The end has come together with the answer.
            return True
        raise


def _send_large(worker: WorkerConnection, parcel: Parcel, timeout_s: float) -> Answer:
    """Send a call that the worker may take its time to receive; the answer is to come. Raises Overdue."""
    deadline = time.monotonic() + timeout_s
    worker.link.never_wait()
    answer = worker.start(parcel)
    while not worker.link.flush_for_a_tick():
        if time.monotonic() >= deadline:
            raise Overdue(timeout_s)
    worker.link.wait_again()
    return answer


def _run_on(
    connections: Connections, port: int, name: str, parcel: Parcel, timeout_s: float | None
) -> Outcome:
    """The outcome of one call on a leased worker. Raises Broken or Unreachable if there is none."""
    try:
        worker = connections.take_worker(port)
    except (EOFError, OSError) as error:
        raise why_no_worker(error, connections.worker_address(port)) from None
    limit_s = math.inf if timeout_s is None else timeout_s
    printer = Printer()
    try:
        began_at = time.monotonic()
        answer = worker.start(parcel) if parcel.size < SMALL_BYTES else _send_large(worker, parcel, limit_s)
        while not answer.is_here:
            has_heard = _listen(worker, answer)
            if time.monotonic() - began_at >= limit_s and not answer.is_here:
                raise Overdue(limit_s)
            if parcel.prints and not has_heard:
                worker.show_output(parcel.id, printer)
        outcome = worker.outcome(parcel, answer)
    except BaseException as error:
        worker.close()
        if isinstance(error, EOFError):
            raise Broken(f"it died under {name}") from None
        if payload.is_busy(error):
            raise Broken("it still runs the function of a client that gave up") from None
        raise
    if outcome.output or printer.seen:
        printer.write(outcome.offset, outcome.output)
        printer.finish()
    connections.put_worker(port, worker)
    return outcome
