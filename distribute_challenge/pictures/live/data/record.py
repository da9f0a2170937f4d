"""A record as it grows: read on from where it was, as sums and shapes that stay of one size."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.address import DEFAULT_PORT
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures import lanes, reading
from distribute_challenge.pictures.live.data.levels import Batch, Level
from distribute_challenge.pictures.live.data.running import FlightRecorders
from distribute_challenge.pictures.live.data.series import Functions, Series
from distribute_challenge.pictures.live.data.workers import Workers
from distribute_challenge.pictures.period import lengthened
from distribute_challenge.pictures.reading import Profile, read_profile
from distribute_challenge.pictures.table import open_table
from distribute_challenge.pictures.tasks import Tasks, read_tasks
from distribute_challenge.record.tasks import COLUMNS, DONE, STATUSES, tasks_path

MINUTE, HOUR, DAY = 60, 3600, 86400
WINDOWS_S = (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 60 * DAY)
STRETCHES = 600  # of a lane, in a window
MOST_SHAPES = 12_000  # in all lanes, that are no longer than a stretch
MOST_NAMES = 1000  # of functions, and of clients: those that come later are one
OTHERS = "(others)"
HELD = "(held by a client)"  # the only function of a record without tasks
LATEST = 12  # failures that are kept


class Failure(NamedTuple):
    """A task that did not return, or a chunk of them."""

    time: float  # Unix seconds
    function: str
    client: str
    lane: int
    number: int  # of functions
    status: str
    error: str


class Names:
    """Names, and a number for each; 0 is for those that came when there were too many."""

    def __init__(self) -> None:
        self.names = [OTHERS]
        self._numbers = {OTHERS: 0}

    def numbers(self, names: tuple[str, ...]) -> NDArray[np.int32]:
        """The numbers of names."""
        for name in names:
            if name not in self._numbers and len(self.names) < MOST_NAMES:
                self._numbers[name] = len(self.names)
                self.names.append(name)
        return np.array([self._numbers.get(name, 0) for name in names], np.int32)


class Record:
    """A profile and its tasks, from its first row to its latest.

    It is kept for several windows; if `whole` is how many shapes there may be, for one that has all.
    `ports` says which worker, by its number, is at which. What turns out to be wrong later is a `problem`,
    and reading ends there.
    """

    def __init__(
        self,
        profile: Profile,
        tasks: Tasks | None,
        ports: Mapping[int, int],
        flights: FlightRecorders | None = None,
        whole: int | None = None,
    ) -> None:
        self.path = path = profile.path
        self.problem: str | None = None
        self.functions, self.clients = Names(), Names()
        self.figures = Functions(MOST_NAMES)
        self.statuses = dict.fromkeys(STATUSES, 0)  # how many functions ended so
        self.failures: deque[Failure] = deque(maxlen=LATEST)
        self.waiting = {"clients": 0, "tasks": 0}
        self._file = path.stat()
        self._tasks_path = tasks_path(path)
        self.has_tasks = tasks is not None
        self._read = {path: 0, self._tasks_path: 0}  # how much of each
        self.began = self._latest = profile.began
        self._finished = 0.0
        self._flights = flights
        self.workers = Workers(profile.workers, self.began, ports, flights)
        interval_s = float(np.median(np.diff(profile.sampled))) if len(profile.sampled) > 1 else 0.5
        self._look_ahead(profile, tasks)
        if whole is None:
            stretches = min(STRETCHES, max(MOST_SHAPES // self.workers.count, STRETCHES // 10))
            self.levels = [Level(window, window / stretches) for window in WINDOWS_S]
        else:
            window_s = max(self.now - self.began, 1e-3)
            are_few = tasks is not None and len(tasks) <= whole
            self.levels = [Level(window_s, 1e-6 if are_few else window_s * self.workers.count / whole)]
        # Each step of a series has a sample in it.
        self.series = [Series(level.window_s, max(1.0, 2 * interval_s)) for level in self.levels]
        self.workers.look()
        self._take(profile, tasks)

    @classmethod
    def read(cls, path: Path) -> Record:
        """A record that is read on as it grows. Raises ProfileFormatError, and OSError if there is none."""
        profile = read_profile(path)
        tasks = read_tasks(tasks_path(path)) if tasks_path(path).exists() else None
        flights = FlightRecorders(path)
        # While it is written, flight recorders tell; and a task may be in its file before its worker's row.
        ports: Mapping[int, int] = {}
        if tasks is not None and not flights.is_there:
            ports = lanes.ports(lengthened(profile, tasks), tasks, DEFAULT_PORT)
        return cls(profile, tasks, ports, flights)

    @property
    def is_written(self) -> bool:
        """Whether its server is there, and writes it."""
        return self._flights is not None and self._flights.is_there

    @property
    def is_replaced(self) -> bool:
        """Whether another server has begun a new record in its place."""
        try:
            return not os.path.samestat(self._file, self.path.stat())
        except OSError:
            return False

    @property
    def now(self) -> float:
        """The time; of a record that is finished, its end. Unix seconds."""
        return max(time.time(), self._latest) if self.is_written else self._latest

    def update(self) -> None:
        """Read what was added."""
        if self.problem is not None:
            return
        self.workers.look()
        try:
            profile = tasks = None
            if self._has_more(self.path, reading.REQUIRED):
                profile = read_profile(self.path, self._read[self.path])
            if self.has_tasks and self._has_more(self._tasks_path, COLUMNS[1:]):
                tasks = read_tasks(self._tasks_path, self._read[self._tasks_path])
        except (ProfileFormatError, OSError) as error:
            self.problem = str(error)
            return
        self._take(profile, tasks)

    def level_for(self, window_s: float) -> int:
        """The number of the level that shows so much time."""
        fitting = (number for number, level in enumerate(self.levels) if level.window_s >= window_s)
        return next(fitting, len(self.levels) - 1)

    def _has_more(self, path: Path, columns: tuple[str, ...]) -> bool:
        return open_table(path, "a record", columns, (), self._read[path]).end > self._read[path]

    def _look_ahead(self, profile: Profile | None, tasks: Tasks | None) -> None:
        if profile is not None:
            self._latest = max(self._latest, profile.began + float(profile.seconds[-1]))
        if tasks is not None:
            self._latest = max(self._latest, float(tasks.ended.max(initial=0)))

    def _take(self, profile: Profile | None, tasks: Tasks | None) -> None:
        self._look_ahead(profile, tasks)
        if profile is not None:
            self._read[self.path] = profile.read_until
        if tasks is not None:
            self._read[self._tasks_path] = tasks.read_until
        now = self.now
        for series in self.series:
            series.move_to(now)
        batches = [] if profile is None else [self._take_profile(profile)]
        if tasks is not None and len(tasks):
            batches.append(self._take_tasks(tasks))
        for level in self.levels:
            for batch in batches or [_batch(0)]:
                level.add(batch, now, is_over=not self.is_written)

    def _take_profile(self, profile: Profile) -> Batch:
        """Take in rows; of a record without tasks, when workers were held."""
        times = profile.began + profile.seconds
        lane, started, ended = self.workers.take(profile)
        for name, counts in (("clients", profile.waiting), ("tasks", profile.tasks)):
            if counts is not None:
                self.waiting[name] = int(counts[-1])
                for series in self.series:
                    series.raise_to(name, times, counts)
        if profile.cpu_percent is not None and profile.memory_bytes is not None:
            cpu, memory = (
                np.nansum(column, axis=1) for column in (profile.cpu_percent, profile.memory_bytes)
            )
            for series in self.series:
                series.sample(profile.began + profile.sampled, cpu, memory)
        if self.has_tasks:
            return _batch(0)
        done = np.diff(profile.finished, prepend=self._finished)
        self._finished = float(profile.finished[-1])
        self.statuses[DONE] = int(self._finished)
        for series in self.series:
            series.add("done", times, done)
        held = self.functions.numbers((HELD,))
        return _batch(len(lane))._replace(
            lane=lane, function=np.repeat(held, len(lane)), started=started, ended=ended
        )

    def _take_tasks(self, tasks: Tasks) -> Batch:
        ports = np.unique(tasks.worker)
        numbers = self.workers.know_ports(ports.tolist())
        lane = np.array(list(numbers.values()), np.int32)[np.searchsorted(ports, tasks.worker)]
        function = self.functions.numbers(tasks.functions)[tasks.function]
        client = self.clients.numbers(tasks.clients)[tasks.client]
        waited = tasks.started - tasks.queued
        self.figures.add(function, tasks.count, tasks.seconds, waited, tasks.has_failed)
        for status, count in zip(
            STATUSES, np.bincount(tasks.status, tasks.count, len(STATUSES)), strict=True
        ):
            self.statuses[status] += int(count)
        for name, rows in (("done", ~tasks.has_failed), ("failed", tasks.has_failed)):
            for series in self.series:
                series.add(name, tasks.ended[rows], tasks.count[rows].astype(float))
        for row in np.flatnonzero(tasks.has_failed)[-LATEST:].tolist():
            who = (tasks.functions[tasks.function[row]], tasks.clients[tasks.client[row]], int(lane[row]))
            what = (int(tasks.count[row]), STATUSES[tasks.status[row]], tasks.error[row])
            self.failures.append(Failure(float(tasks.ended[row]), *who, *what))
        times = (tasks.started, tasks.ended)
        return Batch(lane, function, client, *times, tasks.count, tasks.status, tasks.error)


def _batch(size: int) -> Batch:
    """So many rows, of which nothing is known yet."""
    numbers, times = np.zeros(size, np.int32), np.zeros(size)
    counts, statuses = np.ones(size, np.int64), np.zeros(size, np.int8)
    return Batch(numbers, numbers, numbers, times, times, counts, statuses, np.full(size, "", object))
