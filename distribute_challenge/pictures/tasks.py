"""The tasks file, from CSV to arrays, and the figures of each function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distribute_challenge.pictures.table import Table, open_table
from distribute_challenge.record import faults
from distribute_challenge.record.tasks import COLUMNS, DONE, FAILED, STATUSES

Values = NDArray[np.float64]
NUMBERS = ("", "Worker", "Queued", "Started", "Ended", "Count", "Seconds", "Sent", "Returned", "Memory")
TEXTS = ("Function", "Client", "Status")
TYPES: dict[str, Any] = {
    **dict.fromkeys(NUMBERS, "float64"),
    **dict.fromkeys(TEXTS, "category"),
    "Error": "object",
}
OPTIONAL = ("Queued", "Memory", "Error")


@dataclass(frozen=True)
class Tasks:
    """What became of tasks: arrays with an element for each row of the file, in its order.

    Rows are in the order in which it came to be known that they ended. Times are Unix seconds. What runs
    within another task, in place, has a row of its own, on the same worker.
    """

    path: Path
    functions: tuple[str, ...]  # names
    clients: tuple[str, ...]  # names
    function: NDArray[np.int32]  # a place in `functions`
    client: NDArray[np.int32]  # a place in `clients`
    worker: NDArray[np.int32]  # its port
    queued: Values  # nan if the client did not say
    started: Values
    ended: Values
    count: NDArray[np.int64]  # how many functions the row stands for
    seconds: Values  # the sum of their run times
    status: NDArray[np.int8]  # a place in `record.tasks.STATUSES`
    sent: Values  # bytes
    returned: Values  # bytes
    memory: Values  # bytes; nan if unknown
    error: NDArray[np.object_]  # type and first line of its text; empty if there is none
    is_cut_short: bool
    read_until: int  # the place in the file from which on it was not read

    def __len__(self) -> int:
        return len(self.started)

    @property
    def has_failed(self) -> NDArray[np.bool_]:
        """Whether it ended in another way than by returning."""
        return self.status != STATUSES.index(DONE)  # type: ignore[no-any-return]

    @property
    def is_cut_off(self) -> NDArray[np.bool_]:
        """Whether its worker ended with it."""
        return self.has_failed & (self.status != STATUSES.index(FAILED))  # type: ignore[no-any-return]


class Summary(NamedTuple):
    """The figures of one function: those of its tasks, however they ended. Times in seconds.

    The time it waited is nan for all whose clients did not say since when.
    """

    function: Any  # its name; where those are in a list, its place there
    tasks: int
    failed: int
    total: float
    run_mean: float
    run_median: float
    run_p99: float
    wait_mean: float
    wait_median: float
    wait_p99: float


def read_tasks(path: Path, start: int = 0) -> Tasks:
    """Read a tasks file, or what was added to it: `start` is the `read_until` of the tasks before.

    Names have places of their own each time. Raises ProfileFormatError, and OSError if there is no such file.
    """
    table = open_table(path, "a tasks file", COLUMNS, COLUMNS, start)
    try:
        return _tasks(table, table.read(TYPES, OPTIONAL))
    except ValueError:
        raise table.fault(faults.check_task, -math.inf) from None


def summarize(tasks: Tasks) -> list[Summary]:
    """The figures of each function, the one with most time first. A row counts `count` times."""
    order = np.argsort(tasks.function, kind="stable")
    bounds = np.searchsorted(tasks.function[order], np.arange(len(tasks.functions) + 1))
    found = [
        _summary(tasks, name, order[begin:end])
        for name, begin, end in zip(tasks.functions, bounds[:-1], bounds[1:], strict=True)
        if end > begin
    ]
    return sorted(found, key=lambda summary: (-summary.total, summary.function))


def quantiles(values: Values, counts: NDArray[np.int64], shares: tuple[float, float]) -> tuple[float, float]:
    """Two quantiles of values of which each stands there so many times; nan if there is none.

    >>> quantiles(np.array([3.0, 1.0]), np.array([1, 2]), (0.5, 0.75))
    (1.0, 2.0)
    """
    if not len(values):
        return math.nan, math.nan
    order = np.argsort(values)
    values, upto = values[order], np.cumsum(counts[order])
    found = []
    for place in ((int(upto[-1]) - 1) * share for share in shares):
        low, high = values[np.searchsorted(upto, (math.floor(place), math.ceil(place)), side="right")]
        found.append(float(low + (high - low) * (place % 1)))
    return found[0], found[1]


def _summary(tasks: Tasks, name: str, rows: NDArray[np.intp]) -> Summary:
    counts, seconds = tasks.count[rows], tasks.seconds[rows]
    waits = tasks.started[rows] - tasks.queued[rows]
    is_known = ~np.isnan(waits)
    waits, waiting = waits[is_known], counts[is_known]
    total, number = float(seconds.sum()), int(counts.sum())
    return Summary(
        name,
        number,
        int(counts[tasks.has_failed[rows]].sum()),
        total,
        total / number,
        *quantiles(seconds / counts, counts, (0.5, 0.99)),
        float(waits @ waiting) / int(waiting.sum()) if waiting.size else math.nan,
        *quantiles(waits, waiting, (0.5, 0.99)),
    )


def _tasks(source: Table, table: pd.DataFrame) -> Tasks:
    """Raises ValueError if a row is wrong; `faults.check_task` finds which."""
    numbers = {name: table[name].to_numpy() for name in NUMBERS}
    texts = {name: table[name].cat for name in TEXTS}
    queued, started, ended = (numbers[name] for name in ("Queued", "Started", "Ended"))
    sizes = [numbers[name] for name in ("Seconds", "Sent", "Returned", "Memory")]
    whole = [(numbers[name], most) for name, most in faults.LIMITS.items()]
    status = np.array([STATUSES.index(name) for name in texts["Status"].categories], np.int8)
    is_right = (
        (np.diff(numbers[""], prepend=-np.inf) > 0).all()
        and all((abs(times) < faults.MOST_TIME).all() for times in (started, ended))
        and not (started > ended).any()
        and not (queued > started).any()
        and not (queued <= -faults.MOST_TIME).any()
        and all((values >= 1).all() and (values <= most).all() for values, most in whole)
        and all((values % 1 == 0).all() for values, _ in whole)
        and all((values >= 0).all() and (values < np.inf).all() for values in sizes[:-1])
        and not ((sizes[-1] < 0) | (sizes[-1] == np.inf)).any()
    )
    if not is_right:
        raise ValueError
    return Tasks(
        path=source.path,
        functions=tuple(texts["Function"].categories),
        clients=tuple(texts["Client"].categories),
        function=texts["Function"].codes.to_numpy().astype(np.int32),
        client=texts["Client"].codes.to_numpy().astype(np.int32),
        worker=numbers["Worker"].astype(np.int32),
        queued=queued,
        started=started,
        ended=ended,
        count=numbers["Count"].astype(np.int64),
        seconds=sizes[0],
        status=status[texts["Status"].codes],
        sent=sizes[1],
        returned=sizes[2],
        memory=sizes[3],
        error=table["Error"].fillna("").to_numpy(object),
        is_cut_short=source.is_cut_short,
        read_until=source.end,
    )
