"""Writes the record of a cluster from what the observer notes, and knows how things stand."""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import platform
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distribute_challenge.cluster.slots import DaskWorker, Done, Running, Slots, Step
from distribute_challenge.record.files import RecordFile, open_record
from distribute_challenge.record.flight import (
    ID_BYTES,
    MEMORY_BYTES,
    Flight,
    FlightRecorder,
    label,
    recorder_file,
)
from distribute_challenge.record.flight_reader import Begun, Ended, FlightReader
from distribute_challenge.record.profile import COUNTS_ONLY, UNKNOWN, Change, Clock, Rows, Usage
from distribute_challenge.record.tasks import DONE, FAILED, CutOff, TaskRows

log = logging.getLogger(__name__)

MAX_SLOTS = 65_535  # as many as a tasks file can name
_numbers = itertools.count(1)  # of what is shown to run


class UnixClock(Clock):
    """A clock of which all times are Unix seconds already: those of the scheduler."""

    def at(self, monotonic: float) -> float:
        """The same."""
        return monotonic

    def of(self, system: float) -> float:
        """The same."""
        return system


class Recorder:
    """The record of a cluster. Safe to use from any thread.

    `path` is None where nothing is to be written. Making it raises OSError.
    """

    def __init__(self, path: Path | None, scheduler: str, interval_s: float) -> None:
        self.path = path
        self._lock = threading.Lock()  # guards the rest; what `status` gives is made anew each time
        self._is_closed = False
        self.slots = Slots()
        self.task_rows = TaskRows(range(1, MAX_SLOTS + 1), UnixClock())
        self._rows: Rows | None = None  # None: no worker has come
        self._files: Sequence[RecordFile] = () if path is None else open_record(path)
        self._interval_s = interval_s
        self._started = time.monotonic()
        self._now = self._sampled = 0.0
        self._usage: list[Usage] = []
        self._cpu_s: list[float] = []
        self._peaks: dict[str, int] = {}  # of tasks that run: what their slots took at most, in bytes
        self._flights: dict[int, RunningNow] = {}
        self._lacks_memory = False  # or descriptors, for one more of these
        self._fixed = {"python": platform.python_version(), "engine": "dask", "scheduler": scheduler}
        self._state: dict[str, Any] = {}
        self._cpu_of_all: list[float] = []
        self._tell()

    def take(self, fetched: Mapping[str, Any]) -> bool:
        """Take in what was fetched from the observer, and write it; whether the record goes on."""
        with self._lock:
            if not self._is_closed:
                self._take(fetched)
            return not self._is_closed

    def _take(self, fetched: Mapping[str, Any]) -> None:
        self._now = fetched["now"]
        if fetched["missed"]:
            log.error("%d notes of the cluster are lost: it did more than is kept", fetched["missed"])
        # The counts are as they are when each step is made.
        found = [(it, self._counts()) for note in fetched["notes"] for it in self.slots.take(tuple(note))]
        if self._rows is None and self.slots.count:
            self._rows = Rows(self.slots.count)
            first = next(it.time for it, _ in found if isinstance(it, Step))
            self._write([self._rows.change(Change(first, "start", None, 0, 0, 0, 0, 0))])
        if self._rows is None:
            return
        rows, tasks = [], []
        for it, counts in found:
            if isinstance(it, Done):
                tasks.append(self._task(it))
            else:
                rows.append(self._rows.change(Change(it.time, it.event, it.slot, it.busy, *counts)))
        rows.append(self._rows.change(Change(self._now, COUNTS_ONLY, None, 0, *self._counts())))
        self._write(rows, tasks)
        self._show(self.slots.running())
        if self._now - self._sampled >= self._interval_s:
            self._sample(fetched["usage"])
        self._tell()

    def _counts(self) -> tuple[int, int, int, int]:
        return self.slots.finished, self.slots.failed, self.slots.waiting, self.slots.tasks

    def close(self, *, has_gone: bool = False) -> None:
        """End the record. What runs is lost if the scheduler `has_gone`, and else goes on unseen."""
        with self._lock:
            if has_gone:
                tasks = [running.task for _, running in self.slots.running()]
                notes = [("ended", self._now, task, "over", None, 0, None, "") for task in tasks]
                self._take({"now": self._now, "missed": 0, "notes": notes, "usage": {}})
            self._is_closed = True
            if self._rows is not None:
                self._write([self._rows.change(Change(self._now, "stop", None, 0, *self._counts()))])
            for file in self._files:
                file.close()
            self._show(())

    def status(self) -> dict[str, Any]:
        """The state, as the call `status` of a server gives it; workers also have an `address`."""
        return {**self._state, "uptime": round(time.monotonic() - self._started, 3)}

    def cpu_seconds(self) -> list[float]:
        """Seconds of processor time, for each worker in `status`."""
        return self._cpu_of_all

    def _write(self, rows: Iterable[str], tasks: Iterable[str] = ()) -> None:
        for file, text in zip(self._files, (rows, tasks), strict=False):
            file.write("".join(text))

    def _task(self, done: Done) -> str:
        begun = Begun(done.started, done.queued, done.sent, b"", done.function, done.client)
        memory = self._peaks.pop(done.task, None)
        if done.status in (DONE, FAILED):
            size, error = (done.sent, done.ended, done.seconds, done.returned), done.error
            call = Ended(begun, *size, done.finished, done.failed, False, error)
            return self.task_rows.ended(done.slot, call, memory)
        return self.task_rows.cut_off(done.slot, begun, done.ended, CutOff(done.status, done.error), memory)

    def _show(self, running: Iterable[tuple[int, Running]]) -> None:
        """Have flight recorders hold what runs: the live page reads them, as those of a pool."""
        now = dict(running)
        present = {slot for worker in self.slots.workers.values() for slot in worker.slots}
        for slot in self._flights.keys() - present:
            self._flights.pop(slot).close()
        for slot in sorted(present - self._flights.keys()) if self._files else ():
            try:
                self._flights[slot] = RunningNow(slot + 1)
            except OSError as error:
                if not self._lacks_memory:
                    log.error("the live page does not show all that runs (%s)", error)
                self._lacks_memory = True
                break
        for slot, flight in self._flights.items():
            flight.show(now.get(slot))

    def _sample(self, usage: Mapping[str, Sequence[float | None]]) -> None:
        assert self._rows is not None
        elapsed_s = self._now - self._sampled if self._sampled else 0.0
        self._usage = [UNKNOWN] * self.slots.count
        self._cpu_s += [0.0] * (self.slots.count - len(self._cpu_s))
        for worker in self.slots.workers.values():
            each = _share(usage.get(worker.address), worker)
            for slot in worker.slots:
                self._usage[slot] = each
                self._cpu_s[slot] += (each.cpu_percent or 0.0) / 100 * elapsed_s
        self._sampled = self._now
        self._write([self._rows.sample(self._now, self._usage)])
        peaks: dict[str, int] = {}
        for slot, running in self.slots.running():
            taken = self._usage[slot].memory_bytes
            if taken is not None:
                peaks[running.task] = max(taken, self._peaks.get(running.task, 0))
        self._peaks = peaks

    def _tell(self) -> None:
        runs = {
            slot: {"function": call.function, "client": call.client, "since": round(call.begun, 3)}
            for slot, call in self.slots.running()
        }
        workers, seconds = [], []
        every = sorted((slot, worker) for worker in self.slots.workers.values() for slot in worker.slots)
        for slot, worker in every:
            usage = self._usage[slot] if slot < len(self._usage) else UNKNOWN
            seconds.append(self._cpu_s[slot] if slot < len(self._cpu_s) else 0.0)
            workers.append(
                {
                    "port": slot + 1,
                    "address": worker.address.partition("://")[2],
                    "pid": None,
                    "state": "leased" if slot in runs else "free",
                    "cpu": usage.cpu_percent,
                    "memory": usage.memory_bytes,
                    "running": [runs[slot]] if slot in runs else [],
                }
            )
        slots = self.slots
        self._cpu_of_all = seconds
        self._state = {
            **self._fixed,
            "workers": workers,
            "busy": [int(worker["state"] == "leased") for worker in workers],
            "finished": slots.finished,
            "failed": slots.failed,
            "waiting": slots.waiting,
            "tasks": slots.tasks,
            "lost": {"gone": slots.lost} if slots.lost else {},
            "now": round(self._now, 3),
        }


