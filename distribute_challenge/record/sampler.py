"""Records what the workers do, in a thread of its own: changes, tasks, and at each interval a sample."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distribute_challenge.record.files import RecordFile, open_record
from distribute_challenge.record.flight_reader import FlightReader
from distribute_challenge.record.profile import UNKNOWN, Change, Clock, Rows, Usage
from distribute_challenge.record.tasks import CutOff, TaskRows

if TYPE_CHECKING:
    from distribute_challenge.record.meter import Meter

log = logging.getLogger(__name__)

# What happens in this time is written together: one wake-up and one flush for all. While a worker is busy,
# the flight recorders are read as often.
GATHER_S = 0.02


class Watched(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def flight(self) -> FlightReader:
        """Its flight recorder."""


class Sampler:
    """Writes a profile and its tasks, and measures, in a thread of its own.

    `path` is None where nothing is to be written. `watched` gives the processes of the workers on `ports`.
    Opening the files raises OSError; a failure later, a full disk say, is logged once, and the record ends
    there. What cannot be measured is logged once too, and unknown in the samples.
    """

    def __init__(
        self,
        path: Path | None,
        ports: Sequence[int],
        interval_s: float,
        watched: Callable[[], Sequence[Watched | None]],
    ) -> None:
        self.path = path
        self.latest = [UNKNOWN] * len(ports)
        self.cpu_seconds = [0.0] * len(ports)  # of all processes that each worker has had
        # Called in the sampler's thread with the processes and what each takes.
        self.on_sample: Callable[[Sequence[int | None], Sequence[Usage]], None] = lambda _pids, _usages: None
        # Called there with how many functions have returned and raised that ran in place, within others.
        self.on_inside: Callable[[int, int], None] = lambda _finished, _failed: None
        # Called there when the workers have ended, and all that they ran is written.
        self.on_close: Callable[[], None] = lambda: None
        self._interval_s = interval_s
        self._watched = watched
        self._clock = Clock()
        self._rows = Rows(len(ports))
        self.task_rows = TaskRows(ports, self._clock)
        self._changes: deque[Change] = deque()
        self._gone: deque[tuple[int, FlightReader, float, CutOff]] = deque()
        # Of calls that run, by their workers and ids: what those workers took at most, in bytes; and of calls
        # that ran a sample before, which may have ended since, and not be written yet.
        self._peaks: dict[tuple[int, bytes], int] = {}
        self._former_peaks: dict[tuple[int, bytes], int] = {}
        self._wake = threading.Event()
        self._is_closing = threading.Event()
        self._files: Sequence[RecordFile] = () if path is None else open_record(path)
        self._meter: Meter | None = None
        self._has_failed_to_measure = False
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to write and to measure."""
        self._thread.start()

    def record(
        self,
        event: str,
        worker: int | None,
        *counts: int,
    ) -> None:
        """Note a change, now: `counts` are the rest of a `Change`.

        Whoever calls this holds the lock that keeps changes in order.
        """
        self._changes.append(Change(self._clock.now(), event, worker, *counts))
        if not self._wake.is_set():
            self._wake.set()

    def worker_gone(self, worker: int, flight: FlightReader, end: CutOff) -> None:
        """A worker's process has ended, now, and what it ran with it."""
        self._gone.append((worker, flight, time.monotonic(), end))
        self._wake.set()

    def close(self) -> None:
        """Write what is left and close the files."""
        self._is_closing.set()
        self._wake.set()
        if self._thread.ident is None:
            self._thread.start()  # It was never started: then it writes, and ends.
        self._thread.join()

    def _run(self) -> None:
        from distribute_challenge.record.meter import Meter  # Late: psutil takes its time to be imported.

        self._meter = Meter()
        # What starting the workers took belongs to no sample.
        self._measure(self._pids(), may_have_children=False)
        due = time.monotonic() + self._interval_s
        has_changed = False
        while not self._is_closing.is_set():
            pause_s = GATHER_S if self._rows.is_anyone_busy else self._interval_s
            if self._wake.wait(max(min(due - time.monotonic(), pause_s), 0)):
                self._is_closing.wait(GATHER_S)
                self._wake.clear()  # First: what comes while we write wakes us again.
                has_changed = True
            self._write_tasks()
            self._write_changes()
            if time.monotonic() >= due:
                # Only a function starts processes: an idle pool is spared the look at all of them.
                self._sample(may_have_children=has_changed or self._rows.is_anyone_busy)
                has_changed = False
                due += self._interval_s
                if (now := time.monotonic()) > due:  # It was stopped. A sample needs some time to be one of.
                    due = now + self._interval_s
        self._write_tasks()
        self.on_close()
        self._write_changes()
        for file in self._files:
            file.close()

    def _write_tasks(self) -> None:
        """Write what the flight recorders hold."""
        text = []
        while self._gone:
            worker, flight, ended, end = self._gone.popleft()
            text += self._ended(worker, flight)
            for number, call in enumerate(flight.running()):
                if number:  # It ran within the first.
                    self.on_inside(0, 1)
                text.append(self.task_rows.cut_off(worker, call, ended, end, self._peak_of(worker, call.id)))
        for worker, watched in enumerate(self._watched()):
            if watched is not None:
                text += self._ended(worker, watched.flight)
        if text and self._files:
            self._files[1].write("".join(text))

    def _ended(self, worker: int, flight: FlightReader) -> list[str]:
        rows = []
        for call in flight.ended():
            if call.is_inside:
                self.on_inside(call.finished, call.failed)
            rows.append(self.task_rows.ended(worker, call, self._peak_of(worker, call.begun.id)))
        return rows

    def _peak_of(self, worker: int, id_: bytes) -> int | None:
        former = self._former_peaks.pop((worker, id_), None)
        return self._peaks.pop((worker, id_), former)

    def _write_changes(self) -> None:
        self._write("".join(self._rows.change(self._changes.popleft()) for _ in range(len(self._changes))))

    def _write(self, text: str) -> None:
        if self._files:
            self._files[0].write(text)

    def _pids(self) -> list[int | None]:
        return [None if watched is None else watched.pid for watched in self._watched()]

    def _sample(self, *, may_have_children: bool) -> None:
        timestamp = self._clock.now()
        pids = self._pids()
        self.latest = self._measure(pids, may_have_children=may_have_children)
        usages = zip(self.cpu_seconds, self.latest, strict=True)
        self.cpu_seconds = [before + usage.cpu_s for before, usage in usages]
        self.on_sample(pids, self.latest)
        self._write(self._rows.sample(timestamp, self.latest))
        peaks: dict[tuple[int, bytes], int] = {}
        for worker, (watched, usage) in enumerate(zip(self._watched(), self.latest, strict=True)):
            if watched is not None and usage.memory_bytes is not None:
                for call in watched.flight.running():
                    key = worker, call.id  # Calls of plain clients are numbered by each worker.
                    peaks[key] = max(usage.memory_bytes, self._peaks.get(key, 0))
        self._peaks, self._former_peaks = peaks, self._peaks

    def _measure(self, pids: Sequence[int | None], *, may_have_children: bool) -> list[Usage]:
        """The usage of each worker: unknown where the system does not tell, being out of descriptors say."""
        assert self._meter is not None
        try:
            return self._meter.measure(pids, may_have_children=may_have_children)
        except OSError as error:
            if not self._has_failed_to_measure:
                self._has_failed_to_measure = True
                log.error("cannot measure the workers (%s): samples without values are recorded", error)
            return [UNKNOWN] * len(pids)
