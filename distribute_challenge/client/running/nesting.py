"""Tasks of tasks: calls that a function makes, on a worker, to the pool which that worker belongs to.

They never wait, or a pool could be full of callers that wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from distribute_challenge.calls import flights
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.payload import NO_PROGRAM, Outcome
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


class Nested:
    """Runs the tasks of a function's executor: each in a thread, on a worker that is free, else here.

    With `prepare` always here: it makes the task that has to run first in each process. Nothing stops a task.
    """

    broken = None

    def __init__(self, connections: Connections, prepare: Callable[[], Task] | None) -> None:
        self._connections = connections
        self._prepare = prepare
        self._prepared = NO_PROGRAM  # for which it has
        self._threads: set[threading.Thread] = set()

    def add(self, task: Task, max_lanes: int, max_tasks: int | None) -> None:
        """Run a task, using at most `max_lanes` other workers at once."""
        del max_tasks  # That is for who keeps a worker.
        if not task.begin(time.monotonic()):
            return
        try:
            if self._prepare is not None:
                parcel = self._prepare().parcel
                self._prepared = parcel.program
                _run_here(parcel).load()
            is_here = self._prepare is not None or len(self._threads) >= max_lanes
            lease = None if is_here else _free_lease(self._connections)
        except BaseException as error:
            task.fail(error)
            return
        if lease is None:
            task.complete(_run_here(task.parcel))
            return

        def run_there() -> None:
            try:
                outcome = run(self._connections, task.name, task.parcel, task.options, lease)
            except BaseException as error:
                task.fail(error)
            else:
                task.complete(outcome)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run_there, name=f"nested {task.name}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # There may be too many threads.
            run_there()

    def kill(self, task: Task) -> None:
        """Nothing stops it."""

    def kill_all(self) -> None:
        """Nothing stops them."""

    def close(self, *, cancel: bool) -> None:
        """There is nothing to end: no task waits here."""

    def join(self) -> None:
        """Wait until all tasks have ended, and forget what was set up for them."""
        for thread in list(self._threads):
            # A callback of its task may shut the executor down, and another thread may only now add one.
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()
        if self._prepare is not None:
            _in_place.forget(self._prepared)


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
    held: set[bytes] = set()
    if parcel.values:
        store.take(parcel.pack_values(set(), can_share=True), held)
    flight = flights.begin(call, parcel.size, is_inside=True)
    with apart():
        outcome = _in_place.run(parcel.source, call, () if parcel.large is None else parcel.large.load())
    if held:
        _in_place.forget_holders(held)
        store.release(held, list(held))
    large = Parts(outcome.buffers, may_share=False)
    flights.end(flight, call, outcome, len(outcome.content) + large.size)
    return outcome._replace(buffers=large.load())
