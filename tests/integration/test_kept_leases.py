"""Lone calls on a private pool keep their worker from one to the next, and nobody notices but by the time."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, compute_this
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.shipping import shipment_of
from distribute_challenge.client.peers import kept
from distribute_challenge.client.peers.server import LOOK_S
from tests.interrupts import Moments
from tests.running import HANG_S, eventually, is_running

CALLS = 200
MOMENTS = 12  # of a call, evenly spread


class Pool:
    """A private pool of one or two workers, and its record."""

    def __init__(self, workers: int, profile: Path) -> None:
        self.profile = profile
        self.executor = PoolExecutor(f"local://{workers}", profile=profile)

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> Any:
        options = Options(timeout_s=timeout_s)
        return self.executor.engine.run_call(shipment_of(function), args, {}, options)

    def rows(self) -> list[dict[str, str]]:
        with self.profile.open(newline="") as file:
            return [row for row in csv.DictReader(file) if row["Event"] != "sample"]

    def events(self, *names: str) -> list[str]:
        return [row["Event"] for row in self.rows() if row["Event"] in names]

    def is_idle(self) -> bool:
        """Whether all workers have been given back, as the record has it."""
        (*_, last) = self.rows()
        return "1" not in last["Busy"]

    def counted(self) -> tuple[int, int, int]:
        """What has finished and failed, in the end; and as the file of tasks has it."""
        self.executor.shutdown()
        (*_, last) = self.rows()
        with self.profile.with_suffix(".tasks.csv").open(newline="") as file:
            tasks = sum(int(row["Count"]) for row in csv.DictReader(file))
        return int(last["Finished"]), int(last["Failed"]), tasks


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(1, tmp_path / "kept.csv")
    yield made
    made.executor.shutdown()


def pid() -> int:
    return os.getpid()


def divide(a: int, b: int) -> float:
    return a / b


def test_calls_that_follow_each_other_need_few_leases_and_are_all_counted(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kept, "KEEP_S", 1.0)  # However slow they are here.
    for number in range(CALLS):
        if number % 10:
            assert pool.run(divide, number, 1) == number
        else:
            with pytest.raises(ZeroDivisionError):
                pool.run(divide, number, 0)
    assert pool.counted() == (CALLS * 9 // 10, CALLS // 10, CALLS)
    assert len(pool.events("acquire")) < CALLS // 2
    assert len(pool.events("acquire")) == len(pool.events("free"))


def test_who_makes_no_more_calls_gives_the_worker_back_and_leaves_no_thread(pool: Pool):
    before = set(threading.enumerate())
    for _ in range(CALLS):
        pool.run(pid)
    eventually(pool.is_idle, "the worker has been given back")
    eventually(lambda: set(threading.enumerate()) <= before, "the thread has ended")
    assert pool.run(pid) > 0


def test_threads_and_submitted_tasks_share_the_workers_with_lone_calls(pool: Pool):
    def call(number: int) -> Any:
        if number % 3:
            return pool.run(divide, number, 1)
        return pool.executor.submit(divide, number, 1).result()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, range(CALLS))) == list(range(CALLS))
    assert pool.counted() == (CALLS, 0, CALLS)


def test_a_worker_that_dies_while_it_is_kept_is_replaced_and_nothing_is_lost(pool: Pool):
    for _ in range(5):
        for _ in range(20):
            worker = pool.run(pid)
        os.kill(worker, signal.SIGKILL)
        eventually(
            lambda pid=worker: not is_running(pid), "it is dead"
        )  # Or it might begin the next function.
        assert pool.run(pid) != worker
    assert pool.counted()[0] >= 100


def test_a_kept_lease_of_a_dead_worker_is_not_used(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    """Its successor would run the function, and the server would say that the lease's worker has died."""
    monkeypatch.setattr(kept, "KEEP_S", HANG_S)
    for _ in range(20):
        worker = pool.run(pid)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: pool.events("replaced"), "another worker is up in its place")
    pool.run(time.sleep, 2 * LOOK_S)


def test_a_function_that_is_killed_in_between_loses_no_count(pool: Pool):
    for _ in range(20):
        pool.run(pid)
    with pytest.raises(TaskTimeout):
        pool.run(time.sleep, 60, timeout_s=0.2)
    for _ in range(20):
        pool.run(pid)
    assert pool.counted() == (40, 1, 41)


def test_a_forked_child_gets_a_worker_that_its_parent_has_just_used(pool: Pool):
    for _ in range(20):
        worker = pool.run(pid)
    context = multiprocessing.get_context("fork")
    there, here = context.Pipe()
    child = context.Process(target=lambda: there.send(pool.run(pid)))
    child.start()
    assert here.poll(60)
    assert here.recv() == worker
    child.join()
    assert pool.run(pid) == worker


def test_ctrl_c_at_any_moment_leaves_no_worker_to_nobody(pool: Pool):
    def call() -> None:
        pool.run(divide, 1, 1)

    def interrupted(at: int | None) -> tuple[Moments, KeyboardInterrupt | None]:
        for _ in range(3):  # Now the worker is kept.
            call()
        moments = Moments(at)
        try:
            moments.of(call)
        except KeyboardInterrupt as error:
            return moments, error
        return moments, None

    interrupted(None)
    count = interrupted(None)[0].count
    errors = []  # They hold on to all frames, as the interpreter does in a dialogue.
    for at in range(1, count, max(count // MOMENTS, 1)):
        errors.append(interrupted(at))
        call()
    assert len(errors) >= MOMENTS


@compute_this
def sum_of(numbers: list[int]) -> int:
    return sum(double(number).run() for number in numbers)


@compute_this
def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_of_tasks_run_beside_kept_leases(workers: int, tmp_path: Path):
    pool = Pool(workers, tmp_path / "nested.csv")
    for _ in range(20):
        assert pool.run(sum_of, [1, 2, 3]) == 12
    assert pool.counted() == (80, 0, 80)
