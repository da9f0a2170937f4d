"""How many processors a process may use, by what the system says of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from distribute_challenge.processors import THREAD_VARIABLES, thread_limits, usable


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/a/b\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_the_quota_of_every_group_counts(tmp_path: Path, files: dict[str, str], count: int):
    assert usable(write(tmp_path, files)) == count


def test_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable(tmp_path) == 1
    assert math.isfinite(usable())


@pytest.mark.parametrize(("workers", "share"), [(1, "8"), (3, "2"), (8, "1"), (20, "1")])
def test_each_worker_gets_its_share_of_the_threads(monkeypatch: pytest.MonkeyPatch, workers: int, share: str):
    monkeypatch.setattr("distribute_challenge.processors._quota", lambda _: math.inf)
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    limits = thread_limits(None, workers)
    assert limits == {name: share for name in THREAD_VARIABLES if name != "MKL_NUM_THREADS"}
    assert set(thread_limits(4, workers).values()) == {"4"}


def test_who_limits_openmp_limits_what_goes_by_it(monkeypatch: pytest.MonkeyPatch):
    """Else a library that is told its share has more threads than wanted, which wait for each other."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    limits = thread_limits(None, 1)
    assert limits == {name: "1" for name in THREAD_VARIABLES if name[:3] not in ("OMP", "MKL")}
