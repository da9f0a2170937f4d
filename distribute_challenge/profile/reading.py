"""Profiles and sweeps, from CSV to arrays. What is wrong in a file is said with its line.

Reading is by column, fast enough for millions of rows; only a file that turns out to be broken is gone
through once more, row by row, for the line. A last row that was cut short, by a killed server, is left out.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distribute_challenge.errors import ProfileFormatError

REQUIRED = ("Timestamp", "Busy", "Finished")
COUNTS = ("Finished", "Failed", "Waiting")
TEXTS = ("Busy", "CPU", "Memory", "Event")


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
    def span_s(self) -> tuple[float, float]:
        """When the work began and ended: the first acquire and the last free; without events, all of it."""
        if self.events is not None:
            acquired = np.flatnonzero(self.events == "acquire")
            freed = np.flatnonzero(self.events == "free")
            if acquired.size and freed.size and freed[-1] > acquired[0]:
                return float(self.seconds[acquired[0]]), float(self.seconds[freed[-1]])
        return float(self.seconds[0]), float(self.seconds[-1])

    @property
    def throughput(self) -> float:
        """Finished tasks per second, over the span of the work."""
        began, ended = self.span_s
        return float(self.finished[-1]) / (ended - began) if ended > began else 0.0

    def rows_of(self, event: str) -> NDArray[np.intp]:
        """The numbers of the rows that record an event."""
        return np.flatnonzero(self.events == event) if self.events is not None else np.empty(0, np.intp)


def read_profile(path: Path) -> Profile:
    """Read a profile. Raises ProfileFormatError, and OSError if there is no such file."""
    columns = _columns(path)
    source, is_cut_short = _whole_lines(path)
    wanted: dict[str, Any] = {"Timestamp": "float64"}
    wanted |= {name: "float64" for name in COUNTS if name in columns}
    wanted |= {name: "category" for name in TEXTS if name in columns}
    try:
        table = pd.read_csv(source, usecols=list(wanted), dtype=wanted)
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError):
        _find_fault(path)
    if table.empty:
        raise ProfileFormatError(f"{path}, line 2: there is no row: the server recorded nothing")
    times = table["Timestamp"].to_numpy()
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all() and table["Finished"].notna().all()):
        _find_fault(path)
    busy = _lists(table["Busy"])
    if busy is None or not np.isin(busy, (0, 1)).all():
        _find_fault(path)
    is_sample = np.zeros(len(table), bool)
    usage: dict[str, NDArray[np.float64] | None] = {"CPU": None, "Memory": None}
    if "CPU" in columns and "Memory" in columns:
        is_sample = (table["CPU"].notna() & table["Memory"].notna()).to_numpy()
        for name in usage:
            if is_sample.any():
                usage[name] = part = _lists(table[name][is_sample])
                if part is None or part.shape[1] != busy.shape[1]:
                    _find_fault(path)
    seconds = times - times[0]
    return Profile(
        path=path,
        seconds=seconds,
        busy=busy.astype(np.uint8),
        finished=table["Finished"].to_numpy(),
        waiting=table["Waiting"].fillna(0).to_numpy() if "Waiting" in columns else None,
        events=table["Event"].astype(object).to_numpy() if "Event" in columns else None,
        sampled=seconds[is_sample],
        cpu_percent=usage["CPU"],
        memory_bytes=usage["Memory"],
        is_cut_short=is_cut_short,
    )


def read_sweep(path: Path) -> pd.DataFrame:
    """The sweep's results, a row for each cell: Workers, Functions (clients), Throughput (tasks per second).

    Raises ProfileFormatError, and OSError if there is no such file.
    """
    try:
        table = pd.read_csv(path)
        cells = pd.DataFrame(
            {
                "Workers": table["Workers"].astype(int),
                "Functions": table["Functions"].astype(int),
                "Throughput": table["Throughput"].astype(float),
            }
        )
    except (ValueError, KeyError, pd.errors.ParserError) as error:
        raise ProfileFormatError(
            f"{path}, line 1: not a sweep: it should hold Workers,Functions,Throughput ({error})"
        ) from None
    last: pd.DataFrame = cells.drop_duplicates(["Workers", "Functions"], keep="last")
    return last


def _columns(path: Path) -> list[str]:
    """The names in the first line, which tell a profile from other files."""
    with path.open("rb") as file:
        first = file.readline(10_000)
    if not first.strip():
        raise ProfileFormatError(f"{path}, line 1: the file is empty: the server wrote nothing to it")
    try:
        columns = next(csv.reader([first.decode()]))
    except (UnicodeDecodeError, csv.Error):
        columns = []
    if any(name not in columns for name in REQUIRED):
        raise ProfileFormatError(
            f"{path}, line 1: not a profile: it should begin with ,Timestamp,Busy,Finished"
        )
    return columns


def _whole_lines(path: Path) -> tuple[Path | io.BytesIO, bool]:
    """The file, without its last line if that has no end."""
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        if file.read(1) == b"\n":
            return path, False
    data = path.read_bytes()
    return io.BytesIO(data[: data.rfind(b"\n") + 1]), True


def _lists(column: pd.Series[Any]) -> NDArray[np.float64] | None:
    """JSON lists as a matrix; None if they are no lists of one length. Each text is parsed once."""
    categories, codes = np.unique(column.cat.codes.to_numpy(), return_inverse=True)
    if categories.size == 0 or categories[0] < 0:
        return None
    try:
        lists = [json.loads(column.cat.categories[code]) for code in categories]
        matrix = np.array(lists, dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return matrix[codes] if matrix.ndim == 2 and matrix.shape[1] else None


def _find_fault(path: Path) -> NoReturn:
    """Raise for the first line that is wrong."""
    before, length = float("-inf"), None
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                raise ProfileFormatError(f"{path}: not a profile that can be read") from None
            except csv.Error as error:
                raise ProfileFormatError(f"{path}, line {reader.line_num}: {error}") from None
            problem = _problem(row, before, length)
            if problem:
                raise ProfileFormatError(f"{path}, line {reader.line_num}: {problem}")
            before, length = float(row["Timestamp"]), len(json.loads(row["Busy"]))


def _problem(row: dict[str, Any], before: float, length: int | None) -> str | None:
    """What is wrong with a row, after one with this time and this many workers."""
    try:
        time = float(row["Timestamp"])
    except (TypeError, ValueError):
        return f"{row['Timestamp']!r} is not a time"
    if not np.isfinite(time):
        return f"{row['Timestamp']!r} is not a time"
    if time < before:
        return f"the time goes back, from {before} to {time}"
    try:
        busy = json.loads(row["Busy"])
    except (TypeError, ValueError):
        busy = None
    if not isinstance(busy, list) or not busy or any(bit not in (0, 1) for bit in busy):
        return f"{row['Busy']!r} is not a busy list of 0 and 1"
    if length is not None and len(busy) != length:
        return f"the busy list has {len(busy)} workers, and {length} before"
    for name in COUNTS:
        try:
            if row.get(name) not in (None, "") or name == "Finished":
                float(row[name])
        except (TypeError, ValueError):
            return f"{row[name]!r} is not a number ({name})"
    for name in ("CPU", "Memory"):
        if row.get(name):
            try:
                values = json.loads(row[name])
            except ValueError:
                values = None
            if not isinstance(values, list) or len(values) != len(busy):
                return f"{row[name]!r} is not a list of one value for each worker ({name})"
    return None
