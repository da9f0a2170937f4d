"""Records what the workers do, in a thread of its own: changes, and at each interval a sample."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

import psutil

from distribute_challenge.record.profile import Change, Rows, Usage, open_profile

log = logging.getLogger(__name__)

GATHER_S = 0.02  # Changes of this time are written together: one wake-up and one flush for all.
UNKNOWN = Usage(None, None)


class Meter:
    """Measures processes with psutil.

    The CPU time of a process counts with that of its children, those that have ended included, so that a
    worker whose function starts a short-lived process does not look idle.
    """

    def __init__(self) -> None:
        self._before: dict[psutil.Process, float] = {}  # CPU seconds at the last measurement
        self._measured_at = time.monotonic()
        self._has_children = False

    def measure(self, pids: Sequence[int | None], *, may_have_children: bool) -> list[Usage]:
        """The usage of each process since the last measurement, or since it began if that was later.

        The process table is passed over once, and not at all if nobody can have children. Raises OSError
        and psutil.Error, and then has measured nothing: the next measurement covers this time too.
        """
        children: dict[int, list[psutil.Process]] = {}
        if may_have_children or self._has_children:
            for process in psutil.process_iter(["ppid"]):
                children.setdefault(process.info["ppid"], []).append(process)
        now = time.monotonic()
        elapsed_s = max(now - self._measured_at, 1e-3)
        after: dict[psutil.Process, float] = {}
        usages = [UNKNOWN if pid is None else self._usage(pid, children, after, elapsed_s) for pid in pids]
        self._measured_at, self._before = now, after
        self._has_children = any(children.get(pid) for pid in pids if pid is not None)
        return usages

    def _usage(
        self,
        pid: int,
        children: dict[int, list[psutil.Process]],
        after: dict[psutil.Process, float],
        elapsed_s: float,
    ) -> Usage:
        try:
            worker = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return UNKNOWN
        family = [worker]
        for member in family:  # It grows while it is gone through.
            family += children.get(member.pid, ())
        cpu_s = 0.0
        memory_bytes = 0
        for member in family:
            try:
                with member.oneshot():
                    times = member.cpu_times()
                    memory_bytes += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        after[worker] = cpu_s
        # What an orphan took leaves the sum with it, which then is not less than nothing.
        used_s = max(cpu_s - self._before.get(worker, 0.0), 0.0)
        return Usage(100 * used_s / elapsed_s, memory_bytes)


class Sampler:
    """Writes a profile, and measures, in a thread of its own.

    `path` is None where nothing is to be written. `pids` gives the workers' processes. Opening the file
    raises OSError; a failure later, a full disk say, is logged once, and the record ends there. What cannot
    be measured is logged once too, and unknown in the samples.
    """

    def __init__(
        self, path: Path | None, workers: int, interval_s: float, pids: Callable[[], Sequence[int | None]]
    ) -> None:
        self.path = path
        self.latest = [UNKNOWN] * workers
        # Called in the sampler's thread with the processes and what each takes.
        self.on_sample: Callable[[Sequence[int | None], Sequence[Usage]], None] = lambda _pids, _usages: None
        self._interval_s = interval_s
        self._pids = pids
        self._epoch = time.time() - time.monotonic()  # Once: the system's clock may be set back.
        self._rows = Rows(workers)
        self._changes: deque[Change] = deque()
        self._wake = threading.Event()
        self._is_closing = threading.Event()
        self._file: FileIO | None = None if path is None else open_profile(path)
        self._meter = Meter()
        self._has_failed_to_measure = False
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to write and to measure."""
        self._thread.start()

    def record(
        self, event: str, worker: int | None, busy: int, finished: int, failed: int, waiting: int
    ) -> None:
        """Note a change, now. Whoever calls this holds the lock that keeps changes in order."""
        self._changes.append(Change(self._now(), event, worker, busy, finished, failed, waiting))
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._is_closing.set()
        self._wake.set()
        if self._thread.ident is None:
            self._thread.start()  # It was never started: then it writes, and ends.
        self._thread.join()

    def _now(self) -> float:
        return self._epoch + time.monotonic()

    def _run(self) -> None:
        # What starting the workers took belongs to no sample.
        self._measure(self._pids(), may_have_children=False)
        due = time.monotonic() + self._interval_s
        has_changed = False
        while not self._is_closing.is_set():
            if self._wake.wait(max(due - time.monotonic(), 0)):
                self._is_closing.wait(GATHER_S)
                self._wake.clear()  # First: what comes while we write wakes us again.
                has_changed = True
            self._write_changes()
            if time.monotonic() >= due:
                # Only a function starts processes: an idle pool is spared the look at all of them.
                self._sample(may_have_children=has_changed or self._rows.is_anyone_busy)
                has_changed = False
                due = max(due + self._interval_s, time.monotonic())
        self._write_changes()
        self._end_record()

    def _write_changes(self) -> None:
        self._write("".join(self._rows.change(self._changes.popleft()) for _ in range(len(self._changes))))

    def _sample(self, *, may_have_children: bool) -> None:
        timestamp = self._now()
        pids = self._pids()
        self.latest = self._measure(pids, may_have_children=may_have_children)
        self.on_sample(pids, self.latest)
        self._write(self._rows.sample(timestamp, self.latest))

    def _measure(self, pids: Sequence[int | None], *, may_have_children: bool) -> list[Usage]:
        """The usage of each worker: unknown where the system does not tell, being out of descriptors say."""
        try:
            return self._meter.measure(pids, may_have_children=may_have_children)
        except (OSError, psutil.Error) as error:
            if not self._has_failed_to_measure:
                self._has_failed_to_measure = True
                log.error("cannot measure the workers (%s): samples without values are recorded", error)
            return [UNKNOWN] * len(pids)

    def _write(self, text: str) -> None:
        if self._file is None or not text:
            return
        try:
            data = text.encode()
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, "no space left for the rest of a row")
        except OSError as error:
            log.error("the profile %s ends here (%s); the pool works on", self.path, error.strerror)
            self._end_record()

    def _end_record(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # A remote file system tells only now; it was said before.
                file.close()
