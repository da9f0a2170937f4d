"""Tasks are drawn in the lanes of the workers that ran them, and within those that they ran in."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures import lanes
from distribute_challenge.pictures.reading import Profile, read_profile
from distribute_challenge.pictures.tasks import Tasks, read_tasks
from distribute_challenge.record.profile import HEADER as PROFILE_HEADER
from distribute_challenge.record.tasks import HEADER, tasks_path

Leases = list[tuple[int, float, float]]


def record(folder: Path, ports: list[int], leases: Leases) -> tuple[Profile, Tasks]:
    """A record of workers at ports: a lease is a worker, from when and until when; a task runs in each."""
    path = folder / "p.csv"
    changes = [(0.0, "start", None), (100.0, "stop", None)]
    for worker, begin, end in leases:
        changes += [(begin, "acquire", worker), (end, "free", worker)]
    busy = [0] * len(ports)
    rows = []
    for number, (when, event, worker) in enumerate(sorted(changes, key=lambda change: change[0])):
        if worker is not None:
            busy[worker] = int(event == "acquire")
        about = "" if worker is None else worker
        rows.append(f'{number},{1000 + when:.6f},"{busy}",0,0,0,,,{event},0,{about}\n')
    path.write_text(PROFILE_HEADER + "".join(rows))
    tasks = [
        f"{number},f,c:1,{ports[worker]},,{1000 + begin:.6f},{1000 + end:.6f},1,1,done,1,1,,\n"
        for number, (worker, begin, end) in enumerate(leases)
    ]
    tasks_path(path).write_text(HEADER + "".join(tasks))
    return read_profile(path), read_tasks(tasks_path(path))


def test_workers_have_the_ports_after_their_servers(tmp_path: Path):
    profile, tasks = record(tmp_path, [18812, 18813, 18814], [(2, 1, 2), (0, 3, 4)])
    assert lanes.ports(profile, tasks, 18811) == {18812: 0, 18814: 2}


def test_the_ports_of_all_workers_tell_which_is_which_without_the_servers(tmp_path: Path):
    profile, tasks = record(tmp_path, [7001, 7002], [(0, 1, 5), (1, 1, 5)])
    assert lanes.ports(profile, tasks, 18811) == {7001: 0, 7002: 1}


def test_a_server_on_another_port_is_told_by_the_busy_lists(tmp_path: Path):
    """The server had port 18813: if it were the usual one, these ports would be those of the last workers."""
    profile, tasks = record(tmp_path, [18814, 18815, 18816, 18817], [(0, 1, 5), (1, 6, 8)])
    assert lanes.ports(profile, tasks, 18811) == {18814: 0, 18815: 1}


@pytest.mark.parametrize("seed", range(10))
def test_ports_that_the_system_has_picked_are_told_from_the_busy_lists(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    ports = chance.sample(range(30_000, 60_000), 8)
    leases = []
    for worker in range(len(ports) - 1):  # The last one never ran anything.
        times = sorted(chance.uniform(0, 100) for _ in range(6))
        leases += [(worker, *pair) for pair in zip(times[::2], times[1::2], strict=True)]
    profile, tasks = record(tmp_path, ports, leases)
    assert lanes.ports(profile, tasks, None) == {port: n for n, port in enumerate(ports[:-1])}


def test_where_nothing_tells_ports_apart_they_are_in_order(tmp_path: Path):
    profile, tasks = record(tmp_path, [40_000, 30_000], [(0, 1, 5), (1, 1, 5)])
    assert lanes.ports(profile, tasks, None) == {30_000: 0, 40_000: 1}


def test_a_loss_tells_which_worker_ran_the_function(tmp_path: Path):
    profile, _ = record(tmp_path, [1, 2], [(0, 1, 60), (1, 1, 60)])
    rows = profile.path.read_text().replace("5,1100.0", '5,1050.0,"[1, 1]",0,1,0,,,lost,0,1\n6,1100.0')
    lines = sorted(rows.splitlines()[1:], key=lambda line: float(line.split(",")[1]))
    profile.path.write_text(PROFILE_HEADER + "\n".join([*lines, ""]))
    path = tasks_path(profile.path)
    ends = "0,f,c:1,40000,,1001,1050,1,1,done,1,1,,\n1,f,c:1,30000,,1001,1050,1,1,timeout,1,1,,\n"
    path.write_text(HEADER + ends)
    assert lanes.ports(read_profile(profile.path), read_tasks(path), None) == {40_000: 0, 30_000: 1}


def test_tasks_of_another_run_are_refused(tmp_path: Path):
    profile, tasks = record(tmp_path, [18812, 18813], [(0, 1, 2), (1, 1, 2)])
    one = read_profile(profile.path)
    profile.path.write_text(PROFILE_HEADER + '0,1000,"[0]",0,0,0,,,start,0,\n1,1100,"[0]",0,0,0,,,stop,0,\n')
    with pytest.raises(
        ProfileFormatError, match=r"tasks\.csv, line 2: its tasks are of another run than .*p\.csv"
    ):
        lanes.ports(read_profile(profile.path), tasks, 18811)
    profile.path.write_text(PROFILE_HEADER + '0,5000,"[0, 0]",0,0,0,,,start,0,\n')
    with pytest.raises(ProfileFormatError, match="another run"):
        lanes.ports(read_profile(profile.path), tasks, 18811)
    assert lanes.ports(one, tasks, 18811) == {18812: 0, 18813: 1}


@given(st.data())
def test_the_sum_of_the_costs_is_the_least(data: st.DataObject):
    rows = data.draw(st.integers(1, 4))
    columns = data.draw(st.integers(rows, 5))
    row = st.lists(st.integers(0, 9), min_size=columns, max_size=columns)
    cost = np.array(data.draw(st.lists(row, min_size=rows, max_size=rows)), float)
    found = lanes.assign(cost)
    assert len(set(found.tolist())) == rows
    every = itertools.permutations(range(columns), rows)
    assert cost[range(rows), found].sum() == min(cost[range(rows), list(one)].sum() for one in every)


def depths(folder: Path, rows: list[tuple[str, int, float, float]]) -> list[int]:
    path = folder / "t.csv"
    path.write_text(
        HEADER
        + "".join(
            f"{number},{function},c:1,{18812 + lane},,{1000 + begin},{1000 + end},1,1,done,1,1,,\n"
            for number, (function, lane, begin, end) in enumerate(rows)
        )
    )
    tasks = read_tasks(path)
    return lanes.depths(tasks.worker - 18812, tasks).tolist()


def test_tasks_within_tasks_are_as_deep_as_they_are(tmp_path: Path):
    rows = [
        ("c", 0, 2, 3),
        ("b", 0, 1.5, 4),
        ("c", 0, 4, 4.5),
        ("a", 0, 1, 5),
        ("d", 0, 5, 6),
        ("e", 1, 2, 3),
    ]
    assert depths(tmp_path, rows) == [2, 1, 1, 0, 0, 0]


def test_tasks_that_begin_or_end_together_are_within_the_longer_one(tmp_path: Path):
    assert depths(tmp_path, [("in", 0, 1, 2), ("out", 0, 1, 3), ("last", 0, 2.5, 3)]) == [1, 0, 1]


def test_the_two_rows_of_a_chunk_are_at_one_depth(tmp_path: Path):
    assert depths(tmp_path, [("f", 0, 1, 2), ("f", 0, 1, 2), ("g", 0, 2, 2)]) == [0, 0, 0]


def test_without_tasks_nothing_is_deep(tmp_path: Path):
    assert depths(tmp_path, []) == []
