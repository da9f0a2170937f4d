"""The rows that a cluster's record gets, from notes of the observer that are made up here."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from distribute_challenge.cluster.recorder import Recorder

WORKER = "tcp://10.0.0.5:4000"


def rows_of(folder: Path, *fetched: tuple[float, list[tuple[Any, ...]]]) -> list[tuple[str, ...]]:
    """The events of the record of what is fetched at these times, each with its counts."""
    path = folder / "run.csv"
    recorder = Recorder(path, "tcp://10.0.0.1:8786", interval_s=0)
    for now, notes in fetched:
        recorder.take({"now": now, "missed": 0, "notes": notes, "usage": {}})
    recorder.close()
    names = ("Event", "Busy", "Finished", "Failed", "Waiting", "Tasks")
    with path.open(newline="") as file:
        return [tuple(row[name] for name in names) for row in csv.DictReader(file)]


def begun(time: float, task: str, client: str) -> tuple[Any, ...]:
    return ("begun", time, task, client, "func", WORKER)


def ended(time: float, task: str) -> tuple[Any, ...]:
    return ("ended", time, task, "memory", (time - 1, time), 28, None, "")


def test_who_waits_is_in_the_next_sample_though_nothing_began(tmp_path):
    joined = ("joined", 1.0, WORKER, "a", 1)
    tasks = [begun(2.0, "f-1", "one"), begun(2.0, "f-2", "two"), begun(2.0, "f-3", "two")]
    rows = rows_of(tmp_path, (1.0, [joined]), (2.0, tasks[:1]), (3.0, tasks[1:]), (4.0, []))
    assert rows == [
        ("start", "[0]", "0", "0", "0", "0"),
        ("joined 10.0.0.5:4000", "[0]", "0", "0", "0", "0"),
        ("sample", "[0]", "0", "0", "0", "0"),
        ("acquire", "[1]", "0", "0", "0", "0"),
        ("sample", "[1]", "0", "0", "0", "0"),
        ("sample", "[1]", "0", "0", "1", "2"),
        ("sample", "[1]", "0", "0", "1", "2"),
        ("stop", "[1]", "0", "0", "1", "2"),
    ]


def test_each_row_has_the_counts_of_its_own_moment_though_all_were_fetched_at_once(tmp_path):
    notes = [
        ("joined", 1.0, WORKER, "a", 1),
        begun(2.0, "f-1", "one"),
        begun(2.0, "f-2", "two"),
        ended(5.0, "f-1"),
        ended(6.0, "f-2"),
    ]
    assert rows_of(tmp_path, (7.0, notes))[2:-1] == [
        ("acquire", "[1]", "0", "0", "0", "0"),
        ("free", "[0]", "1", "0", "1", "1"),
        ("acquire", "[1]", "1", "0", "0", "0"),
        ("free", "[0]", "2", "0", "0", "0"),
        ("sample", "[0]", "2", "0", "0", "0"),
    ]
