"""The results of a sweep: the throughput of each cell, and the settings of the measurement."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import NamedTuple

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.record.faults import number, quoted

FOLDER = Path("profiling")
SWEEP = FOLDER / "benchmarks.csv"
SETTINGS = SWEEP.with_suffix(".json")
COLUMNS = ("Workers", "Functions", "Throughput")


class Cell(NamedTuple):
    """One measurement."""

    workers: int
    clients: int


class Settings(NamedTuple):
    """The work of each client: so many functions of so many seconds, one after another."""

    tasks: int = 5
    seconds: float = 3

    def __str__(self) -> str:
        return f"--tasks {self.tasks} --seconds {self.seconds}"


def read_cells(path: Path) -> dict[Cell, float]:
    """The throughput of each cell, in tasks per second. Raises ProfileFormatError and OSError."""
    cells: dict[Cell, float] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            if any(name not in (reader.fieldnames or ()) for name in COLUMNS):
                raise ValueError("not a sweep: it should begin with " + ",".join(COLUMNS))
            for row in reader:
                workers, clients, throughput = (number(row[name]) for name in COLUMNS)
                if not all(count >= 1 and count.is_integer() for count in (workers, clients)):
                    raise ValueError("Workers and Functions should be whole numbers from 1")
                if not 0 < throughput < math.inf:
                    raise ValueError(f"{quoted(row['Throughput'])} is not a throughput")
                cells[Cell(int(workers), int(clients))] = throughput
        except (csv.Error, ValueError) as error:
            raise ProfileFormatError(f"{path}, line {max(reader.line_num, 1)}: {error}") from None
    if not cells:
        raise ProfileFormatError(f"{path}, line 2: there is no row: nothing was measured")
    return cells


def write_cells(cells: dict[Cell, float]) -> None:
    """Write the results."""
    rows = (f"{cell.workers},{cell.clients},{throughput!r}" for cell, throughput in sorted(cells.items()))
    _write(SWEEP, "\n".join((",".join(COLUMNS), *rows, "")))


def read_settings(path: Path = SETTINGS) -> Settings:
    """With what the sweep was measured. Raises ProfileFormatError and OSError."""
    try:
        read = json.loads(path.read_bytes())
        settings = Settings(read["tasks"], read["seconds"])
    except FileNotFoundError:
        return Settings()
    except (ValueError, TypeError, KeyError, RecursionError):
        settings = Settings(0, 0)
    is_whole = type(settings.tasks) is int and settings.tasks >= 1
    if not is_whole or type(settings.seconds) not in (int, float) or not 0 < settings.seconds < math.inf:
        example = json.dumps(Settings()._asdict())
        raise ProfileFormatError(f"{path}, line 1: it should say how the sweep was made, like {example}")
    return settings


def write_settings(settings: Settings) -> None:
    """Write with what the sweep is measured."""
    _write(SETTINGS, json.dumps(settings._asdict()) + "\n")


def _write(path: Path, text: str) -> None:
    """In one step: whoever reads finds the old file or the new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
