"""The format of the tasks file: one row for each call that has ended, or for several short ones.

It stands beside a profile and is named after it (`tasks_path`). The columns, the first without a name:

    (none)    the row's number, from 0
    Function  qualified name; for source that a plain client sent, that of its first `def`, else `run_code`
    Client    program:process, with @host if that is another machine; for a plain client host:port
    Worker    its port; of a Dask cluster its number, from 1
    Queued    Unix seconds when the client had it; empty if it did not say
    Started   Unix seconds when the worker began it
    Ended     Unix seconds when the worker ended it
    Count     how many functions the row stands for
    Seconds   the sum of their run times
    Status    done, failed, timeout, killed or lost
    Sent      bytes of the calls
    Returned  bytes of the outcomes; 0 where there was none
    Memory    resident bytes of the worker, at most, if it was sampled meanwhile; else empty
    Error     type of the exception and first line of its text

Rows are appended, in the order in which they come to be known. A chunk with failures has two: one for what
returned, one for what raised, with seconds and bytes by their share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from distribute_challenge.record.flight import MAX_ERROR
from distribute_challenge.record.flight_reader import Begun, Ended
from distribute_challenge.record.profile import Clock

COLUMNS = (
    *("", "Function", "Client", "Worker", "Queued", "Started", "Ended", "Count", "Seconds", "Status", "Sent"),
    *("Returned", "Memory", "Error"),
)
HEADER = ",".join(COLUMNS) + "\n"
DONE, FAILED, TIMEOUT, KILLED, LOST = STATUSES = ("done", "failed", "timeout", "killed", "lost")


class CutOff(NamedTuple):
    """Why what a worker ran did not end by itself: `status` is TIMEOUT, KILLED or LOST."""

    status: str
    error: str


class TaskRows:
    """Turns calls that have ended into rows, for workers on these ports.

    >>> rows = TaskRows([18812], Clock())
    >>> begun = Begun(5.0, math.nan, 100, b"12345678", "func", "challenge.py:7")
    >>> row = rows.ended(0, Ended(begun, 100, 8.0, 3.0, 14, 1, 0, False, ""), memory_bytes=4096)
    >>> row.split(",")[1:4], row.split(",")[7:]
    (['func', 'challenge.py:7', '18812'], ['1', '3.000000', 'done', '100', '14', '4096', '\\n'])
    """

    def __init__(self, ports: Sequence[int], clock: Clock) -> None:
        self._ports = ports
        self._clock = clock
        self._number = 0
        # Told of each row: function, status, how many functions, their seconds, how long the first waited.
        self.on_row: Callable[[str, str, int, float, float | None], None] = lambda *_row: None

    def ended(self, worker: int, call: Ended, memory_bytes: int | None) -> str:
        """The rows of a call that has ended, or of several."""
        both = call.finished + call.failed
        text = ""
        for count, status, error in ((call.finished, DONE, ""), (call.failed, FAILED, call.error)):
            if count:
                sent, returned = (size * count // both for size in (call.sent, call.returned))
                seconds = call.seconds * count / both
                size = (sent, returned, memory_bytes)
                text += self._row(worker, call.begun, call.ended, count, seconds, status, size, error)
        return text

    def cut_off(self, worker: int, call: Begun, ended: float, end: CutOff, memory_bytes: int | None) -> str:
        """The row of a call that ended with its worker, at `ended` in monotonic seconds."""
        seconds = ended - call.started
        size = (call.sent, 0, memory_bytes)
        return self._row(worker, call, ended, 1, seconds, end.status, size, end.error)

    def _row(
        self,
        worker: int,
        call: Begun,
        ended: float,
        count: int,
        seconds: float,
        status: str,
        size: tuple[int, int, int | None],
        error: str,
    ) -> str:
        number, self._number = self._number, self._number + 1
        started = self._clock.at(call.started)
        has_waited = not math.isnan(call.queued)
        # The clock of another machine may be ahead.
        queued = min(self._clock.of(call.queued), started) if has_waited else started
        self.on_row(call.function, status, count, seconds, started - queued if has_waited else None)
        sent, returned, memory = size
        return (
            f"{number},{_field(call.function)},{_field(call.client)},{self._ports[worker]},"
            f"{f'{queued:.6f}' if has_waited else ''},"
            f"{started:.6f},{self._clock.at(ended):.6f},{count},{seconds:.6f},{status},{sent},{returned},"
            f"{'' if memory is None else memory},{_field(error[:MAX_ERROR])}\n"
        )


def tasks_path(profile: Path) -> Path:
    """The file of the tasks that belongs to a profile.

    >>> tasks_path(Path("profiling/results_4.csv")).as_posix(), tasks_path(Path("mine.csv")).as_posix()
    ('profiling/tasks_4.csv', 'mine.tasks.csv')
    """
    if profile.name.startswith("results_"):
        return profile.with_name("tasks_" + profile.name.removeprefix("results_"))
    return profile.with_name(f"{profile.stem}.tasks{profile.suffix}")


def _field(text: str) -> str:
    """A text as a field of a CSV, on one line."""
    text = " ".join(text.split())
    if any(mark in text for mark in ',"'):
        text = text.replace('"', '""')
        return f'"{text}"'
    return text
