"""One call on a leased worker: sent, waited for, its output shown meanwhile. It knows no leases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from distribute_challenge.calls.payload import OUTPUT, Outcome
from distribute_challenge.client.parcels.parcel import Parcel
from distribute_challenge.client.peers.failures import Dead, Overdue, Silent
from distribute_challenge.client.peers.printing import Printer
from distribute_challenge.client.peers.worker import LAST_OUTPUT_S, LAST_TICK_S, WorkerConnection
from distribute_challenge.client.running.limit import TimeLimit
from distribute_challenge.wire.link import Answer

SMALL_BYTES = 1 << 14  # of a call: a socket takes so many at once


def call(
    worker: WorkerConnection,
    name: str,
    parcel: Parcel,
    timeout_s: float | None,
    is_dead: Callable[[float], bool],
    round_trip_s: float,
) -> Outcome:
    """The outcome of one call on a leased worker. Raises Broken if there is none, and TaskNotSendable.

    `is_dead` tells, at a time, whether the worker has died for all that the server knows.
    """
    limit_s = math.inf if timeout_s is None else timeout_s
    limit = TimeLimit(limit_s, worker.link, round_trip_s)
    printer: Printer | None = None
    try:
        may_be_large = parcel.size >= SMALL_BYTES or parcel.modules.digests or parcel.values
        answer = _send_large(worker, parcel, limit) if may_be_large else worker.start(parcel)
        now = time.monotonic()
        while not answer.is_here:
            try:
                has_heard = worker.link.serve_for_a_tick(limit.left_s(now))
            except EOFError:
                if not answer.is_here:  # Else the end has come together with the answer.
                    raise
            if answer.is_here:
                break
            now = time.monotonic()
            if limit.left_s(now) <= 0:
                if parcel.flags & OUTPUT:
                    printer = printer or Printer()
                    while (
                        not worker.show_output(parcel.id, printer, is_last=True)
                        and time.monotonic() < now + LAST_OUTPUT_S
                    ):
                        worker.link.serve_for_a_tick(LAST_TICK_S)
                raise Overdue(limit_s)
            if worker.link.is_stuck(now):
                raise Silent()
            if is_dead(now):
                worker.link.serve_arrived()
                if not answer.is_here:
                    raise Dead(name)
            if parcel.flags & OUTPUT and not has_heard:
                printer = printer or Printer()
                worker.show_output(parcel.id, printer)
        outcome = worker.outcome(name, parcel, answer)
    except BaseException as error:
        worker.close()
        if printer is not None:
            printer.finish()
        if isinstance(error, EOFError):
            raise Dead(name) from None
        raise
    if outcome.output or printer is not None:
        printer = printer or Printer()
        printer.write(outcome.offset, outcome.output)
        printer.finish()
        worker.close_reader()
    return outcome


def _send_large(worker: WorkerConnection, parcel: Parcel, limit: TimeLimit) -> Answer:
    """Send a call that the worker may take its time to receive; the answer is to come. Raises Overdue."""
    worker.link.never_wait()
    answer = worker.start(parcel)
    while not worker.link.flush_for_a_tick(limit.left_s(time.monotonic())):
        now = time.monotonic()
        if limit.left_s(now) <= 0:
            raise Overdue(limit.seconds)
        worker.link.serve_arrived()
        if worker.link.is_stuck(now):
            raise Silent()
    worker.link.wait_again()
    return answer
