"""Tasks of tasks: calls that a function makes, on a worker, to the pool which that worker belongs to.

They never wait, or a pool could be full of callers that wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from distribute_challenge.calls import flights
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.calls.runner import Runner
from distribute_challenge.calls.scattered import store
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.parcel import Parcel
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.running import lone
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.values.classes import apart

REPLACED_S = 5.0  # A worker that was lost is back before.

_in_place = Runner(in_place=True)


def run(
    connections: Connections, name: str, parcel: Parcel, options: Options, lease: lone.Lease | None = None
) -> Outcome:
    """The outcome of a call: on a worker that is free, else here."""
    # What has just ended a worker is not run here; but nobody waits for ever.
    outcome = lone.run(connections, name, parcel, options, wait_s=0, wait_again_s=REPLACED_S, lease=lease)
    return _run_here(parcel) if outcome is None else outcome


def run_task(connections: Connections, task: Task, prepare: Callable[[], Task] | None) -> None:
    """Run a task: in a thread, on a worker that is free, else here and now.

    With `prepare` always here: it makes the task that has to run first in each process.
    """
    if not task.begin(time.monotonic()):
        return
    try:
        if prepare is not None:
            _run_here(prepare().parcel).load()
        lease = None if prepare is not None else _free_lease(connections)
    except BaseException as error:
        task.fail(error)
        return
    if lease is None:
        task.complete(_run_here(task.parcel))
        return

    def run_there() -> None:
        try:
            outcome = run(connections, task.name, task.parcel, task.options, lease)
        except BaseException as error:
            task.fail(error)
        else:
            task.complete(outcome)

    threading.Thread(target=run_there, name=f"nested {task.name}", daemon=True).start()


def _free_lease(connections: Connections) -> lone.Lease | None:
    """A worker that is free now; None if there is none."""
    lease = lone.Lease(connections)
    is_taken = False
    try:
        is_taken = lease.take(0)
    finally:
        if not is_taken:
            lease.close()
    return lease if is_taken else None


def _run_here(parcel: Parcel) -> Outcome:
    call = parcel.call()
    flight = flights.begin(call, parcel.size, is_inside=True)
    held: set[bytes] = set()
    if parcel.values:
        store.take(parcel.pack_values(set(), can_share=True), held)
    with apart():
        outcome = _in_place.run(parcel.source, call, () if parcel.large is None else parcel.large.load())
    store.release(held, list(held))
    large = Parts(outcome.buffers, may_share=False)
    flights.end(flight, call, outcome, len(outcome.content) + large.size)
    return outcome._replace(buffers=large.load())
