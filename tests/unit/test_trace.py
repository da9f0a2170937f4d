"""The trace obeys the rules of Chrome's format, and has all of the record in it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.pictures.reading import read_profile
from distribute_challenge.pictures.tasks import read_tasks
from distribute_challenge.pictures.trace import MOST_LINES, write_trace
from distribute_challenge.record.profile import HEADER as PROFILE_HEADER
from distribute_challenge.record.tasks import HEADER, tasks_path

PROFILE = PROFILE_HEADER + (
    '0,1000.0,"[0, 0]",0,0,0,,,start,0,\n'
    '1,1000.5,"[0, 0]",0,0,0,"[1.5, null]","[4096, null]",sample,0,\n'
    '2,1001.0,"[1, 0]",0,0,2,,,acquire,7,0\n'
    '3,1002.0,"[1, 1]",0,0,1,,,acquire,6,1\n'
    '4,1003.0,"[1, 1]",0,1,1,,,lost,6,1\n'
    '5,1004.0,"[1, 0]",0,1,0,,,replaced,0,1\n'
    '6,1005.0,"[0, 0]",3,1,0,,,free,0,0\n'
)


def trace_of(
    folder: Path, rows: list[str] | None, profile: str = PROFILE
) -> tuple[list[dict[str, Any]], int]:
    """The events of a record with these tasks, all of which obey the rules; and what was left out."""
    path = folder / "p.csv"
    path.write_text(profile)
    tasks = None
    if rows is not None:
        tasks_path(path).write_text(HEADER + "".join(f"{number},{row}\n" for number, row in enumerate(rows)))
        tasks = read_tasks(tasks_path(path))
    ports = {18812: 0, 18813: 1} if rows else {}
    left_out = write_trace(folder / "trace.json", read_profile(path), tasks, ports)
    with (folder / "trace.json").open() as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    check(events)
    return events, left_out


def check(events: list[dict[str, Any]]) -> None:
    """Chrome's rules: "Trace Event Format", and what Perfetto asks of slices."""
    slices = defaultdict(list)
    for event in events:
        assert {type(event[name]) for name in ("pid", "tid", "ts")} == {int}
        assert event["ts"] >= 0
        assert event["name"]
        match event["ph"]:
            case "X":
                assert type(event["dur"]) is int
                assert event["dur"] >= 0
                slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
            case "C":
                assert {type(value) for value in event["args"].values()} <= {int, float}
            case "i":
                assert event["s"] in ("g", "p", "t")
            case "M":
                assert event["name"] in ("process_name", "thread_name")
                assert type(event["args"]["name"]) is str
            case phase:
                raise AssertionError(phase)
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert set(slices) <= named
    for of_thread in slices.values():
        still_open: list[int] = []
        for begin, end in of_thread:  # In the file's order: a slice comes before what is within it.
            while still_open and still_open[-1] <= begin:
                still_open.pop()
            assert not still_open or end <= still_open[-1], "slices nest or follow each other"
            still_open.append(end)


def slices(events: list[dict[str, Any]], process: int = 1) -> list[tuple[Any, ...]]:
    """Name, thread, begin, length and category of each."""
    found = (event for event in events if event["ph"] == "X" and event["pid"] == process)
    return sorted(tuple(event[name] for name in ("name", "tid", "ts", "dur", "cat")) for event in found)


def test_tasks_are_slices_of_their_workers_and_of_the_line(tmp_path: Path):
    events, left_out = trace_of(
        tmp_path,
        [
            "square,a.py:7,18812,1000.25,1001,1001.5,4,0.4,done,100,20,,",
            '"f, ""g""",b.py:8,18813,,1002,1003,1,1.0,lost,50,0,4096,"WorkerLost: exit code 3, <b>"',
        ],
    )
    assert slices(events) == [
        ('f, "g"', 18813, 2_000_000, 1_000_000, "lost"),
        ("square", 18812, 1_000_000, 500_000, "done"),
    ]
    assert [found[:1] + found[2:] for found in slices(events, 2)] == [("square", 250_000, 750_000, "waiting")]
    assert left_out == 0
    lost = next(event for event in events if event.get("cat") == "lost")
    assert lost["args"] == {
        "client": "b.py:8",
        "functions": 1,
        "seconds": 1.0,
        "sent_bytes": 50,
        "returned_bytes": 0,
        "memory_bytes": 4096,
        "error": "WorkerLost: exit code 3, <b>",
    }


