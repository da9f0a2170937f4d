"""CSV files as tables, column by column: millions of rows in seconds.

A last row that was cut short, by a killed server, or is still being written, is left out. Only a file that
turns out to be broken is gone through row by row, for the line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.record.faults import Row

Known = TypeVar("Known")


@dataclass(frozen=True)
class Table:
    """A CSV file, or what was added to it since it was `start` bytes long, as far as its lines are whole."""

    path: Path
    names: tuple[str, ...]  # of the columns
    start: int  # where the first row is
    end: int  # behind the last whole line
    is_cut_short: bool  # more is there, which is not a whole line

    def read(self, types: Mapping[str, Any], optional: Collection[str]) -> pd.DataFrame:
        """The columns of these names, if they are there. Raises ValueError if a field is of another type.

        An empty field is a missing value in `optional` columns. Nothing else is: `nan` is wrong. Values
        beyond the last column are left out.
        """
        known = {name: type_ for name, type_ in types.items() if name in self.names}
        names = [name if name in known else f"column {place}" for place, name in enumerate(self.names)]
        how: Any = {"names": names, "header": None, "usecols": list(known), "index_col": False}
        how |= {"na_values": {name: [""] for name in known if name in optional}, "keep_default_na": False}
        how |= {"dtype": known, "encoding_errors": "replace"}
        with self.path.open("rb") as file:
            part = io.BufferedReader(_Part(file, self.start, self.end))
            table: Any = pd.read_csv(part, **how)
        return table  # type: ignore[no-any-return]

    def fault(self, check: Callable[[Row, Known], Known], before: Known) -> ProfileFormatError:
        """The error that says which line of the file is the first that is wrong, and what is wrong with it.

        `check` takes a row and what is known from those before, at first `before`. It gives what the next has
        to agree with, and raises ValueError.
        """
        fault = "the file ends within quotes"
        with self.path.open("rb") as file:
            part = io.BufferedReader(_Part(file, 0, self.end))
            reader = csv.DictReader(io.TextIOWrapper(part, "utf-8-sig", errors="replace", newline=""))
            try:
                for row in reader:
                    before = check(row, before)
            except (csv.Error, ValueError) as error:
                fault = str(error)
        return ProfileFormatError(f"{self.path}, line {reader.line_num}: {fault}")


def open_table(
    path: Path, kind: str, required: Sequence[str], known: Collection[str], start: int = 0
) -> Table:
    """Look at a file that should be `kind`, from a place in it on: 0, or the `end` of an earlier table.

    Raises ProfileFormatError if its first line says that it is something else, and OSError.
    """
    with path.open("rb") as file:
        first = file.readline(1 << 20)
        if not first.strip():
            raise ProfileFormatError(f"{path}, line 1: the file is empty: the server wrote nothing to it")
        try:
            names = next(csv.reader([first.decode("utf-8-sig")]))
        except (UnicodeDecodeError, csv.Error):
            names = []
        # Who writes it anew may call the numbers of the rows otherwise.
        if names and names[0] not in (*known, *required):
            names[0] = ""
        if any(name not in names for name in required):
            wanted = ",".join(("", *filter(None, required)))
            raise ProfileFormatError(f"{path}, line 1: not {kind}: it should begin with {wanted}")
        twice = [name for name in known if names.count(name) > 1]
        if twice:
            raise ProfileFormatError(f"{path}, line 1: not {kind}: it has the column {twice[0]} twice")
        size = file.seek(0, io.SEEK_END)
        start = max(start, len(first))
        end = _last_line_end(file, start, size)
    return Table(path, tuple(names), start, end, is_cut_short=end < size)


def _last_line_end(file: io.BufferedReader, start: int, size: int) -> int:
    """Where the last whole line between two places ends; the first of them if there is none."""
    block = 1 << 16
    at = size
    while at > start:
        at = max(at - block, start)
        file.seek(at)
        found = file.read(min(block, size - at)).rfind(b"\n")
        if found >= 0:
            return at + found + 1
    return start


class _Part(io.RawIOBase):
    """A file between two places. It may grow meanwhile."""

    def __init__(self, file: io.BufferedReader, start: int, end: int) -> None:
        self._file = file
        self._left = max(end - start, 0)
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count
