"""Profiles and sweeps, from CSV to arrays. What is wrong in a file is said with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.table import Table, open_table
from distribute_challenge.record import cells, faults
from distribute_challenge.record.profile import place_in

REQUIRED = ("Timestamp", "Busy", "Finished")
# Few texts, each many times, are a category; those of samples are all different.
TYPES = {
    **dict.fromkeys(("Timestamp", *faults.COUNTS, "Worker"), "float64"),
    **dict.fromkeys(("Busy", "Event"), "category"),
    **dict.fromkeys(("CPU", "Memory"), "object"),
}
NO_ROW = "{}, line 2: there is no row: the server recorded nothing"


@dataclass(frozen=True)
class Profile:
    """One run of a server. `rows` and `workers` are the sizes of the arrays.

    Columns that a file does not have are None; so are the events of files from before there were any.
    """

    path: Path
    began: float  # Unix seconds of the first row
    seconds: NDArray[np.float64]  # (rows,) since the first row
    busy: NDArray[np.uint8]  # (rows, workers)
    finished: NDArray[np.float64]  # (rows,)
    waiting: NDArray[np.float64] | None  # (rows,)
    tasks: NDArray[np.float64] | None  # (rows,) that wait
    events: NDArray[np.object_] | None  # (rows,)
    places: dict[int, str]  # of a cluster: where each worker was at last, by its number
    about: NDArray[np.int32] | None  # (rows,) the number of the worker that the row is about, -1 if none
    sampled: NDArray[np.float64]  # (samples,) seconds
    cpu_percent: NDArray[np.float64] | None  # (samples, workers)
    memory_bytes: NDArray[np.float64] | None  # (samples, workers)
    is_cut_short: bool
    read_until: int  # the place in the file from which on it was not read

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return int(self.busy.shape[1])

    @property
    def span(self) -> tuple[int, int]:
        """The rows in which the work began and ended: the first acquire, and the last free after it.

        Without that free, or with a worker that is busy at the end, it is not over at the last row; without
        an acquire it is all rows.
        """
        first, last = 0, len(self.seconds) - 1
        acquired, freed = self.rows_of("acquire"), self.rows_of("free")
        if acquired.size:
            first = int(acquired[0])
            if freed.size and freed[-1] > first and not self.busy[last].any():
                last = int(freed[-1])
        return first, last

    @property
    def span_s(self) -> tuple[float, float]:
        """When the work began and ended."""
        first, last = self.span
        return float(self.seconds[first]), float(self.seconds[last])

    @property
    def throughput(self) -> float:
        """Finished tasks per second, over the span of the work."""
        began, ended = self.span_s
        return float(self.finished[self.span[1]]) / (ended - began) if ended > began else 0.0

    @property
    def step_s(self) -> int:
        """All times are multiples of so many whole seconds; 0 if they are none."""
        times = self.began + self.seconds
        if (times % 1).any() or np.abs(times).max() > 1 << 53:
            return 0
        return int(np.gcd.reduce(times.astype(np.int64)))

    @property
    def idle(self) -> list[tuple[float, float]]:
        """When, within the span of the work, nothing was asked for: no worker was busy, nobody waited.

        Only stretches that are long enough to be seen: a 100th of the record.
        """
        first, last = self.span
        nothing = ~self.busy[first:last].any(axis=1)
        if self.waiting is not None:
            nothing &= self.waiting[first:last] == 0
        edges = np.flatnonzero(np.diff(nothing.astype(np.int8), prepend=0, append=0)) + first
        began, ended = self.seconds[edges[::2]], self.seconds[edges[1::2]]
        is_long = ended - began >= self.seconds[-1] / 100
        return list(zip(began[is_long].tolist(), ended[is_long].tolist(), strict=True))

    @property
    def idle_s(self) -> float:
        """How long nothing was asked for while there was work to do before and after."""
        return sum(ended - began for began, ended in self.idle)

    def rows_of(self, event: str) -> NDArray[np.intp]:
        """The numbers of the rows that record an event."""
        return np.flatnonzero(self.events == event) if self.events is not None else np.empty(0, np.intp)


def read_profile(path: Path, start: int = 0) -> Profile:
    """Read a profile, or what was added to it: `start` is the `read_until` of the profile before.

    Raises ProfileFormatError, also if there is no row, and OSError if there is no such file.
    """
    table = open_table(path, "a profile", REQUIRED, TYPES, start)
    try:
        return _profile(table, table.read(TYPES, TYPES))
    except ProfileFormatError:
        raise
    except ValueError:
        raise table.fault(faults.check_profile, faults.Before()) from None


def read_sweep(path: Path) -> pd.DataFrame:
    """The sweep's results, a row for each cell: Workers, Functions (clients), Throughput (tasks per second).

    Raises ProfileFormatError, and OSError if there is no such file.
    """
    rows = [(*cell, throughput) for cell, throughput in cells.read_cells(path).items()]
    sweep: pd.DataFrame = pd.DataFrame(rows, columns=list(cells.COLUMNS))
    return sweep


def _profile(source: Table, table: pd.DataFrame) -> Profile:
    """Raises ValueError if a row is wrong; `faults.check_profile` finds which."""
    if table.empty:
        raise ProfileFormatError(NO_ROW.format(source.path))
    times, finished = table["Timestamp"].to_numpy(), table["Finished"].to_numpy()
    counts = {name: table[name].to_numpy() for name in faults.COUNTS if name in table}
    others = [values[~np.isnan(values)] for name, values in counts.items() if name != "Finished"]
    if not (np.isfinite(times).all() and _is_rising(times) and _is_rising(finished)):
        raise ValueError
    if not all(((values >= 0) & (values < np.inf)).all() for values in (finished, *others)):
        raise ValueError
    events = table["Event"].astype(object).to_numpy() if "Event" in table else None
    joined = _joined(table)
    busy, widths = _busy(table["Busy"], joined)
    about = table["Worker"].to_numpy() if "Worker" in table else None
    if about is not None and not (np.isnan(about) | (about >= 0) & (about < widths) & (about % 1 == 0)).all():
        raise ValueError
    is_sample = np.zeros(len(table), bool)
    if "CPU" in table and "Memory" in table:
        is_sample = (table["CPU"].notna() & table["Memory"].notna()).to_numpy()
    has_samples, workers = bool(is_sample.any()), busy.shape[1]
    seconds = times - times[0]
    return Profile(
        path=source.path,
        began=float(times[0]),
        seconds=seconds,
        busy=busy,
        finished=finished,
        waiting=np.nan_to_num(counts["Waiting"]) if "Waiting" in table else None,
        tasks=np.nan_to_num(counts["Tasks"]) if "Tasks" in table else None,
        events=events,
        places={} if about is None else {int(about[row]): joined[row] for row in sorted(joined)},
        about=None if about is None else np.nan_to_num(about, nan=-1).astype(np.int32),
        sampled=seconds[is_sample],
        cpu_percent=_usage(table["CPU"][is_sample], widths[is_sample], workers) if has_samples else None,
        memory_bytes=_usage(table["Memory"][is_sample], widths[is_sample], workers) if has_samples else None,
        is_cut_short=source.is_cut_short,
        read_until=source.end,
    )


def _is_rising(values: NDArray[np.float64]) -> bool:
    return bool((np.diff(values) >= 0).all())


def _joined(table: pd.DataFrame) -> dict[int, str]:
    """The rows on which a worker of a cluster has come, and where it is."""
    if "Event" not in table:
        return {}
    events = table["Event"]
    places = {name: place for name in events.cat.categories if (place := place_in(name))}
    rows = np.flatnonzero(events.isin(list(places))).tolist()
    return {row: places[events.iat[row]] for row in rows}


def _busy(column: pd.Series[Any], joined: dict[int, str]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The busy lists, and how long each is: 0 is for workers that have not come. Each text is parsed once."""
    if column.isna().any():
        raise ValueError
    texts = list(column.cat.categories)
    lengths = np.array([text.count(",") + 1 for text in texts])
    states = np.zeros((len(texts), lengths.max()), np.uint8)
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        found = faults.busy_lists([texts[place] for place in alike])
        if found is None:
            raise ValueError
        states[alike, :length] = found
    widths = lengths[column.cat.codes]
    changes = np.flatnonzero(np.diff(widths)) + 1
    if not all(row in joined and widths[row] > widths[row - 1] for row in changes.tolist()):
        raise ValueError
    return states[column.cat.codes], widths


def _usage(column: pd.Series[Any], widths: NDArray[np.intp], workers: int) -> NDArray[np.float64]:
    """What was measured; nan for workers that had not come."""
    texts, found = list(column), np.full((len(column), workers), np.nan)
    for width in np.unique(widths):
        alike = np.flatnonzero(widths == width)
        values = faults.matrix([texts[place] for place in alike])
        if values is None or values.shape[1] != width:
            raise ValueError
        found[alike, :width] = values
    return found
