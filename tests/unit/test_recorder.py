"""The rows that a cluster's record gets, from notes of the observer that are made up here."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from distribute_challenge.cluster import recorder as recorder_module
from distribute_challenge.cluster.recorder import Recorder
from distribute_challenge.pictures.live import tables
from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.reading import read_profile

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


JOINED = ("joined", 1.0, WORKER, "a", 1)


def test_without_descriptors_for_the_live_page_the_record_goes_on(tmp_path, monkeypatch, caplog):
    def fails(_number):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(recorder_module, "recorder_file", fails)
    notes = [JOINED, begun(2.0, "f-1", "one"), ended(5.0, "f-1")]
    assert ("free", "[0]", "1", "0", "0", "0") in rows_of(tmp_path, (3.0, notes[:2]), (7.0, notes[2:]))
    assert [record.message for record in caplog.records] == [
        "the live page does not show all that runs ([Errno 24] Too many open files)"
    ]


def cluster_record(
    folder: Path, *fetched: tuple[float, list[tuple[Any, ...]]], interval_s: float = 0
) -> Path:
    """A record of a cluster that goes on."""
    path = folder / "run.csv"
    recorder = Recorder(path, "tcp://10.0.0.1:8786", interval_s)
    for now, notes in fetched:
        recorder.take(
            {"now": now, "missed": 0, "notes": notes, "usage": {WORKER: (50.0, 1 << 20, None, None)}}
        )
    return path


def test_a_worker_that_came_after_the_last_sample_is_read(tmp_path):
    late = ("joined", 100.0, "tcp://10.0.0.6:4000", "b", 1)
    path = cluster_record(tmp_path, (99.0, [JOINED]), (100.0, [late]), interval_s=60)
    profile = read_profile(path)
    assert profile.cpu_percent is not None
    np.testing.assert_array_equal(profile.cpu_percent, [[50.0, np.nan]])
    record = Record.read(path)
    assert tables.workers(record).count("<tr>") == 3  # a row for each, and the titles
    np.testing.assert_array_equal(record.workers.cpu_percent, [50.0, np.nan])


def test_workers_of_a_cluster_are_shown_in_their_own_lanes_and_gone_once_they_have_left(tmp_path):
    """One that leaves has no flight recorder any more: the others keep their numbers."""
    second = ("joined", 1.0, "tcp://10.0.0.6:4001", "b", 1)
    third = ("joined", 4.0, "tcp://10.0.0.6:4002", "c", 1)
    recorder = Recorder(tmp_path / "run.csv", "tcp://10.0.0.1:8786", 0)

    def take(now: float, *notes: tuple[Any, ...]) -> None:
        recorder.take({"now": now, "missed": 0, "notes": list(notes), "usage": {}})

    def state() -> list[str]:
        return [
            "gone" if "<i>gone</i>" in row else "free" if "<i>free</i>" in row else "busy"
            for row in tables.workers(record).split("<tr>")[2:]
        ]

    take(1.0, JOINED, second)
    record = Record.read(tmp_path / "run.csv")
    take(3.0, ("begun", 2.0, "f-1", "one", "func", second[2]), ("left", 2.5, WORKER))
    record.update()
    assert record.workers.ports == [1, 2]
    assert state() == ["gone", "busy"]
    assert ">1 / 1<" in tables.summary(record)
    take(5.0, third)
    record.update()
    assert record.workers.ports == [1, 2, 3]
    assert [[call.function for call in calls] for calls in record.workers.running] == [[], ["func"], []]
    take(7.0, ("joined", 6.0, "tcp://10.0.0.5:4001", "a", 1))
    record.update()
    assert state() == ["free", "busy", "free"]
    take(9.0, ("left", 8.0, "tcp://10.0.0.5:4001"))
    assert Record.read(tmp_path / "run.csv").workers.is_gone.tolist() == [True, False, False]
    recorder.close()
