"""The pool beside a Dask worker, which runs the parcels that Dask brings. It knows no Dask itself.

So a function runs in the main thread of a process of its own, is killed alone, and finds all that it finds on
a pool, whatever the Dask worker is: one thread or several, with a nanny or without. The pool has as many
workers as the Dask worker has threads, and ends with it.
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from distribute_challenge.address import CLUSTER_VARIABLE
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.buffers import unpack as unpack_buffers
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.client.dask.carried import CarriedTask, Tell, ToldTask
from distribute_challenge.client.dask.freight import (
    ERROR,
    OUTCOME,
    Forwarded,
    Freight,
    Packed,
    Report,
    encodable,
)
from distribute_challenge.client.local import PrivateServer
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.running.driver import Driver
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.errors import PoolError, TaskTimeout, WorkerLost
from distribute_challenge.record.flight import MAX_ERROR
from distribute_challenge.record.meter import Meter
from distribute_challenge.record.tasks import DONE, FAILED, KILLED, LOST, TIMEOUT
from distribute_challenge.values import PROTOCOL
from distribute_challenge.wire.access import Trust

MIN_MEMORY_BYTES = 64 << 20  # the least limit that a pool takes
MAX_UNWANTED = 10_000
MAX_PROGRAMS = 16  # that are known, the latest; an executor with an initializer is one of its own

Say = Callable[[dict[str, Any]], None]


class Outpost:
    """The pool beside one Dask worker, and the tasks that run there."""

    def __init__(self, threads: int, memory_limit: int | None, cluster: str) -> None:
        options = []
        if memory_limit is not None and memory_limit // threads >= MIN_MEMORY_BYTES:
            options = ["--memory-limit", str(memory_limit // threads)]
        self._threads = threads
        self._server = PrivateServer(threads, "none", options, {CLUSTER_VARIABLE: cluster})
        self._making = threading.Lock()  # held while any of the next two is made, which takes time
        # For each client program, or executor with an initializer: once these connections have ended, the
        # workers forget it.
        self._programs: OrderedDict[bytes, tuple[Driver, Connections]] = OrderedDict()
        self._values: weakref.WeakKeyDictionary[Any, Scattered] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # guards the next two, for a moment: Dask's event loop waits for it
        self._tasks: dict[str, Task] = {}  # by Dask's key
        # Calls that are to be killed, and may come yet.
        self._unwanted: OrderedDict[bytes, None] = OrderedDict()
        self._meter = Meter()

    def run(
        self,
        key: str,
        freight: Freight,
        values: tuple[Any, ...],
        tell: Tell,
        say: Say,
        is_wanted: Callable[[], bool],
    ) -> Report:
        """Run a call; what became of it. `say` is called with that for the record.

        `is_wanted` tells whether Dask has not dropped it before `drop` can find it here.
        """
        scattered = tuple(map(self._scattered, freight.values, values))
        parcel = Forwarded(freight.packed, scattered)
        options = Options(freight.timeout_s)  # Its client sends it again, if it is to be.
        task = CarriedTask(freight.packed[0], parcel, options, tell)
        with self._lock:
            self._tasks[key] = task
            was_killed = parcel.id in self._unwanted
        try:
            if was_killed or not is_wanted():
                raise CancelledError(f"{task.name} was killed, as its caller wished")
            self._driver(parcel.program, freight.initializer, tell).add(task, self._threads, None)
            outcome: Outcome = task.future.result()
        except BaseException as error:
            say(_said(parcel, error))
            return ERROR, dump_error(error), task.printed
        finally:
            with self._lock:
                del self._tasks[key]
        content = outcome._replace(offset=0, output=(), buffers=())
        buffers = Parts(outcome.buffers, may_share=False).pack(can_share=False) if outcome.buffers else ()
        packed = content.pack(buffers)
        say(_said(parcel, outcome, len(packed)))
        return OUTCOME, packed, task.printed

    def usage(self) -> tuple[float, int]:
        """What the pool's processes take: percent of one core since the last time, and resident bytes."""
        (usage,) = self._meter.measure([self._server.pid], may_have_children=True)
        return usage.cpu_percent or 0.0, usage.memory_bytes or 0

    def kill(self, ids: list[bytes]) -> list[bytes]:
        """Stop calls: those that run, and those that come yet. Those that run here."""
        with self._lock:
            found = [task for task in self._tasks.values() if task.parcel.id in ids]
            self._unwanted.update(dict.fromkeys(ids))
            while len(self._unwanted) > MAX_UNWANTED:
                self._unwanted.popitem(last=False)
        for task in found:
            task.future.kill()
        return [task.parcel.id for task in found]

    def drop(self, key: str) -> None:
        """Nobody wants a call any more."""
        with self._lock:
            task = self._tasks.get(key)
        if task is not None:
            task.future.kill()

    def forget(self, program: bytes) -> None:
        """The executor of an initializer has ended."""
        with self._making:
            self._drop(program)

    def close(self) -> None:
        """End the pool."""
        self._server.close()

    def _driver(self, program: bytes, initializer: Packed | None, tell: Tell) -> Driver:
        with self._making:
            if program not in self._programs:
                connections = Connections(self._server.address(), Trust())
                connections.facts()
                prepare = None if initializer is None else partial(_preparation, initializer, tell)
                self._programs[program] = Driver(connections, prepare), connections
                if len(self._programs) > MAX_PROGRAMS:
                    self._drop(next(iter(self._programs)))
            self._programs.move_to_end(program)
            driver, _ = self._programs[program]
        if driver.broken is not None:
            raise driver.broken
        return driver

    def _drop(self, program: bytes) -> None:
        """Forget a program. What it runs goes on."""
        if (known := self._programs.pop(program, None)) is not None:
            known[1].close()

    def _scattered(self, token: bytes, value: Any) -> Scattered:
        with self._making:
            known = self._values.get(value)
            if known is None:
                buffers = unpack_buffers(memoryview(value.data))
                known = self._values[value] = Scattered(Parts(buffers, may_share=True), frozenset(), token)
            return known


