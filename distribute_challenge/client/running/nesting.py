"""Tasks of tasks: calls that a function makes, on a worker, to the pool which that worker belongs to.

If they waited in line while their caller holds a worker, a pool could be full of callers that wait for each
other. So they never wait: they take a worker that is free, and if there is none they run in place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.calls.runner import Runner
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.shipping import Parcel
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.failures import Unusable
from distribute_challenge.client.running import lone
from distribute_challenge.client.running.tasks import Task
from distribute_challenge.errors import WorkerLost
from distribute_challenge.values.classes import apart

log = logging.getLogger(__name__)

REPLACED_S = 5.0  # A worker that was lost is back before.

_in_place = Runner(in_place=True)


def run(connections: Connections, name: str, parcel: Parcel, options: Options) -> Outcome:
    """The outcome of a call: on a worker that is free, else here."""
    lease = lone.find_lease(connections)
    return _run_here(parcel) if lease is None else _run_there(connections, lease, name, parcel, options)


def run_task(connections: Connections, task: Task, prepare: Callable[[], Task] | None) -> None:
    """Run a task: in a thread, on a worker that is free, else here and now.

    With `prepare` always here: it makes the task that has to run first in each process.
    """
    if not task.begin(time.monotonic()):
        return
    try:
        if prepare is not None:
            _run_here(prepare().parcel).load()
        lease = lone.find_lease(connections) if prepare is None else None
    except BaseException as error:
        task.fail(error)
        return
    if lease is None:
        task.complete(_run_here(task.parcel))
        return

    def run() -> None:
        try:
            outcome = _run_there(connections, lease, task.name, task.parcel, task.options)
        except BaseException as error:
            task.fail(error)
        else:
            task.complete(outcome)

    threading.Thread(target=run, name=f"nested {task.name}", daemon=True).start()


def _run_there(
    connections: Connections, lease: lone.Lease, name: str, parcel: Parcel, options: Options
) -> Outcome:
    for retries in range(options.retries, -1, -1):
        with lease:
            try:
                return lease.run(name, parcel, options.timeout_s)
            except Unusable as reason:
                log.info("%s", reason)
                break
            except WorkerLost as loss:
                # What has just ended a worker is not run here; but nobody waits for ever.
                another = lone.find_lease(connections, REPLACED_S) if retries else None
                if another is None:
                    raise
                log.info("%s; it is run again", loss)
        lease = another
    return _run_here(parcel)


def _run_here(parcel: Parcel) -> Outcome:
    with apart():
        kind, content, seconds, buffers = _in_place.run(
            parcel.source, parcel.call(), () if parcel.large is None else parcel.large.load()
        )
    return Outcome(kind, content, seconds, 0, (), Parts(buffers, may_share=False).load())
