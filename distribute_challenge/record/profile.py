"""The profile's format.

One row for each change of the busy list, and samples in between. The columns, the first without a name:

    (none)      the row's number, from 0
    Timestamp   Unix seconds; never falls
    Busy        JSON list, one 0 or 1 for each worker: 1 while it cannot be handed out
    Finished    how many tasks have finished
    Failed      how many have failed
    Waiting     how many clients are in line
    CPU         JSON list, percent of one core for each worker, null if unknown; empty but on samples
    Memory      JSON list, resident bytes of each worker, null if unknown; empty but on samples
    Event       what the row records: start, sample, acquire, free, lost, replaced or stop; of a Dask cluster
                also `joined HOST:PORT` and `left`
    Tasks       how many tasks the clients in line, and those that go on, have waiting
    Worker      number, from 0, of the worker that the row is about; empty on start, sample and stop

Rows are appended and flushed, never rewritten, so that a row costs the same whatever came before and a
killed server leaves a readable file.

A pool has as many workers as it began with. Those of a Dask cluster come and go, and each of its threads is a
worker here. The row of one that comes, the first ones included, says where it is; the busy list, and what is
measured, is longer from there on, unless it takes the number of one that has left. It never gets shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

HEADER = ",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event,Tasks,Worker\n"
# A change of the counts alone: it shows in the next row, and has none of its own.
COUNTS_ONLY = ""
# Events of a cluster.
JOINED, LEFT = "joined", "left"


def joined(place: str) -> str:
    """The event of a worker that has come.

    >>> joined("10.0.0.5:4000"), place_in(joined("10.0.0.5:4000")), place_in("sample")
    ('joined 10.0.0.5:4000', '10.0.0.5:4000', '')
    """
    return f"{JOINED} {place}"


def place_in(event: str) -> str:
    """Where a worker is that has come; empty for another event."""
    kind, _, place = event.partition(" ")
    return place if kind == JOINED else ""


class Change(NamedTuple):
    """Something that happened. `worker` is the one concerned, and `busy` its new state; None if none is."""

    timestamp: float
    event: str
    worker: int | None
    busy: int
    finished: int
    failed: int
    waiting: int
    tasks: int


class Usage(NamedTuple):
    """The usage of one worker, its child processes included: percent of one core, and resident bytes."""

    cpu_percent: float | None
    memory_bytes: int | None
    cpu_s: float = 0.0  # seconds of processor time since it was measured before


UNKNOWN = Usage(None, None)
_STEP_S = 0.1  # What two clocks that are read one after the other differ by is much less.


class Clock:
    """Unix time that never goes back. It goes on with the system's clock where that is set forward, or has
    been while the machine slept; where that is set back, it stays ahead.
    """

    def __init__(self) -> None:
        self._offset = _offset_now()

    def now(self) -> float:
        """Seconds since 1970."""
        offset = _offset_now()
        if offset > self._offset + _STEP_S:
            self._offset = offset
        return self.at(time.monotonic())

    def at(self, monotonic: float) -> float:
        """Seconds since 1970 of a moment that `time.monotonic` told, in any process of this machine."""
        return self._offset + monotonic

    def of(self, system: float) -> float:
        """What this clock said, or would have, when the system's said this. NaN stays that."""
        ahead = self._offset - _offset_now()
        return system if abs(ahead) < _STEP_S else system + ahead


def _offset_now() -> float:
    return time.time() - time.monotonic()


class Rows:
    """Turns changes and samples into rows. It carries the busy list from one row to the next.

    >>> rows = Rows(workers=2)
    >>> rows.change(Change(12.5, "acquire", 0, 1, 0, 0, 0, 0))
    '0,12.500000,"[1, 0]",0,0,0,,,acquire,0,0\\n'
    >>> rows.sample(13, [Usage(99.96, 4096), Usage(None, None)])
    '1,13.000000,"[1, 0]",0,0,0,"[100.0, null]","[4096, null]",sample,0,\\n'
    """

    def __init__(self, workers: int) -> None:
        self._number = 0
        self._timestamp = 0.0
        self._busy = [0] * workers
        self._counts = "0,0,0"
        self._tasks = 0

    @property
    def is_anyone_busy(self) -> bool:
        """Whether any worker cannot be handed out."""
        return 1 in self._busy

    def change(self, change: Change) -> str:
        """The row of a change; none for one of the counts alone."""
        if change.worker is not None:
            self._busy += [0] * (change.worker + 1 - len(self._busy))
            self._busy[change.worker] = change.busy
        self._counts = f"{change.finished},{change.failed},{change.waiting}"
        self._tasks = change.tasks
        if change.event == COUNTS_ONLY:
            return ""
        return self._row(change.timestamp, ",", change.event, "" if change.worker is None else change.worker)

    def sample(self, timestamp: float, usages: Sequence[Usage]) -> str:
        """The row of a sample."""
        cpu = json.dumps([None if use.cpu_percent is None else round(use.cpu_percent, 1) for use in usages])
        memory = json.dumps([use.memory_bytes for use in usages])
        return self._row(timestamp, f'"{cpu}","{memory}"', "sample")

    def _row(self, timestamp: float, usage: str, event: str, worker: int | str = "") -> str:
        number, self._number = self._number, self._number + 1
        # Taken by different threads, two times may come in the wrong order: by microseconds.
        self._timestamp = max(timestamp, self._timestamp)
        head = f'{number},{self._timestamp:.6f},"{self._busy}",{self._counts}'
        return f"{head},{usage},{event},{self._tasks},{worker}\n"
