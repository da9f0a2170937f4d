"""Profiles and sweeps, from CSV to arrays. What is wrong in a file is said with its line.

Reading is by column, fast enough for millions of rows; only a file that turns out to be broken is gone
through once more, row by row, for the line. A last row that was cut short, by a killed server, is left out.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.record import cells, faults

REQUIRED = ("Timestamp", "Busy", "Finished")
# Few texts, each many times, are a category; those of samples are all different.
TYPES = {
    "Timestamp": "float64",
    **dict.fromkeys(faults.COUNTS, "float64"),
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
    seconds: NDArray[np.float64]  # (rows,) since the first row
    busy: NDArray[np.uint8]  # (rows, workers)
    finished: NDArray[np.float64]  # (rows,)
    waiting: NDArray[np.float64] | None  # (rows,)
    events: NDArray[np.object_] | None  # (rows,)
    sampled: NDArray[np.float64]  # (samples,) seconds
    cpu_percent: NDArray[np.float64] | None  # (samples, workers)
    memory_bytes: NDArray[np.float64] | None  # (samples, workers)
    is_cut_short: bool

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return int(self.busy.shape[1])

    @property
    def span(self) -> tuple[int, int]:
        """The rows in which the work began and ended: the first acquire, and the last free after it.

        Without that free it is not over at the last row; without an acquire it is all rows.
        """
        first, last = 0, len(self.seconds) - 1
        acquired, freed = self.rows_of("acquire"), self.rows_of("free")
        if acquired.size:
            first = int(acquired[0])
            if freed.size and freed[-1] > first:
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

    def rows_of(self, event: str) -> NDArray[np.intp]:
        """The numbers of the rows that record an event."""
        return np.flatnonzero(self.events == event) if self.events is not None else np.empty(0, np.intp)


def read_profile(path: Path) -> Profile:
    """Read a profile. Raises ProfileFormatError, and OSError if there is no such file."""
    columns = _columns(path)
    source, is_cut_short = _whole_lines(path)
    with source:
        try:
            return _profile(path, _table(source, columns), is_cut_short)
        except ProfileFormatError:
            raise
        except ValueError:
            source.seek(0)
            lines = io.TextIOWrapper(source, "utf-8", errors="replace", newline="")
            line, fault = faults.first_fault(lines)
            raise ProfileFormatError(f"{path}, line {line}: {fault}") from None


def read_sweep(path: Path) -> pd.DataFrame:
    """The sweep's results, a row for each cell: Workers, Functions (clients), Throughput (tasks per second).

    Raises ProfileFormatError, and OSError if there is no such file.
    """
    rows = [(*cell, throughput) for cell, throughput in cells.read_cells(path).items()]
    return pd.DataFrame(rows, columns=list(cells.COLUMNS))  # type: ignore[no-any-return]


def _columns(path: Path) -> list[str]:
    """The names in the first line, which tell a profile from other files."""
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    if not first.strip():
        raise ProfileFormatError(f"{path}, line 1: the file is empty: the server wrote nothing to it")
    try:
        columns = next(csv.reader([first.decode()]))
    except (UnicodeDecodeError, csv.Error):
        columns = []
    if any(name not in columns for name in REQUIRED):
        wanted = ",".join(("", *REQUIRED))
        raise ProfileFormatError(f"{path}, line 1: not a profile: it should begin with {wanted}")
    twice = [name for name in TYPES if columns.count(name) > 1]
    if twice:
        raise ProfileFormatError(f"{path}, line 1: not a profile: it has the column {twice[0]} twice")
    if not first.endswith(b"\n"):
        raise ProfileFormatError(NO_ROW.format(path))
    return columns


def _whole_lines(path: Path) -> tuple[BinaryIO, bool]:
    """The file, without its last line if that has no end; and whether it had none."""
    file = path.open("rb")
    file.seek(-1, io.SEEK_END)
    is_cut_short = file.read(1) != b"\n"
    file.seek(0)
    if not is_cut_short:
        return file, False
    with file:
        data = file.read()
    return io.BytesIO(data[: data.rfind(b"\n") + 1]), True


def _table(source: BinaryIO, columns: list[str]) -> pd.DataFrame:
    """The columns that we know. Raises ValueError if a field is of another type."""
    known = {name: type_ for name, type_ in TYPES.items() if name in columns}
    # Nothing but an empty field is a missing value: `nan` is none, and wrong.
    how: Any = {"dtype": known, "keep_default_na": False, "na_values": [""], "encoding_errors": "replace"}
    # Values beyond the last column are left out.
    table: Any = pd.read_csv(source, usecols=list(known), index_col=False, **how)
    return table  # type: ignore[no-any-return]


def _profile(path: Path, table: pd.DataFrame, is_cut_short: bool) -> Profile:
    """The profile of a table. Raises ValueError if a row is wrong; `faults.first_fault` finds which."""
    if table.empty:
        raise ProfileFormatError(NO_ROW.format(path))
    times, finished = table["Timestamp"].to_numpy(), table["Finished"].to_numpy()
    counts = {name: table[name].to_numpy() for name in faults.COUNTS if name in table}
    others = [values[~np.isnan(values)] for name, values in counts.items() if name != "Finished"]
    if not (np.isfinite(times).all() and _is_rising(times) and _is_rising(finished)):
        raise ValueError
    if not all(((values >= 0) & (values < np.inf)).all() for values in (finished, *others)):
        raise ValueError
    busy = _busy(table["Busy"])
    is_sample = np.zeros(len(table), bool)
    if "CPU" in table and "Memory" in table:
        is_sample = (table["CPU"].notna() & table["Memory"].notna()).to_numpy()
    has_samples = bool(is_sample.any())
    seconds = times - times[0]
    return Profile(
        path=path,
        seconds=seconds,
        busy=busy,
        finished=finished,
        waiting=np.nan_to_num(counts["Waiting"]) if "Waiting" in table else None,
        events=table["Event"].astype(object).to_numpy() if "Event" in table else None,
        sampled=seconds[is_sample],
        cpu_percent=_usage(table["CPU"][is_sample], busy.shape[1]) if has_samples else None,
        memory_bytes=_usage(table["Memory"][is_sample], busy.shape[1]) if has_samples else None,
        is_cut_short=is_cut_short,
    )


def _is_rising(values: NDArray[np.float64]) -> bool:
    return bool((np.diff(values) >= 0).all())


def _busy(column: pd.Series[Any]) -> NDArray[np.uint8]:
    """The busy lists. Each text is parsed once."""
    states = faults.matrix(list(column.cat.categories))
    if states is None or not faults.are_bits(states) or column.isna().any():
        raise ValueError
    return states.astype(np.uint8)[column.cat.codes]


def _usage(column: pd.Series[Any], workers: int) -> NDArray[np.float64]:
    values = faults.matrix(list(column))
    if values is None or values.shape[1] != workers:
        raise ValueError
    return values
