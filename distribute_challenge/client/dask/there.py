"""What happens on a Dask worker: Dask brings a parcel, and the pool beside the worker runs it."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
import threading
import weakref
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from distribute_challenge.client.dask.freight import ERROR, FORMAT, REFUSED, SAID, Freight, Report, encodable
from distribute_challenge.client.dask.outpost import Outpost, dump_error
from distribute_challenge.errors import PoolError, ServerUnavailable
from distribute_challenge.record.tasks import FAILED

RUNNING = ("executing", "long-running")  # as Dask's worker calls it

_outposts: weakref.WeakKeyDictionary[Any, Outpost] = weakref.WeakKeyDictionary()
_lock = threading.Lock()  # guards it


def _outpost_of(worker: Worker) -> Outpost:
    with _lock:
        outpost = _outposts.get(worker)
        if outpost is None:
            # Late, with all modules: a Dask worker that never gets a parcel has no pool.
            limit = worker.memory_manager.memory_limit
            outpost = Outpost(worker.state.nthreads, limit or None, worker.scheduler.address)
            _outposts[worker] = outpost
            measure = outpost.usage
            worker.metrics[SAID] = lambda _worker: asyncio.to_thread(measure)
            worker.plugins[SAID] = _Ends(outpost)
        return outpost


class _Ends(WorkerPlugin):
    """Ends a pool with its Dask worker, which may share its process, and calls with their clients."""

    def __init__(self, outpost: Outpost) -> None:
        self._outpost = outpost

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Called by Dask, which drops a task whose client has gone, but cannot stop it."""
        if start in RUNNING and finish == "released":
            self._outpost.drop(key)

    async def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker closes."""
        del worker
        await asyncio.to_thread(self._outpost.close)


def run(format_: int, data: bytes, *values: Any) -> Report:
    """Run what Dask has brought; what became of it. Called in a thread of a Dask worker."""
    worker: Worker = get_worker()
    key = worker.get_current_task()
    task = worker.state.tasks.get(key)

    def say(said: dict[str, Any]) -> None:
        if task is not None:
            task.metadata[SAID] = said

    if format_ != FORMAT:
        end, other = ("the client", "this worker") if format_ < FORMAT else ("this worker", "the client")
        text = f"its version of this package is not the client's: update {end} ({sys.executable} on "
        text = encodable(f"{text}{socket.gethostname()}) to that of {other}")
        say({"finished": 0, "failed": 1, "status": FAILED, "error": f"PoolError: {text}"})
        return REFUSED, text, []
    freight = Freight.load(data)
    outpost = _outpost_of(worker)
    topic = freight.topic

    def tell(number: int, text: bytes) -> None:  # It may live longer than the freight.
        worker.log_event(topic, [number, text])

    def is_wanted() -> bool:
        return task is None or task.state in RUNNING

    try:
        report = outpost.run(key, freight, values, tell, say, is_wanted)
    except (OSError, PoolError) as error:  # Its pool cannot be started, or has ended.
        report = ERROR, dump_error(error), []
    if report[0] == ERROR and isinstance(pickle.loads(report[1]), ServerUnavailable):
        with _lock:  # The next call starts another pool.
            if _outposts.get(worker) is outpost:
                del _outposts[worker]
        outpost.close()
    return report


def kill(ids: list[bytes]) -> list[bytes]:
    """Stop calls, wherever they are in this process; those that ran."""
    with _lock:
        outposts = list(_outposts.values())
    return [id_ for outpost in outposts for id_ in outpost.kill(ids)]


def forget(program: bytes) -> None:
    """The executor of an initializer has ended."""
    with _lock:
        outposts = list(_outposts.values())
    for outpost in outposts:
        outpost.forget(program)