def _preparation(initializer: Packed, tell: Tell) -> Task:
    return ToldTask(initializer[0], Forwarded(initializer, ()), Options(), tell)


def _said(parcel: Forwarded, end: Outcome | BaseException, size: int = 0) -> dict[str, Any]:
    """A call that ran, for the record of a cluster."""
    function, _, client = parcel.label.decode(errors="replace").partition("\0")
    about = {"function": function, "client": client, "queued": parcel.queued, "sent": parcel.size}
    if isinstance(end, Outcome):
        finished, failed = end.counts(parcel.count)
        error = end.error if failed else ""
        status, seconds = DONE if finished else FAILED, end.seconds
    else:
        finished, failed, seconds = 0, 1, None
        error = f"{type(end).__name__}: {end}".partition("\n")[0][:MAX_ERROR]
        kinds = {TaskTimeout: TIMEOUT, CancelledError: KILLED, WorkerLost: LOST}
        status = next((status for kind, status in kinds.items() if isinstance(end, kind)), FAILED)
    ends = {"finished": finished, "failed": failed, "seconds": seconds, "status": status}
    return {**about, **ends, "error": encodable(error), "returned": size}


def dump_error(error: BaseException) -> bytes:
    """An exception of the pool here, which says in which Dask worker that is."""
    where = f"{error} (beside the Dask worker {os.getpid()} on {socket.gethostname()})"
    try:
        told: BaseException = type(error)(where)
        told.__cause__ = None
        return pickle.dumps(told, PROTOCOL)
    except Exception:  # Not one of ours: it has a constructor of its own, or cannot be pickled.
        return pickle.dumps(PoolError(f"{type(error).__name__}: {where}"), PROTOCOL)
