"""The record of tasks: every function that began is in it, once, whatever became of it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import operator
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import rpyc

from distribute_challenge import PoolExecutor, TaskTimeout, WorkerLost, compute_this
from distribute_challenge.client.running.lane import TICK_S
from tests.running import RunningServer, connect, eventually

REAL = time.sleep  # A function of a library: no worker has to import this module for it.


def tasks(server: RunningServer) -> list[dict[str, str]]:
    with (server.folder / "profiling" / f"tasks_{server.workers}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def counts(rows: list[dict[str, str]]) -> dict[tuple[str, str], int]:
    """How many functions of each name and status."""
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[row["Function"], row["Status"]] += int(row["Count"])
    return dict(found)


def totals_agree(server: RunningServer) -> bool:
    """Whether the rows add up to what the profile has counted."""
    (stop,) = server.rows("stop")
    return sum(int(row["Count"]) for row in tasks(server)) == int(stop["Finished"]) + int(stop["Failed"])


@compute_this
def square(x: int) -> int:
    return x * x


@compute_this
def fail_if_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd\nand the second line is not recorded")
    return x


@compute_this
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@compute_this
def sum_of_squares(count: int) -> int:
    return sum(square(number).run() for number in range(count))


@compute_this
def die() -> None:
    os._exit(3)


def test_every_kind_of_call_is_recorded_once(server: RunningServer):
    with PoolExecutor() as pool:
        square(3).run()
        assert list(pool.map(square, range(1000))) == [x * x for x in range(1000)]
        assert [future.result() for future in [pool.submit(square, x) for x in range(50)]][-1] == 49 * 49
        with pytest.raises(ValueError, match="is odd"):
            list(pool.map(fail_if_odd, range(10), chunksize=10))
        with pytest.raises(TaskTimeout):
            sleep(60).run(timeout=0.2)
        with pytest.raises(WorkerLost):
            die().run()
        running = sleep(60).submit()
        eventually(lambda: any(worker["running"] for worker in server.status()["workers"]), "it runs")
        assert running.kill()
        with pytest.raises(CancelledError):
            running.result()
    with server.connect() as scheduler:
        port = scheduler.root.acquire_worker()
        with connect(port) as worker:
            worker.root.run_code("def hello():\n    return 5\nresult = hello()")
        scheduler.root.free_worker(port)
    server.stop()
    assert counts(tasks(server)) == {
        ("square", "done"): 1051,
        ("fail_if_odd", "done"): 5,
        ("fail_if_odd", "failed"): 5,
        ("sleep", "timeout"): 1,
        ("sleep", "killed"): 1,
        ("die", "lost"): 1,
        ("hello", "done"): 1,
    }
    assert totals_agree(server)
    errors = {row["Status"]: row["Error"] for row in tasks(server) if row["Error"]}
    assert errors == {
        "failed": "ValueError: 1 is odd",
        "timeout": "TaskTimeout: its function did not end within 0.2 s",
        "killed": "CancelledError: its caller has had its function killed",
        "lost": "WorkerLost: exit code 3",
    }


def test_tasks_of_tasks_are_recorded_where_they_run_and_counted(start_server: Callable[..., Any]):
    """With one worker all run in place: nobody but the worker itself knows of them."""
    server = start_server(1)
    assert sum_of_squares.__wrapped__  # It is sent by its name, and its calls are to the pool that runs it.
    with PoolExecutor(server.address) as pool:
        assert pool.submit(sum_of_squares, 4).result() == 14
    eventually(lambda: server.status()["finished"] == 5, "those that ran in place are counted")
    server.stop()
    rows = tasks(server)
    assert counts(rows) == {("square", "done"): 4, ("sum_of_squares", "done"): 1}
    assert totals_agree(server)
    (outer,) = (row for row in rows if row["Function"] == "sum_of_squares")
    for row in rows:
        assert (
            float(outer["Started"]) <= float(row["Started"]) <= float(row["Ended"]) <= float(outer["Ended"])
        )


@compute_this
async def waits_for_tasks(count: int) -> list[int]:
    return await asyncio.gather(*(waits_and_gives(number) for number in range(count)))


@compute_this
async def waits_and_gives(number: int) -> int:
    await asyncio.sleep(0.01)
    sys.stdout.write(f"given {number}\n")
    return number


def test_a_coroutine_waits_for_tasks_that_run_in_place(
    start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COMPUTE_SERVER", start_server(1).address)
    assert waits_for_tasks(3).run() == [0, 1, 2]
    assert capsys.readouterr().out == "given 0\ngiven 1\ngiven 2\n"


def test_rows_say_for_whom_and_when(server: RunningServer):
    before = time.time()
    sleep(0.1).run()
    server.stop()
    (row,) = tasks(server)
    assert row["Client"].endswith(f":{os.getpid()}")
    assert int(row["Worker"]) in server.ports
    queued, started, ended = (float(row[name]) for name in ("Queued", "Started", "Ended"))
    assert before - 1 <= queued <= started
    assert 0.1 <= float(row["Seconds"]) <= ended - started
    assert int(row["Sent"]) > 0
    assert int(row["Returned"]) > 0


def test_a_row_has_the_name_that_the_function_has_then(server: RunningServer):
    def work() -> str:
        return work.__qualname__

    with PoolExecutor(server.address) as executor:
        assert executor.submit(work).result().endswith("<locals>.work")
        work.__qualname__ = "fit"
        assert executor.submit(work).result() == "fit"
    decorated = compute_this(server=server.address)(work)
    work.__qualname__ = "predict"
    assert decorated().run() == "predict"
    server.stop()
    assert [row["Function"].rpartition(".")[2] for row in tasks(server)] == ["work", "fit", "predict"]


def test_the_status_says_what_runs_and_for_whom(server: RunningServer):
    running = sleep(60).submit()
    eventually(lambda: any(worker["running"] for worker in server.status()["workers"]), "it runs")
    ((found,),) = [worker["running"] for worker in server.status()["workers"] if worker["running"]]
    assert found["function"] == "sleep"
    assert found["client"].endswith(f":{os.getpid()}")
    assert abs(time.time() - found["since"]) < 60
    running.kill()


def test_a_worker_that_is_killed_leaves_what_it_ran(server: RunningServer):
    with PoolExecutor() as pool:
        done = [pool.submit(square, x) for x in range(20)]
        assert [future.result() for future in done]
        running = pool.submit(sleep, 60)
        busy = eventually(
            lambda: [worker for worker in server.status()["workers"] if worker["running"]], "it runs"
        )
        os.kill(busy[0]["pid"], signal.SIGKILL)
        with pytest.raises(WorkerLost):
            running.result()
    server.stop()
    assert counts(tasks(server)) == {("square", "done"): 20, ("sleep", "lost"): 1}
    assert totals_agree(server)


@compute_this
def down(levels: int) -> int:
    if not levels:
        os.kill(os.getpid(), signal.SIGKILL)
    return further_down(levels - 1).run()


@compute_this
def further_down(levels: int) -> int:
    return down(levels).run()


def test_a_worker_that_is_killed_leaves_all_that_it_ran_however_deep(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    server = start_server(1)
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    with pytest.raises(WorkerLost):
        down(10).run()
    server.stop()
    assert counts(tasks(server)) == {("down", "lost"): 11, ("further_down", "lost"): 10}
    assert totals_agree(server)


def test_what_ran_while_the_server_was_stopped_is_recorded_when_it_goes_on(server: RunningServer):
    count = done = 0
    with PoolExecutor() as pool:
        while done < 5000:  # If its driver had just asked the server for something, less is done meanwhile.
            assert count < 50_000
            futures = [pool.submit(operator.index, 1) for _ in range(10_000)]
            count += len(futures)
            futures[0].result()
            os.kill(server.pid, signal.SIGSTOP)
            try:
                done = len(wait(futures, 5).done)
            finally:
                os.kill(server.pid, signal.SIGCONT)
            assert {future.result() for future in futures} == {1}
    server.idle_status()
    server.stop()
    assert totals_agree(server)
    assert counts(tasks(server)) == {("index", "done"): count}


def test_a_server_that_is_killed_leaves_what_has_ended(server: RunningServer):
    for number in range(5):
        square(number).run()
    eventually(lambda: counts(tasks(server)) == {("square", "done"): 5}, "all is written")
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    assert counts(tasks(server)) == {("square", "done"): 5}


def test_each_row_of_the_profile_says_which_worker_and_how_many_tasks_wait(server: RunningServer):
    with PoolExecutor() as pool:
        futures = [pool.submit(REAL, 0.2) for _ in range(12)]
        eventually(lambda: server.status()["tasks"] > 0, "tasks wait")
        for future in futures:
            future.result()
    eventually(lambda: server.status()["tasks"] == 0, "none waits")
    server.stop()
    rows = [*server.rows(), *server.rows("sample")]
    assert max(int(row["Tasks"]) for row in rows) > 2
    assert {row["Worker"] for row in rows if row["Event"] in ("acquire", "free")} == {"0", "1"}
    assert {row["Worker"] for row in rows if row["Event"] in ("start", "sample", "stop")} == {""}


def test_the_tasks_of_an_executor_count_once_on_however_many_workers(server: RunningServer):
    with PoolExecutor() as pool:
        futures = [pool.submit(REAL, 0.02) for _ in range(40)]
        for future in futures:
            future.result()
    server.idle_status()
    server.stop()
    told = [int(row["Tasks"]) for row in server.rows()]
    assert 0 < max(told) < 40  # Twice as many, if each lane's counted.
    assert told[-1] == 0


def takes_4_ms(number: int) -> int:
    time.sleep(0.004)
    return number


def test_what_ran_beside_a_killed_function_is_counted_as_often_as_it_is_recorded(server: RunningServer):
    """What was sent ahead may begin, or end, while the worker is being killed."""
    with PoolExecutor(prints=False) as pool:
        for round_ in range(15):
            futures = [pool.submit(takes_4_ms, number) for number in range(20)]
            futures[round_].exception()
            futures[round_ + 1].kill()
            wait(futures)
    server.idle_status()
    server.stop()
    assert totals_agree(server)


def test_a_worker_that_is_given_up_counts_one_failed_whatever_it_ran(server: RunningServer):
    assert square(2).run() == 4
    with server.connect() as client:
        for _ in range(3):
            client.root.recycle_worker(client.root.acquire_worker(), "it is not wanted")
    server.stop()
    (stop,) = server.rows("stop")
    assert (stop["Finished"], stop["Failed"]) == ("1", "3")


def test_tasks_that_wait_are_told_while_two_programs_hand_workers_on(server: RunningServer):
    """Whichever connection tells of them, the other ones come and go."""
    with PoolExecutor() as one, PoolExecutor() as other:
        futures = [pool.submit(REAL, 0.02) for _ in range(100) for pool in (one, other)]
        futures[30].result()
        seen = []
        while not futures[-60].done():
            waiting = sum(not future.done() for future in futures)
            seen.append(server.status()["tasks"] / waiting)
    assert 0.5 < statistics.median(seen) < 1.5, seen


def test_to_tell_how_many_tasks_wait_shortens_no_turn(server: RunningServer):
    """A new place in line has the one before it tell the server; the answer says who else waits."""
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        pools = [opened.enter_context(PoolExecutor()) for _ in range(4)]
        for future in [pool.submit(operator.index, 1) for _ in range(1000) for pool in pools]:
            future.result()
    turns = (time.monotonic() - began) / TICK_S * len(server.ports)
    server.idle_status()
    events = [row["Event"] for row in server.rows()]
    assert events.count("acquire") < 6 + 1.5 * turns


def test_a_client_in_line_has_one_task_that_waits(server: RunningServer):
    with server.connect() as holder, server.connect() as waiting:
        for _ in range(2):
            holder.root.acquire_worker()
        answer = rpyc.async_(waiting.root.acquire_worker)()
        server.await_waiting(1)
        assert server.status()["tasks"] == 1
        holder.root.free_worker(server.ports[0])
        answer.wait()
        assert server.status()["tasks"] == 0


def test_the_files_tell_which_worker_ran_what(start_server: Callable[..., Any]):
    """The system has picked the ports."""
    from distribute_challenge.pictures import lanes  # Late: each worker imports this module.
    from distribute_challenge.pictures.reading import read_profile
    from distribute_challenge.pictures.tasks import read_tasks

    server = start_server(6)
    assert server.ports == sorted(server.ports)
    with PoolExecutor(server.address) as pool:
        list(pool.map(REAL, [0.05] * 24, chunksize=1))
    server.stop()
    folder = server.folder / "profiling"
    profile, tasks = read_profile(folder / "results_6.csv"), read_tasks(folder / "tasks_6.csv")
    found = lanes.ports(profile, tasks, None)
    assert found == {port: server.ports.index(port) for port in found}
    assert len(found) > 1


def test_a_server_without_a_profile_writes_no_tasks(start_server: Callable[..., Any], tmp_path: Path):
    server = start_server(1, "--profile", "none")
    with PoolExecutor(server.address) as pool:
        assert pool.submit(square, 3).result() == 9
    assert not list(tmp_path.glob("**/tasks*.csv"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_private_pool_writes_a_profile_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with PoolExecutor("local://1", profile=tmp_path / "mine.csv") as pool:
        assert pool.submit(square, 3).result() == 9
    assert [row["Event"] for row in read(tmp_path / "mine.csv") if row["Event"] != "sample"][-1] == "stop"
    assert [row["Function"] for row in read(tmp_path / "mine.tasks.csv")] == ["square"]
    monkeypatch.setenv("COMPUTE_PROFILE", str(tmp_path / "said.csv"))
    with (
        PoolExecutor("local://1") as pool,
        PoolExecutor("local://1") as other,
        PoolExecutor("local://1") as third,
        ThreadPoolExecutor(3) as threads,
    ):  # Their servers start in the same moment.
        results = threads.map(lambda each: each.submit(square, 3).result(), (pool, other, third))
        assert list(results) == [9, 9, 9]
    assert [len(read(tmp_path / f"said{number}.tasks.csv")) for number in ("", "-2", "-3")] == [1, 1, 1]


def test_a_profile_is_for_private_pools():
    with pytest.raises(ValueError, match="private pool"):
        PoolExecutor("localhost:18811", profile="mine.csv")
    with pytest.raises(ValueError, match="private pool"):
        compute_this(profile="mine.csv")


def test_an_executors_options_are_those_of_its_calls_unless_a_function_has_its_own(server: RunningServer):
    with PoolExecutor(timeout=0.3, retries=1) as pool:
        with pytest.raises(TaskTimeout, match=r"0\.3 s"):
            pool.submit(REAL, 60).result()
        longer = compute_this(timeout=0.5)(sleep.__wrapped__)
        with pytest.raises(TaskTimeout, match=r"0\.5 s"):
            pool.submit(longer, 60).result()
