"""Parts of a record, and what the grapher prints of one."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distribute_challenge import cli
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures import listing, period
from distribute_challenge.pictures.reading import Profile, read_profile
from distribute_challenge.pictures.tasks import Tasks, read_tasks
from distribute_challenge.record.profile import HEADER as PROFILE_HEADER
from distribute_challenge.record.tasks import HEADER

# From 2001-09-09 01:46:40 on.
ROWS = (
    '0,1000000000,"[0, 0]",0,0,0,,,start,0,\n'
    '1,1000000010,"[1, 0]",0,0,1,,,acquire,7,0\n'
    '2,1000000015,"[1, 0]",2,0,1,"[50, 1]","[4096, 4096]",sample,6,\n'
    '3,1000000020,"[0, 0]",6,0,0,,,free,0,0\n'
    '4,1000000030,"[0, 1]",6,0,0,,,acquire,0,1\n'
    '5,1000000040,"[0, 0]",7,0,0,,,free,0,1\n'
    '6,1000000050,"[0, 0]",7,0,0,,,stop,0,\n'
)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "p.csv"
    path.write_text(PROFILE_HEADER + ROWS)
    return read_profile(path)


def test_a_part_is_as_if_it_had_been_recorded_so(profile: Profile):
    part = period.part(profile, 12, 35)
    assert part.began == 1e9 + 12
    assert part.seconds.tolist() == [0, 3, 8, 18, 23]
    assert part.busy.tolist() == [[1, 0], [1, 0], [0, 0], [0, 1], [0, 1]]
    assert part.finished.tolist() == [0, 2, 6, 6, 6]
    assert part.waiting is not None
    assert part.waiting.tolist() == [1, 1, 0, 0, 0]
    assert part.sampled.tolist() == [3]
    assert part.cpu_percent is not None
    np.testing.assert_array_equal(part.cpu_percent, [[50, 1]])
    # Work goes on when it begins, and when it ends.
    assert (part.span_s, part.throughput) == ((0, 23), 6 / 23)
    assert period.part(profile, 12, 28).span_s == (0, 8)


def test_a_part_without_a_sample_or_a_row_is_one(profile: Profile):
    part = period.part(profile, 32, 38)
    assert (part.seconds.tolist(), part.busy.tolist()) == ([0, 6], [[0, 1], [0, 1]])
    assert (part.cpu_percent, part.throughput) == (None, 0)
    idle = period.part(profile, 41, 50)
    assert (idle.seconds.tolist(), idle.span_s) == ([0, 9, 9], (0, 9))


def test_all_of_a_record_is_a_part_of_it(profile: Profile):
    part = period.part(profile, 0, 50)
    assert part.seconds.tolist() == [*profile.seconds.tolist(), 50]
    assert (part.span_s, part.throughput) == (profile.span_s, profile.throughput)


@pytest.mark.parametrize(
    ("since", "begin"),
    [
        ("01:47", 20),
        ("01:46:50", 10),
        ("2001-09-09 01:47", 20),
        ("2001-09-09T01:46:50", 10),
        ("2000-01-01", 0),
        ("00:00", 0),
        ("23:00", 0),
    ],
)
def test_a_record_is_drawn_since_a_time(profile: Profile, since: str, begin: float):
    """A time of day is the last one in the record; if there is none, all of the record is later."""
    assert period.asked(profile, cli.moment(since), None) == (begin, 50)


def test_the_last_minutes_of_a_record_are_drawn(profile: Profile):
    assert period.asked(profile, None, cli.length_of_time("0.5m")) == (20, 50)
    assert period.asked(profile, None, cli.length_of_time("2h")) == (0, 50)


@pytest.mark.parametrize("since", ["2001-09-09 01:47:30", "2030-01-01"])
def test_a_time_after_the_record_is_refused(profile: Profile, since: str):
    with pytest.raises(ProfileFormatError, match="it ends at 2001-09-09 01:47:30: give an earlier --since"):
        period.asked(profile, cli.moment(since), None)


def test_a_record_with_times_that_no_calendar_has_is_refused(tmp_path: Path):
    path = tmp_path / "p.csv"
    path.write_text(',Timestamp,Busy,Finished\n0,1e300,"[0]",0\n1,2e300,"[0]",0\n')
    with pytest.raises(ProfileFormatError, match="it has no time like 01:47:00: leave out --since"):
        period.asked(read_profile(path), cli.moment("01:47"), None)


@pytest.mark.parametrize("text", ["", "25:00", "now", "14:30 Uhr", "2001-02-30", "1e9"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time: give it like"):
        cli.moment(text)


@pytest.mark.parametrize("text", ["", "0", "0s", "-5m", "10 m", "10x", "m", "inf", "1e9", "٣m"])
def test_what_is_no_length_of_time_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a length of time: give it like"):
        cli.length_of_time(text)


def test_of_a_record_that_was_idle_for_most_of_it_the_work_is_drawn(tmp_path: Path):
    path = tmp_path / "p.csv"
    path.write_text(PROFILE_HEADER + ROWS.replace("6,1000000050", "6,1000000061"))
    assert period.asked(read_profile(path), None, None) == (8.5, 41.5)
    path.write_text(PROFILE_HEADER + ROWS)
    assert period.asked(read_profile(path), None, None) == (0, 50)
    path.write_text(
        PROFILE_HEADER + '0,1000000000,"[0]",0,0,0,,,start,0,\n1,1000000050,"[0]",0,0,0,,,stop,0,\n'
    )
    assert period.asked(read_profile(path), None, None) == (0, 50)


TASKS = (
    "0,square,a.py:7,18812,1000000000,1000000010,1000000012,4,1,done,1,1,,\n"
    "1,square,a.py:7,18812,1000000000,1000000012,1000000015,2,1.5,failed,1,1,,ValueError: odd\n"
    "2,sleep,b.py:8,18813,,1000000030,1000000040,1,10,timeout,1,0,,TaskTimeout: not within 10 s\n"
)


def tasks_of(folder: Path, rows: str) -> Tasks:
    path = folder / "p.tasks.csv"
    path.write_text(HEADER + rows)
    return read_tasks(path)


def test_the_tasks_of_a_part_are_those_that_ran_in_it(profile: Profile, tmp_path: Path):
    tasks = tasks_of(tmp_path, TASKS)
    assert period.tasks_in(period.part(profile, 13, 35), tasks).count.tolist() == [2, 1]
    assert len(period.tasks_in(period.part(profile, 16, 29), tasks)) == 0


ENDS = [
    (1000000012.0, 3, "done"),
    (1000000018.0, 2, "done"),
    (1000000017.0, 4, "done"),
    (1000000019.0, 1, "failed"),
]


def of_killed(tmp_path: Path) -> tuple[Profile, Tasks]:
    """The record of a server that was killed after the third row."""
    path = tmp_path / "killed.csv"
    path.write_text(PROFILE_HEADER + "\n".join(ROWS.splitlines()[:3]) + "\n")
    lines = [
        f"{number},f,c.py:1,18812,,{ended - 2},{ended},{count},{count},{status},1,1,,\n"
        for number, (ended, count, status) in enumerate(ENDS)
    ]
    return read_profile(path), tasks_of(tmp_path, "".join(lines))


def test_the_record_of_a_killed_server_ends_with_its_tasks(tmp_path: Path):
    profile, tasks = of_killed(tmp_path)
    longer = period.lengthened(profile, tasks)
    assert longer.seconds.tolist() == [0, 10, 15, 17, 18, 19]
    assert longer.finished.tolist() == [0, 0, 2, 7, 9, 9]
    assert longer.throughput == 1
    assert longer.busy[-1].tolist() == [1, 0]
    assert len(period.tasks_in(longer, tasks)) == len(ENDS)


def test_the_record_of_a_server_that_has_stopped_is_as_long_as_its_profile(profile: Profile, tmp_path: Path):
    _, tasks = of_killed(tmp_path)
    assert period.lengthened(profile, tasks) is profile


def test_no_record_is_lengthened_by_the_tasks_of_another(tmp_path: Path):
    profile, tasks = of_killed(tmp_path)
    before = replace(profile, began=profile.began - 3600)
    assert period.lengthened(before, tasks) is before


def test_the_table_has_a_line_for_each_function(tmp_path: Path):
    tasks = tasks_of(tmp_path, TASKS)
    assert [line.split() for line in listing.table(tasks)] == [
        ["run", "time", "time", "waited"],
        ["function", "tasks", "failed", "total", "mean", "median", "99%", "mean", "median", "99%"],
        ["sleep", "1", "1", *["10", "s"] * 4, "-", "-", "-"],
        [
            "square",
            "6",
            "2",
            "2.5",
            "s",
            *["417", "ms", "250", "ms", "750", "ms", "10.7", "s", "10", "s", "12", "s"],
        ],
    ]
    assert len({len(line) for line in listing.table(tasks)}) == 1


def test_names_in_the_table_are_no_commands_for_the_terminal(tmp_path: Path):
    tasks = tasks_of(tmp_path, "0,\x1b[2Jred,c.py:1,18812,,1000000010,1000000011,1,1,done,1,1,,\n")
    assert "?[2Jred" in listing.table(tasks)[-1]


def test_a_long_table_is_cut(tmp_path: Path):
    rows = "".join(f"{n},f{n:02},c:1,18812,,1,2,1,{99 - n},done,1,1,,\n" for n in range(35))
    lines = listing.table(tasks_of(tmp_path, rows))
    assert (lines[2].split()[0], lines[-2].split()[0]) == ("f00", "f29")
    assert lines[-1] == "and 5 functions with less time"
    assert listing.table(tasks_of(tmp_path, "")) == []


def test_the_newest_three_failures_are_told(tmp_path: Path):
    tasks = tasks_of(tmp_path, TASKS)
    assert listing.failures(tasks) == [
        "the newest of 3 failures:",
        "  2001-09-09 01:47:20  sleep  on :18813 for b.py:8  timeout: TaskTimeout: not within 10 s",
        "  2001-09-09 01:46:55  square (2 times)  on :18812 for a.py:7  failed: ValueError: odd",
    ]
    more = "".join(f"{n},late,c:1,18812,,1000000100,{1000000200 - n},1,1,lost,1,1,,\n" for n in range(3, 9))
    assert [line.split()[1:3] for line in listing.failures(tasks_of(tmp_path, TASKS + more))[1:]] == [
        [f"01:49:{57 - n}", "late"] for n in range(3)
    ]
    assert listing.failures(tasks_of(tmp_path, TASKS.splitlines()[0] + "\n")) == []