class RunningNow:
    """A flight recorder that shows what runs on a slot, by its number from 1."""

    def __init__(self, number: int) -> None:
        descriptor = recorder_file(number)
        # The map keeps a descriptor of its own, by which the live page finds the file.
        try:
            self._memory = mmap.mmap(descriptor, MEMORY_BYTES)
        finally:
            os.close(descriptor)
        self._recorder, self._reader = FlightRecorder(self._memory), FlightReader(self._memory)
        self._task: str | None = None
        self._flight: Flight | None = None

    def show(self, running: Running | None) -> None:
        """This runs, or nothing."""
        task = None if running is None else running.task
        if task == self._task:
            return
        if self._flight is not None:
            self._recorder.end(self._flight, finished=0, failed=0, seconds=0.0, returned=0)
            self._reader.ended()  # The record is written from what the scheduler knows.
            self._flight = None
        if running is not None:
            number = next(_numbers).to_bytes(ID_BYTES, "little")
            self._flight = self._recorder.begin(number, label(running.function, running.client), 0)
        self._task = task

    def close(self) -> None:
        """Nothing runs there any more, since its worker has left."""
        self.show(None)
        self._memory.close()


def _share(usage: Sequence[float | None] | None, worker: DaskWorker) -> Usage:
    """What one thread of a worker takes, if all take the same; the pool beside it included."""
    if usage is None:
        return UNKNOWN
    (cpu, memory, own_cpu, own_memory), threads = usage, len(worker.slots)
    cpu_percent = None if cpu is None else (cpu + (own_cpu or 0)) / threads
    return Usage(cpu_percent, None if memory is None else int(memory + (own_memory or 0)) // threads)