def test_workers_are_named_and_their_usage_and_the_line_are_counters(tmp_path: Path):
    events, _ = trace_of(
        tmp_path, ["f,a:1,18812,,1001,1002,1,1,done,1,1,,", "f,a:1,18813,,1001,1002,1,1,done,1,1,,"]
    )
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {18812: "worker 1 :18812", 18813: "worker 2 :18813"}
    counters = [(event["name"], event["ts"], event["args"]) for event in events if event["ph"] == "C"]
    assert ("CPU (%)", 500_000, {"worker 1": 1.5}) in counters
    assert ("memory (bytes)", 500_000, {"worker 1": 4096.0}) in counters
    clients = [
        (ts, args["clients"]) for name, ts, args in counters if name == "waiting" and "clients" in args
    ]
    assert clients == [(0, 0), (1_000_000, 2), (2_000_000, 1), (4_000_000, 0)]
    tasks = [(ts, args["tasks"]) for name, ts, args in counters if name == "waiting" and "tasks" in args]
    assert tasks == [(0, 0), (1_000_000, 7), (2_000_000, 6), (4_000_000, 0)]


def test_losses_and_replacements_are_marks(tmp_path: Path):
    events, _ = trace_of(tmp_path, [])
    assert [(event["name"], event["ts"]) for event in events if event["ph"] == "i"] == [
        ("lost", 3_000_000),
        ("replaced", 4_000_000),
    ]


def test_a_record_without_tasks_shows_when_workers_were_busy(tmp_path: Path):
    events, _ = trace_of(tmp_path, None)
    assert [found[2:] for found in slices(events)] == [
        (1_000_000, 4_000_000, "busy"),
        (2_000_000, 2_000_000, "busy"),
    ]
    old, _ = trace_of(tmp_path, None, ',Timestamp,Busy,Finished\n0,5,"[1]",0\n1,7,"[1]",2.0\n')
    assert [found[2:] for found in slices(old)] == [(0, 2_000_000, "busy")]


def test_a_chunk_with_failures_is_two_slices_one_after_the_other(tmp_path: Path):
    rows = [
        "f,a:1,18812,,1001,1002,3,0.6,done,1,1,,",
        "f,a:1,18812,,1001,1002,1,0.2,failed,1,1,,ValueError: odd",
    ]
    events, _ = trace_of(tmp_path, rows)
    assert slices(events) == [
        ("f", 18812, 1_000_000, 750_000, "done"),
        ("f", 18812, 1_750_000, 250_000, "failed"),
    ]


def test_tasks_within_others_nest_and_threads_of_functions_have_lines_of_their_own(tmp_path: Path):
    rows = [
        "inner,a:1,18812,,1001.25,1001.5,1,0.2,done,1,1,,",
        "inner,a:1,18812,,1001.4,1001.75,1,0.2,done,1,1,,",
        "outer,a:1,18812,,1001,1002,1,1,done,1,1,,",
    ]
    events, _ = trace_of(tmp_path, rows)
    assert len({thread for _, thread, *_ in slices(events)}) == 2


def test_of_too_many_tasks_that_wait_at_a_time_the_rest_is_counted(tmp_path: Path):
    rows = [
        f"f,a:1,18812,1000,{1001 + number},{1002 + number},1,1,done,1,1,," for number in range(MOST_LINES + 5)
    ]
    events, left_out = trace_of(tmp_path, rows)
    assert (len(slices(events)), len(slices(events, 2)), left_out) == (MOST_LINES + 5, MOST_LINES, 5)


times = st.integers(0, 30).map(lambda tenths: tenths / 10)


@given(
    st.lists(
        st.tuples(st.sampled_from([18812, 18813]), times, times, times, st.sampled_from(["done", "failed"]))
    )
)
def test_whatever_overlaps_the_rules_hold_and_no_task_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[tuple[int, float, float, float, str]]
):
    rows = [
        f"f,a:1,{port},{1000 + begin - wait},{1000 + begin},{1000 + begin + length},1,{length},{status},1,1,,"
        for port, begin, length, wait, status in tasks
    ]
    events, left_out = trace_of(tmp_path_factory.mktemp("trace"), rows)
    found = Counter(event["pid"] for event in events if event["ph"] == "X")
    assert found[1] == len(tasks)
    assert found[2] == sum(wait > 0 for *_, wait, _ in tasks) - left_out
