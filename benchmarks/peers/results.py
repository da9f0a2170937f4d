"""What was measured: its file, and the ratios that follow from it."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from benchmarks.peers.cases import CASES, SCALES, Target

FILE = Path(__file__).parents[1] / "results.csv"


@dataclass(frozen=True)
class Row:
    """The value of a peer in one round of a case; `how` is its chunk size, where it has one."""

    case: str
    peer: str
    version: str
    round: int
    value: float
    unit: str
    how: str = ""


class Results:
    """All rows of one run."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = list(rows)

    def add(self, case: str, peer: str, number: int, value: float, version: str, how: str = "") -> None:
        """Take in what was measured, in seconds, bytes or calls per second."""
        unit = CASES[case].unit
        self.rows.append(Row(case, peer, version, number, float(f"{value * SCALES[unit]:.5g}"), unit, how))

    def rounds(self, case: str, peer: str) -> dict[int, float]:
        """The value of each round."""
        return {row.round: row.value for row in self.rows if (row.case, row.peer) == (case, peer)}

    def value(self, case: str, peer: str) -> float | None:
        """The median of all rounds; None if this was not measured."""
        values = self.rounds(case, peer).values()
        return statistics.median(values) if values else None

    def ratio(self, target: Target) -> float | None:
        """The median of the rounds' ratios; None if one side was not measured."""
        other = self.rounds(target.case, target.other)
        ratios = [
            value / other[number]
            for number, value in self.rounds(target.case, target.one).items()
            if number in other
        ]
        return statistics.median(ratios) if ratios else None

    def versions(self) -> dict[str, str]:
        """The version of each peer."""
        return {row.peer: row.version for row in self.rows}

    def chunks(self, case: str) -> dict[str, str]:
        """The chunk size of each peer."""
        return {row.peer: row.how for row in self.rows if row.case == case}

    def write(self, file: Path = FILE) -> None:
        """Write all rows, at once."""
        partial = file.with_suffix(".partial")
        with partial.open("w", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(field.name.capitalize() for field in fields(Row))
            writer.writerows(map(astuple, self.rows))
        partial.replace(file)


def read(file: Path = FILE) -> Results:
    """What `write` wrote."""
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    return Results(
        Row(
            row["Case"],
            row["Peer"],
            row["Version"],
            int(row["Round"]),
            float(row["Value"]),
            row["Unit"],
            row["How"],
        )
        for row in rows
    )
