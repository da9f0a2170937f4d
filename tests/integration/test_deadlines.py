"""Time limits, killing, retries; and what is said of a worker that died."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, WorkerLost, compute_this
from distribute_challenge.address import Address
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.shipping import shipment_of
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.running import lone
from tests.running import HANG_S, RunningServer, eventually, is_running


@compute_this
def sleeps(seconds):
    time.sleep(seconds)
    return seconds


@compute_this
def pid():
    return os.getpid()


def holds_the_interpreter():
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")


@pytest.mark.parametrize("how", ["run", "submit", "decorator"])
def test_a_function_that_takes_too_long_is_killed(server: RunningServer, how: str):
    pids = server.worker_pids()
    began = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"sleeps did not end within 0.3 s: it was killed") as caught:
        if how == "run":
            sleeps(60).run(timeout=0.3)
        elif how == "submit":
            sleeps(60).submit(timeout=0.3).result(HANG_S)
        else:
            compute_this(timeout=0.3)(sleeps.__wrapped__)(60).run()
    assert time.monotonic() - began < 10
    assert isinstance(caught.value, TimeoutError)
    server.await_busy([0, 0])
    assert sum(is_running(pid) for pid in pids) == 1


@compute_this(timeout=0.02)
def tells_how_long_it_runs(path, _=b""):
    began = time.perf_counter()
    with open(path, "w", buffering=1) as file:
        while (seconds := time.perf_counter() - began) < 60:
            file.write(f"{seconds}\n")
            time.sleep(0.001)


@pytest.mark.parametrize("how", ["run", "submit", "map", "run, with a large argument"])
def test_limits_hold_that_are_shorter_than_the_pace_at_which_clients_look(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, how: str, tmp_path: Path
):
    """They look every 0.1 s. On a busy machine the kill may come late: then this tries again."""
    monkeypatch.setenv("COMPUTE_SERVER", start_server(1).address)
    path = tmp_path / "seconds"

    def is_killed_in_time() -> bool:
        pid().run()  # To import this module takes a new worker longer.
        with pytest.raises(TaskTimeout):
            if how == "run":
                tells_how_long_it_runs(path).run()
            elif how == "submit":
                tells_how_long_it_runs(path).submit().result(HANG_S)
            elif how == "map":
                list(tells_how_long_it_runs.map([path]))
            else:
                tells_how_long_it_runs(path, bytes(1 << 20)).run()
        seconds = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return bool(seconds) and float(seconds[-1]) < 0.06

    eventually(is_killed_in_time, "the limit holds")


def test_also_one_that_holds_the_interpreter(server: RunningServer):
    with pytest.raises(TaskTimeout):
        compute_this(timeout=0.2)(holds_the_interpreter)().run()
    server.await_busy([0, 0])


def test_waiting_in_line_does_not_count(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    server = start_server(1)
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    slow = sleeps(1).submit()
    eventually(slow.running, "it runs")
    assert sleeps(0.01).run(timeout=0.5) == 0.01
    assert slow.result(HANG_S) == 1
    assert [future.result(HANG_S) for future in [sleeps(0.2).submit(timeout=0.5) for _ in range(6)]] == [
        0.2
    ] * 6


@pytest.mark.parametrize("wrong", [0, -1, "5", float("nan")])
def test_a_time_limit_that_makes_no_sense_is_refused(wrong: object):
    with pytest.raises(ValueError, match="timeout is a number of seconds"):
        compute_this(timeout=wrong)  # type: ignore[call-overload]


def test_a_running_function_can_be_killed(server: RunningServer):
    future = sleeps(60).submit()
    eventually(future.running, "it runs")
    assert future.kill()
    with pytest.raises(CancelledError, match="sleeps was killed, as its caller wished"):
        future.result(HANG_S)
    server.await_busy([0, 0])
    assert not future.kill()
    with PoolExecutor() as pool:
        futures = [pool.submit(sleeps.__wrapped__, 60) for _ in range(3)]
        eventually(lambda: futures[0].running() and futures[1].running(), "two run")
        assert all(map(pool.kill, futures))
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(HANG_S)
    assert pid().run() in server.worker_pids()


def runs(server: RunningServer) -> bool:
    """Whether a function runs: a worker that is leased may not have it yet."""
    return any(worker["running"] for worker in server.status()["workers"])


def test_an_awaited_call_that_is_cancelled_is_killed(server: RunningServer):
    async def call() -> None:
        pids = server.worker_pids()
        assert await pid() in pids
        calling = asyncio.ensure_future(sleeps(60))
        await asyncio.to_thread(eventually, lambda: runs(server), "it runs")
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.to_thread(eventually, lambda: sum(map(is_running, pids)) == 1, "its worker is killed")
        with pytest.raises(asyncio.TimeoutError):  # The built-in one only from Python 3.11 on.
            await asyncio.wait_for(sleeps(60), 0.2)

    asyncio.run(call())
    server.await_busy([0, 0])


def dies_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def raises_and_counts(path):
    with open(path, "a") as file:
        file.write("x")
    raise ValueError("no")


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_task_is_run_again_only_if_its_worker_was_lost(
    used_server: RunningServer, tmp_path: Path, how: str
):
    def do(function: Callable[[str], str], name: str, retries: int) -> str:
        call = compute_this(retries=retries)(function)(str(tmp_path / name))
        return call.run() if how == "run" else call.submit().result(HANG_S)

    with pytest.raises(WorkerLost):
        do(dies_once, "a", 0)
    assert do(dies_once, "b", 1) == "alive"
    with pytest.raises(ValueError, match="no"):
        do(raises_and_counts, "c", 5)
    assert (tmp_path / "c").read_text() == "x"


def crashes(how):
    for number in range(30):
        print("line", number)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "words"), [("segfault", "SIGSEGV"), ("exit", "exit code 7"), ("kill", "SIGKILL")]
)
def test_the_loss_of_a_worker_says_what_is_known(server: RunningServer, how: str, words: str):
    started = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        compute_this(crashes)(how).run()
    text = str(caught.value)
    assert f"died while it ran crashes: {words}" in text or f"killed by {words}" in text
    assert "line 29" in text
    assert "line 9\n" not in text  # The last 20 lines.
    assert ("string_at" in text) == (how == "segfault")
    server.await_busy([0, 0])
    assert time.monotonic() - started < 10


def grows():
    hoard = []
    while True:
        hoard.append(b"x" * (10 << 20))
        time.sleep(0.01)


def test_a_worker_that_takes_too_much_memory_is_killed_and_its_caller_told(
    start_server: Callable[..., RunningServer],
):
    server = start_server(2, "--memory-limit", "300M", "--interval", "0.1")
    on_server = compute_this(server=server.address)
    with pytest.raises(WorkerLost, match=r"it took \d+ MiB, and --memory-limit is 300 MiB"):
        on_server(grows)().run()
    assert on_server(sleeps.__wrapped__)(0.01).run() == 0.01


def shares_with_children(folder):
    block = bytearray(150 << 20)
    block[::4096] = b"x" * len(block[::4096])  # So that it has all of its pages.
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            sum(block[::4096])
            (folder / str(os.getpid())).touch()
            signal.pause()
    while not (folder / "go on").exists():
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


def test_memory_that_child_processes_share_counts_once(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server = start_server(1, "--memory-limit", "400M", "--interval", "0.1")
    on_server = compute_this(server=server.address)
    children = tmp_path / "children"
    children.mkdir()
    future = on_server(shares_with_children)(children).submit()
    eventually(lambda: len(list(children.iterdir())) == 4, "the children have read it")

    def resident() -> list[int]:
        """Of each sample that was taken since; the last one may not have been looked at yet."""
        memory = [json.loads(row["Memory"])[0] or 0 for row in server.rows("sample")[:-1]]
        return [taken for taken in memory if taken > 500 << 20]

    eventually(lambda: len(resident()) >= 2 or future.done(), "there are samples")
    (children / "go on").touch()
    assert future.result(HANG_S) == 4


def test_a_worker_is_replaced_after_so_many_functions(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--max-tasks", "3")
    on_server = compute_this(server=server.address)(pid.__wrapped__)
    pids = [on_server().run() for _ in range(9)]
    assert [pids.count(one) for one in dict.fromkeys(pids)] == [3, 3, 3]
    status = server.idle_status()
    assert (status["finished"], status["failed"]) == (9, 0)
    with PoolExecutor(server.address) as pool:
        ran = [future.result(HANG_S) for future in [pool.submit(pid.__wrapped__) for _ in range(12)]]
        assert max(map(ran.count, ran)) <= 3
        # A stream learns of the functions that ran before it only when it gives the worker back.
        assert len(set(pool.map(which, range(12)))) >= 3


def which(_):
    return os.getpid()


def marks(path, number):
    with open(path, "a") as file:
        file.write(f"{number}\n")
    time.sleep(0.002)
    if number == 300:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_of_tasks_sent_ahead_only_the_one_that_ran_is_lost(used_server: RunningServer, tmp_path: Path):
    path = str(tmp_path / "marks")
    with PoolExecutor() as pool:
        futures = [pool.submit(marks, path, number) for number in range(600)]
        ends = [future.exception(HANG_S) for future in futures]
    lost = [number for number, end in enumerate(ends) if end is not None]
    assert lost == [300]
    assert isinstance(ends[300], WorkerLost)
    ran = [int(line) for line in Path(path).read_text().split()]
    assert sorted(ran) == list(range(600))  # Each once.


def test_a_stream_of_tasks_leaves_workers_to_others(used_server: RunningServer):
    """A lone call of another client gets its turn while a stream has work for minutes."""
    with PoolExecutor() as pool:
        futures = [pool.submit(sleeps.__wrapped__, 0.01) for _ in range(20_000)]
        eventually(futures[10].done, "the stream is under way")
        began = time.monotonic()
        with PoolExecutor() as other:
            assert other.submit(pow, 2, 5).result(HANG_S) == 32
        assert not futures[-1].done()
        assert time.monotonic() - began < 20
        pool.shutdown(wait=False, cancel_futures=True)


def test_a_first_answer_that_was_slow_does_not_loosen_limits_for_ever(server: RunningServer):
    """Two round trips are added to each, of which the first is measured when the machine may be busy."""
    connections = Connections(Address.parse(server.address))
    connections.facts()
    connections.distance = Distance()
    connections.distance.note(0.3)
    lone.run(connections, "abs", shipment_of(abs).parcel((-1,), {}), Options())
    assert connections.distance.round_trip_s < 0.3
    connections.close()


if sys.platform != "linux":
    pytest.skip("processes are killed in ways that only Linux has", allow_module_level=True)
