"""A record as a trace in Chrome's format, which Perfetto and Chrome's own viewer read.

It owns what stands in that file: complete events of two processes, in whole microseconds since the record's
first moment. In the first process, each worker is a thread with its tasks; CPU and memory are counters. In
the second, tasks wait, each on the first line that is free; counters say how many clients and tasks wait.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.pictures import lanes
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks
from distribute_challenge.record.tasks import STATUSES

Event = dict[str, Any]
Times = NDArray[np.int64]  # microseconds
WORKERS, WAITING = 1, 2  # the processes
# Threads that no port numbers: viewers take one that has its process's number for the main one.
FIRST = 101
# More tasks may wait at a time than anybody looks at. The counter has them all.
MOST_LINES = 100
# What neither nests into nor follows the tasks on a worker's thread is on another one, so much higher.
FURTHER = 1_000_000


def write_trace(path: Path, profile: Profile, tasks: Tasks | None, ports: Mapping[int, int]) -> int:
    """Write the trace; how many of the tasks that waited have no line in it. Raises OSError.

    `ports` says which worker, by its number, is at which.
    """
    trace = _Trace(profile, tasks, {number: port for port, number in ports.items()})
    head = {"record": profile.path.name, "unix_seconds_at_0": trace.origin}
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{json.dumps(head)},"traceEvents":[')
        separators = itertools.chain(["\n"], itertools.repeat(",\n"))
        for separator, event in zip(separators, trace.events(), strict=False):
            file.write(separator + json.dumps(event, separators=(",", ":")))
        file.write("\n]}\n")
    return trace.left_out


class _Trace:
    def __init__(self, profile: Profile, tasks: Tasks | None, ports: dict[int, int]) -> None:
        self.profile = profile
        self.tasks = tasks
        self.ports = ports  # of the workers, by their numbers
        self.left_out = 0
        # A task may have waited before the server had begun.
        times = (profile.began, *(() if tasks is None else (tasks.started, tasks.queued)))
        self.origin = float(min(np.nanmin(some, initial=np.inf) for some in times))

    def events(self) -> Iterator[Event]:
        """All of them."""
        yield _named("process", WORKERS, 0, "workers")
        where = lanes.where(self.profile.places, {port: number for number, port in self.ports.items()})
        for number in range(self.profile.workers):
            name = f"worker {number + 1} {where.get(number, '')}".rstrip()
            yield _named("thread", WORKERS, self._thread(number), name)
        yield from self._busy() if self.tasks is None else self._tasks(self.tasks)
        yield from self._marks()
        yield from self._usage()
        yield _named("process", WAITING, 0, "waiting")
        if self.tasks is not None:
            yield from self._waiting(self.tasks)
        for name, counts in (("clients", self.profile.waiting), ("tasks", self.profile.tasks)):
            if counts is not None:
                yield from self._counts(name, counts)

    def _thread(self, worker: int) -> int:
        return self.ports.get(worker, FIRST + worker)

    def _us(self, times: NDArray[np.float64]) -> Times:
        """Unix seconds, in microseconds since the first moment."""
        return np.rint((times - self.origin) * 1e6).astype(np.int64)

    def _us_of_seconds(self, seconds: NDArray[np.float64]) -> list[int]:
        return self._us(self.profile.began + seconds).tolist()  # type: ignore[no-any-return]

    def _tasks(self, tasks: Tasks) -> Iterator[Event]:
        """A slice for each row of the tasks file."""
        began, ended = self._us(tasks.started), self._us(tasks.ended)
        _part_chunks(tasks, began, ended)
        # Of those that begin together, the longest first: the others are within it.
        order = np.lexsort((-ended, began, tasks.worker))
        port = 0
        lines: list[list[int]] = []
        named = set()
        for row in order.tolist():
            if tasks.worker[row] != port:
                port, lines = int(tasks.worker[row]), []
            begin, end = int(began[row]), int(ended[row])
            place = _place(lines, begin, end)
            thread = port + FURTHER * place
            if place and thread not in named:
                named.add(thread)
                yield _named("thread", WORKERS, thread, f":{port}, at the same time")
            content = {"dur": end - begin, "cat": STATUSES[tasks.status[row]], "args": _about(tasks, row)}
            yield _event("X", WORKERS, thread, begin, tasks.functions[tasks.function[row]], **content)

    def _busy(self) -> Iterator[Event]:
        """A slice for each time that a worker was busy: of a record without tasks."""
        profile = self.profile
        times = self._us_of_seconds(profile.seconds)
        changes = np.diff(profile.busy.astype(np.int8), axis=0, prepend=0, append=0)
        for worker in range(profile.workers):
            begins, ends = (np.flatnonzero(changes[:, worker] == way).tolist() for way in (1, -1))
            for begin, end in zip(begins, ends, strict=True):
                time = times[begin]
                spent = times[min(end, len(times) - 1)] - time
                yield _event("X", WORKERS, self._thread(worker), time, "busy", dur=spent, cat="busy")

    def _marks(self) -> Iterator[Event]:
        marks = lanes.marks(self.profile)
        times = self._us_of_seconds(np.array([mark.time_s for mark in marks]))
        for mark, time in zip(marks, times, strict=True):
            thread, scope = (0, "p") if mark.lane is None else (self._thread(mark.lane), "t")
            yield _event("i", WORKERS, thread, time, mark.event, s=scope)

    def _usage(self) -> Iterator[Event]:
        profile = self.profile
        names = [f"worker {number}" for number in range(1, profile.workers + 1)]
        times = self._us_of_seconds(profile.sampled)
        for name, samples in (("CPU (%)", profile.cpu_percent), ("memory (bytes)", profile.memory_bytes)):
            for time, sample in zip(times, () if samples is None else samples, strict=False):
                known = {
                    who: value for who, value in zip(names, sample.tolist(), strict=True) if value == value
                }
                yield _event("C", WORKERS, 0, time, name, args=known)

    def _counts(self, name: str, counts: NDArray[np.float64]) -> Iterator[Event]:
        changed = np.flatnonzero(np.diff(counts, prepend=-1))
        for time, count in zip(
            self._us_of_seconds(self.profile.seconds[changed]), counts[changed], strict=True
        ):
            yield _event("C", WAITING, 0, time, "waiting", args={name: int(count)})

    def _waiting(self, tasks: Tasks) -> Iterator[Event]:
        """A slice for each task that waited, from when its client had it until a worker began it."""
        rows = np.flatnonzero(tasks.started > tasks.queued)
        queued, started = self._us(tasks.queued[rows]), self._us(tasks.started[rows])
        free = list(range(FIRST, FIRST + MOST_LINES))
        taken: list[tuple[int, int]] = []  # until when, and which line
        named = set()
        for place in np.lexsort((started, queued)).tolist():
            begin, end = int(queued[place]), int(started[place])
            while taken and taken[0][0] <= begin:
                heapq.heappush(free, heapq.heappop(taken)[1])
            if not free:
                self.left_out += 1
                continue
            line = heapq.heappop(free)
            heapq.heappush(taken, (end, line))
            if line not in named:
                named.add(line)
                yield _named("thread", WAITING, line, "in line")
            row = rows[place]
            name, args = tasks.functions[tasks.function[row]], {"client": tasks.clients[tasks.client[row]]}
            yield _event("X", WAITING, line, begin, name, dur=end - begin, cat="waiting", args=args)


def _part_chunks(tasks: Tasks, began: Times, ended: Times) -> None:
    """Put the two rows of a chunk with failures one after the other, by their share of its time."""
    same = (np.diff(tasks.started) == 0) & (np.diff(tasks.ended) == 0)
    same &= (np.diff(tasks.worker) == 0) & (np.diff(tasks.status) != 0)
    for first in np.flatnonzero(same).tolist():
        spent = tasks.seconds[first] + tasks.seconds[first + 1]
        share = tasks.seconds[first] / spent if spent else 0.5
        began[first + 1] = ended[first] = began[first] + round((ended[first] - began[first]) * share)


def _place(lines: list[list[int]], begin: int, end: int) -> int:
    """The first line on which a slice follows the others or is within one. It is noted there.

    A line is the ends of the slices that are open on it, the outermost first.
    """
    for place, still_open in enumerate(lines):
        while still_open and still_open[-1] <= begin:
            still_open.pop()
        if not still_open or end <= still_open[-1]:
            still_open.append(end)
            return place
    lines.append([end])
    return len(lines) - 1


def _about(tasks: Tasks, row: int) -> dict[str, Any]:
    found = {
        "client": tasks.clients[tasks.client[row]],
        "functions": int(tasks.count[row]),
        "seconds": float(tasks.seconds[row]),
        "sent_bytes": int(tasks.sent[row]),
        "returned_bytes": int(tasks.returned[row]),
    }
    if tasks.error[row]:
        found["error"] = tasks.error[row]
    if not np.isnan(tasks.memory[row]):
        found["memory_bytes"] = int(tasks.memory[row])
    return found


def _event(phase: str, process: int, thread: int, time_us: int, name: str, **content: Any) -> Event:
    return {"ph": phase, "pid": process, "tid": thread, "ts": time_us, "name": name, **content}


def _named(what: str, process: int, thread: int, name: str) -> Event:
    return _event("M", process, thread, 0, f"{what}_name", args={"name": name})
