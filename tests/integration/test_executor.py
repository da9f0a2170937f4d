"""`PoolExecutor` beside `concurrent.futures.ProcessPoolExecutor`: the same tests hold for both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import gc
import importlib
import io
import itertools
import multiprocessing
import operator
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, Executor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from distribute_challenge import (
    PoolError,
    PoolExecutor,
    ServerUnavailable,
    TaskTimeout,
    WorkerLost,
    compute_this,
    progress,
)
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.running.driver import Driver
from tests.running import HANG_S, ROOT, RunningServer, eventually, free_port

MakeExecutor = Callable[..., Executor]
prepared = "nothing"


@pytest.fixture
def address(used_server: RunningServer) -> str:
    return used_server.address


@pytest.fixture(params=["ours", "dask", "processes"])
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    """Makes executors of two workers."""
    if request.param == "dask":
        return functools.partial(PoolExecutor, request.getfixturevalue("cluster").address)
    if request.param == "ours":
        address = request.getfixturevalue("address")
        return lambda **options: PoolExecutor(address, **{"max_workers": 2, **options})
    # It imports this module, with all that the tests need, once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return lambda **options: concurrent.futures.ProcessPoolExecutor(
        **{"max_workers": 2, "mp_context": context, **options}
    )


def takes(seconds, x):
    time.sleep(seconds)
    return x


def square(x):
    return x * x


def add(a, b, *, c=0):
    return a + b + c


def raises(kind, *args):
    raise kind(*args)


def sleeps(seconds):
    time.sleep(seconds)
    return seconds


def waits_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):  # noqa: PTH110  It is to be quick.
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return path


def prepare(value):
    global prepared
    prepared = value


def fails_to_prepare():
    raise ValueError("not today")


def what_is_prepared(_):
    return prepared


class Thing:
    """Something that can be watched."""


def forget(thing):
    return type(thing).__name__


def test_submit_with_arguments_of_every_kind(make: MakeExecutor):
    with make() as executor:
        assert executor.submit(square, 5).result(HANG_S) == 25
        assert executor.submit(add, 1, b=2, c=3).result(HANG_S) == 6
        assert executor.submit(pow, 2, 5).result(HANG_S) == 32


def test_an_exception_is_the_futures(make: MakeExecutor):
    with make() as executor:
        future = executor.submit(raises, KeyError, "k")
        error = future.exception(HANG_S)
        assert type(error) is KeyError
        assert error.args == ("k",)
        assert "raise kind(*args)" in str(error.__cause__)
        with pytest.raises(KeyError):
            future.result()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_the_futures_too(make: MakeExecutor, kind: type[BaseException]):
    with make() as executor:
        assert type(executor.submit(raises, kind).exception(HANG_S)) is kind
        assert executor.submit(square, 2).result(HANG_S) == 4


def test_what_cannot_be_pickled_is_the_futures_error(make: MakeExecutor):
    with make() as executor:
        assert isinstance(executor.submit(square, threading.Lock()).exception(HANG_S), TypeError)
        assert executor.submit(square, 2).result(HANG_S) == 4


def test_map_keeps_the_order_and_stops_at_the_shortest(make: MakeExecutor):
    with make() as executor:
        assert list(executor.map(square, range(50))) == [x * x for x in range(50)]
        assert list(executor.map(pow, [2, 3, 4], [1, 2])) == [2, 9]
        assert list(executor.map(square, range(50), chunksize=7)) == [x * x for x in range(50)]
        assert list(executor.map(square, [])) == []


def test_map_raises_at_the_place_of_the_item(make: MakeExecutor):
    with make() as executor:
        results = executor.map(operator.truediv, [4, 4, 4], [1, 2, 0])
        assert [next(results), next(results)] == [4, 2]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_has_a_time_limit(make: MakeExecutor, tmp_path: Path):
    gate = tmp_path / "gate"
    with make() as executor:
        executor.submit(square, 1).result(HANG_S)
        results = executor.map(waits_for, [str(gate)], timeout=0.2)
        with pytest.raises((TimeoutError, concurrent.futures.TimeoutError)):  # One and the same since 3.11.
            next(results)
        gate.touch()


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_are_checked(make: MakeExecutor, size: int):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make(max_workers=size)
    with make() as executor, pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=size)


def test_wait_and_as_completed(make: MakeExecutor, tmp_path: Path):
    gate = tmp_path / "gate"
    with make() as executor:
        slow, quick = executor.submit(waits_for, str(gate)), executor.submit(square, 3)
        done, waiting = concurrent.futures.wait([slow, quick], HANG_S, FIRST_COMPLETED)
        assert (done, waiting) == ({quick}, {slow})
        assert not slow.done()
        ended = concurrent.futures.as_completed([slow, quick], HANG_S)
        assert next(ended) is quick  # Of those that have ended before, the order says nothing.
        gate.touch()
        assert next(ended) is slow
        assert concurrent.futures.wait([slow, quick], HANG_S, ALL_COMPLETED).not_done == set()


def test_callbacks_are_called_with_the_future(make: MakeExecutor):
    called: list[Any] = []
    with make() as executor:
        future = executor.submit(square, 3)
        future.add_done_callback(called.append)
    assert called == [future]


def test_who_waits_can_be_cancelled(make: MakeExecutor, tmp_path: Path):
    gate = tmp_path / "gate"
    with make() as executor:
        futures = [executor.submit(waits_for, str(gate)) for _ in range(20)]
        eventually(lambda: futures[0].running(), "the first runs")
        assert not futures[0].cancel()
        assert futures[-1].cancel()
        gate.touch()
        with pytest.raises(CancelledError):
            futures[-1].result(HANG_S)
        assert {future.result(HANG_S) for future in futures[:-1]} == {str(gate)}


def test_shutdown_waits_and_then_takes_no_more(make: MakeExecutor):
    executor = make()
    futures = [executor.submit(sleeps, 0.05) for _ in range(6)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def test_shutdown_can_go_on_in_the_background_and_drop_who_waits(make: MakeExecutor, tmp_path: Path):
    gate = tmp_path / "gate"
    executor = make()
    futures = [executor.submit(waits_for, str(gate)) for _ in range(20)]
    eventually(lambda: futures[0].running(), "the first runs")
    executor.shutdown(wait=False, cancel_futures=True)
    eventually(futures[-1].done, "the last has ended")
    assert futures[-1].cancelled(), futures
    gate.touch()
    assert futures[0].result(HANG_S) == str(gate)
    executor.shutdown()


def test_an_initializer_runs_first_on_every_worker(make: MakeExecutor):
    with make(initializer=prepare, initargs=("ready",)) as executor:
        assert set(executor.map(what_is_prepared, range(20))) == {"ready"}


def test_an_initializer_that_fails_breaks_the_executor(make: MakeExecutor):
    with make(initializer=fails_to_prepare) as executor:
        with pytest.raises(BrokenProcessPool):
            executor.submit(square, 1).result(HANG_S)
        with pytest.raises(BrokenProcessPool):
            executor.submit(square, 1)
        with pytest.raises(BrokenProcessPool):
            executor.map(square, [1])


def test_it_can_be_awaited(make: MakeExecutor):
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, n) for n in range(10)))

    with make() as executor:
        assert asyncio.run(main()) == [n * n for n in range(10)]


def test_nothing_is_kept_of_a_task_that_is_done(make: MakeExecutor):
    with make() as executor:
        thing = Thing()
        watched = weakref.ref(thing)
        assert executor.submit(forget, thing).result(HANG_S) == "Thing"
        del thing
        executor.submit(square, 1).result(HANG_S)
        eventually(lambda: gc.collect() >= 0 and watched() is None, "the argument is gone")


def test_optimizing_with_scipy_gives_the_same_answer(make: MakeExecutor):
    import scipy.optimize  # Late: each worker imports this module.

    with make() as executor:
        options: dict[str, Any] = {"seed": 1, "maxiter": 8, "popsize": 5, "polish": False}
        found = scipy.optimize.differential_evolution(
            rosenbrock, [(0, 2)] * 2, workers=executor.map, updating="deferred", **options
        )
    alone = scipy.optimize.differential_evolution(rosenbrock, [(0, 2)] * 2, updating="deferred", **options)
    assert (found.x == alone.x).all()
    assert found.fun == alone.fun


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def test_a_program_ends_when_its_tasks_have(make: MakeExecutor, address: str, tmp_path: Path):
    kind = "PoolExecutor" if isinstance(make(), PoolExecutor) else "ProcessPoolExecutor"
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from distribute_challenge import PoolExecutor\n"
        "def work(x):\n    time.sleep(0.3)\n    open(str(x), 'w').close()\n"
        f"if __name__ == '__main__':\n    executor = {kind}()\n    executor.submit(work, 1)\n"
        "    executor.submit(work, 2)\n    print('end of the program')\n"
    )
    environment = {**os.environ, "COMPUTE_SERVER": address, "PYTHONPATH": str(ROOT)}
    if kind == "PoolExecutor":  # Its workers are in the server's directory.
        script.write_text(script.read_text().replace("str(x)", f"{str(tmp_path)!r} + '/' + str(x)"))
    result = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("end of the program\n", "", 0)
    assert (tmp_path / "1").exists()
    assert (tmp_path / "2").exists()


# What only ours has


def test_map_takes_its_items_lazily_and_keeps_few(address: str):
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    with PoolExecutor(address) as pool:
        results = pool.map(square, items(), buffersize=100)
        for number in range(1000):
            assert next(results) == number * number
            assert taken <= number + 101
        results.close()  # type: ignore[attr-defined]


def test_map_over_a_million_items(address: str):
    with PoolExecutor(address) as pool:
        assert sum(pool.map(square, range(1_000_000))) == 333332833333500000


def test_map_can_give_results_as_they_come(address: str, tmp_path: Path):
    gate = tmp_path / "gate"
    with PoolExecutor(address) as pool:
        results = pool.map(waits_for, [str(gate), str(tmp_path)], ordered=False, chunksize=1)
        assert next(results) == str(tmp_path)
        gate.touch()
        assert next(results) == str(gate)


def test_map_shows_a_bar(address: str, capsys: pytest.CaptureFixture[str]):
    with PoolExecutor(address) as pool:
        assert list(pool.map(square, range(10), progress=True)) == [x * x for x in range(10)]
    assert "10/10" in capsys.readouterr().err


def test_the_bar_counts_what_has_finished_and_not_what_was_read(
    address: str, capsys: pytest.CaptureFixture[str]
):
    with PoolExecutor(address) as pool:
        results = pool.map(square, range(10), chunksize=1, progress=True)
        shown = ""

        def is_full() -> bool:
            nonlocal shown
            shown += capsys.readouterr().err
            return "10/10" in shown

        eventually(is_full, "all have finished")
        assert list(results) == [x * x for x in range(10)]


def says_which(x):
    print(f"x is {x}")  # noqa: T201
    time.sleep(0.05)


def test_what_functions_print_stands_on_lines_of_its_own_above_a_bar(
    address: str, monkeypatch: pytest.MonkeyPatch
):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    with PoolExecutor(address) as pool:
        list(pool.map(says_which, range(6), chunksize=1, progress=True))
    lines = re.findall(r"(?:^|[\r\n])(x is \d)\n", terminal.getvalue())
    assert sorted(lines) == [f"x is {x}" for x in range(6)]
    assert "6/6" in terminal.getvalue()


def test_a_bar_of_unknown_length_ends_at_its_end(address: str, capsys: pytest.CaptureFixture[str]):
    with PoolExecutor(address) as pool:
        assert sum(pool.map(square, iter(range(10)), progress=True)) == 285
    assert "10/10" in capsys.readouterr().err


def test_a_bar_of_futures_counts_those_that_failed_too(address: str, capsys: pytest.CaptureFixture[str]):
    with PoolExecutor(address) as pool:
        futures = [pool.submit(square, x) for x in (1, 2, "three")]
        progress([*futures, futures[0]], "squares")
        with pytest.raises(TypeError, match="progress takes futures"):
            progress([1])
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            pool.map(abs, [1], timeout="soon")
        assert all(future.done() for future in futures)
    assert re.search(r"squares: 100%.* 3/3 ", capsys.readouterr().err)


def test_without_a_server_every_future_says_so(tmp_path: Path):
    with PoolExecutor("localhost:1") as pool:
        assert isinstance(pool.submit(square, 1).exception(HANG_S), ServerUnavailable)
        with pytest.raises(ServerUnavailable):
            list(pool.map(square, [1]))


def test_a_private_pool_ends_with_its_program(tmp_path: Path):
    """Also when that is killed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\nfrom distribute_challenge import compute_this\n"
        "@compute_this(server='local://2')\ndef pids():\n    return os.getpid(), os.getppid()\n"
        "print(*pids().run(), flush=True)\nsys.stdin.readline()\n"
    )
    for is_killed in (False, True):
        process = subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        if is_killed:
            process.kill()
        process.communicate("\n", timeout=HANG_S)
        eventually(lambda pids=pids: not any(map(exists, pids)), "its server and workers have ended")


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_that_is_not_there_yet_can_be_waited_for(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    port = free_port(2)
    threads = concurrent.futures.ThreadPoolExecutor()
    with PoolExecutor(f"localhost:{port}", wait=HANG_S) as pool, threads:
        waiting = threads.submit(lambda: pool.submit(square, 3).result(HANG_S))
        assert not concurrent.futures.wait([waiting], 0.3).done
        start_server(1, "--port", str(port))
        assert waiting.result(HANG_S) == 9


def test_each_function_says_how_long_it_waits_for_the_server():
    address = f"localhost:{free_port()}"
    hasty, patient = (compute_this(server=address, wait=wait)(square) for wait in (0, 2))
    for call, is_patient in ((hasty, False), (patient, True), (hasty, False)):
        began = time.monotonic()
        with pytest.raises(ServerUnavailable):
            call(3).run()
        assert (time.monotonic() - began >= 2) == is_patient


class Full:
    """A standard output that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device", text)


def says(x):
    print("x is", x)  # noqa: T201
    return x


def test_a_result_is_not_lost_when_nothing_can_be_printed(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with PoolExecutor(address) as pool:
        assert pool.submit(says, 3).result(HANG_S) == 3


def test_an_initializer_that_cannot_be_sent_breaks_the_executor(address: str):
    with PoolExecutor(address, initializer=prepare, initargs=(threading.Lock(),)) as pool:
        error = pool.submit(square, 1).exception(HANG_S)
    assert isinstance(error, BrokenProcessPool)
    assert "argument 1" in str(error)


def test_nothing_is_kept_of_callables_and_finished_futures(address: str):
    with PoolExecutor(address) as pool:
        thing = Thing()
        watched = weakref.ref(thing)
        futures = [pool.submit(functools.partial(forget, thing)), pool.submit(forget, thing)]
        assert [future.result(HANG_S) for future in futures] == ["Thing"] * 2
        assert list(pool.map(forget, [thing])) == ["Thing"]
        del thing
        eventually(lambda: gc.collect() >= 0 and watched() is None, "the argument is gone")


def test_map_delivers_what_came_before_an_error_of_its_items(address: str):
    def items() -> Iterator[Any]:
        yield from range(50)
        raise LookupError("no more")

    with PoolExecutor(address) as pool:
        results = pool.map(square, items(), buffersize=4)
        assert [next(results) for _ in range(50)] == [x * x for x in range(50)]
        with pytest.raises(LookupError):
            next(results)
        results = pool.map(square, [1, 2, threading.Lock(), 4])
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(TypeError):
            next(results)
        found = list(pool.map(square, [1, threading.Lock(), 4], return_exceptions=True))
        assert (found[0], type(found[1]).__name__, found[2]) == (1, "TaskNotSendable", 16)


def test_map_returns_the_loss_of_a_worker_too(address: str):
    with PoolExecutor(address) as pool:
        found = list(pool.map(exits_at_five, range(10), chunksize=1, return_exceptions=True))
    assert [type(end).__name__ if number == 5 else end for number, end in enumerate(found)] == [
        "WorkerLost" if number == 5 else number for number in range(10)
    ]


def exits_at_five(x):
    if x == 5:
        os._exit(3)
    return x


def test_an_executor_works_in_a_forked_child(address: str):
    with PoolExecutor(address) as pool:
        assert pool.submit(square, 2).result(HANG_S) == 4
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if pool.submit(square, 3).result(HANG_S) == 9 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.submit(square, 4).result(HANG_S) == 16


def test_a_forked_child_may_leave_the_block_of_its_parents_executor(address: str, tmp_path: Path):
    gate = tmp_path / "gate"
    with PoolExecutor(address) as pool:
        future = pool.submit(waits_for, str(gate))
        eventually(future.running, "it runs")
        child = os.fork()
        if child == 0:
            try:
                pool.shutdown()
                os._exit(0)
            finally:
                os._exit(2)
        try:
            _, status = eventually(lambda: ended(child), "the child has ended", 10)
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            gate.touch()
        assert os.waitstatus_to_exitcode(status) == 0
        assert future.result(HANG_S) == str(gate)


def ended(child: int) -> tuple[int, int] | None:
    pid, status = os.waitpid(child, os.WNOHANG)
    return (pid, status) if pid else None


def uses_an_executor(seconds):
    with PoolExecutor() as pool:
        future = pool.submit(takes, seconds, "done")
    return future.done() and future.result()


def test_an_executor_in_a_function_waits_for_its_tasks_at_its_end(address: str):
    with PoolExecutor(address) as pool:
        assert pool.submit(uses_an_executor, 0.5).result(HANG_S) == "done"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes from Python 3.11 on")
def test_an_exception_from_a_map_says_which_call_it_was(address: str):
    with PoolExecutor(address) as pool:
        for size in (1, 3):
            _, *found = pool.map(divmod, [1, 2, 3], [1, 0, 0], chunksize=size, return_exceptions=True)
            assert [error.__notes__ for error in found] == [
                ["item 1 of the map: divmod(2, 0)"],
                ["item 2 of the map: divmod(3, 0)"],
            ]
            assert [(error.__cause__.item, error.__cause__.call) for error in found] == [
                (1, "divmod(2, 0)"),
                (2, "divmod(3, 0)"),
            ]
        _, error = pool.map(abs, [-1, threading.Lock()], return_exceptions=True)
        assert error.__notes__[0].startswith("item 1 of the map: abs(<unlocked")
        lost = pool.map(os._exit, [1, 1], chunksize=2, return_exceptions=True)
        assert next(lost).__notes__ == ["items 0 to 1 of the map"]
    with PoolExecutor(address, timeout=0.3) as pool:
        _, error = pool.map(takes, [0, 60], [1, 2], return_exceptions=True)
        assert error.__notes__ == ["item 1 of the map: takes(60, 2)"]


def make_in_one_process(process):
    if os.getpid() != process:
        raise ValueError("not here")
    return process


class OnlyThere:
    """A value that only the process can make which sends it."""

    def __init__(self, x):
        self.x = x

    def __reduce__(self):
        return make_in_one_process, (os.getpid(),)


def gives_one_that_cannot_be_made_here(x):
    if x == 1:
        raise KeyError(x)
    return OnlyThere(x) if x == 2 else x


def test_a_value_that_cannot_be_made_here_fails_its_item_alone(address: str):
    """As that of one which raised: some other item of its chunk did."""
    with PoolExecutor(address) as pool:
        found = list(
            pool.map(gives_one_that_cannot_be_made_here, range(5), chunksize=5, return_exceptions=True)
        )
        assert [type(value) for value in found] == [int, KeyError, ValueError, int, int]


def test_a_private_pool_whose_server_was_killed_is_there_again():
    with PoolExecutor("local://1", initializer=prepare, initargs=("ready",)) as pool:
        assert pool.submit(what_is_prepared, 0).result(HANG_S) == "ready"
        for call in (
            lambda: pool.submit(what_is_prepared, 0).result(HANG_S),
            lambda: next(pool.map(what_is_prepared, [0])),
        ):
            worker = psutil.Process(pool.submit(os.getpid).result(HANG_S))
            (server,) = [parent for parent in worker.parents() if parent.ppid() == os.getpid()]
            server.kill()
            worker.wait(HANG_S)
            assert call() == "ready"
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(os.getpid)


def test_private_pools_end_with_their_executors(tmp_path: Path):
    dropped, shut = PoolExecutor("local://1"), PoolExecutor("local://1")
    pids = [pool.submit(os.getpid).result(HANG_S) for pool in (dropped, shut)]
    shut.shutdown(wait=False)
    slow = dropped.submit(sleeps, 0.3)
    del dropped
    gc.collect()
    assert slow.result(HANG_S) == 0.3
    gc.collect()
    eventually(lambda: not any(map(exists, pids)), "their workers have ended")


def says_and_waits(path):
    print("before", flush=True)  # noqa: T201
    print("to stderr", file=sys.stderr)  # noqa: T201
    return waits_for(path)


@pytest.mark.parametrize("how", ["run", "submit"])
def test_what_a_function_prints_appears_while_it_runs(address: str, tmp_path: Path, how: str):
    gate = tmp_path / "gate"
    out, err = io.StringIO(), io.StringIO()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        task = compute_this(server=address)(says_and_waits)(str(gate))
        if how == "run":
            with concurrent.futures.ThreadPoolExecutor() as threads:
                future: Any = threads.submit(task.run)
                eventually(lambda: "before\n" in out.getvalue(), "its output is here")
                assert not future.done()
                gate.touch()
        else:
            future = task.submit()
            eventually(lambda: "before\n" in out.getvalue(), "its output is here")
            assert not future.done()
            gate.touch()
        assert future.result(HANG_S) == str(gate)
    finally:
        sys.stdout, sys.stderr = streams
    assert (out.getvalue(), err.getvalue()) == ("before\n", "to stderr\n")


def stops_at_three(x, y=0):
    if x == 3:
        raise StopIteration("three")
    return x + y


@pytest.mark.parametrize("chunksize", [None, 1, 4, 100])
@pytest.mark.parametrize("others", [(), (range(10),)], ids=["one iterable", "two"])
def test_every_result_of_a_map_belongs_to_its_item(
    address: str, chunksize: int | None, others: tuple[Any, ...]
):
    with PoolExecutor(address) as pool:
        results = list(
            pool.map(stops_at_three, range(10), *others, chunksize=chunksize, return_exceptions=True)
        )
    stop = results.pop(3)
    assert isinstance(stop, StopIteration)
    assert stop.args == ("three",)
    factor = 2 if others else 1
    assert results == [factor * number for number in range(10) if number != 3]


def touch(path: str) -> str:
    Path(path).touch()
    return path


def test_all_items_of_a_map_run_whether_or_not_anybody_takes_the_results(
    used_server: RunningServer, tmp_path: Path
):
    paths = [str(tmp_path / f"item{number}") for number in range(500)]
    with PoolExecutor() as pool:
        results = pool.map(touch, paths)
        eventually(lambda: len(list(tmp_path.glob("item*"))) == 500, "all have run, with nobody looking")
    assert list(results) == paths  # They can be had after the end, too.


def test_shutdown_waits_for_all_items_of_a_map(used_server: RunningServer, tmp_path: Path):
    paths = [str(tmp_path / f"item{number}") for number in range(500)]
    pool = PoolExecutor()
    results = pool.map(touch, paths)
    pool.shutdown()
    assert len(list(tmp_path.glob("item*"))) == 500
    assert list(results) == paths
    pool = PoolExecutor()
    results = pool.map(takes, [0.01] * 300, range(300))
    pool.shutdown(wait=False)
    assert list(results) == list(range(300))


def test_shutdown_can_drop_the_items_that_have_not_begun(server: RunningServer, tmp_path: Path):
    pool = PoolExecutor()
    results = pool.map(takes, [0.05] * 1000, range(1000), chunksize=1)
    pool.shutdown(cancel_futures=True)
    with pytest.raises(concurrent.futures.CancelledError):
        list(results)
    server.await_busy([0, 0])


@pytest.mark.parametrize("how", [{"buffersize": 10}, {}])
def test_a_lazy_map_ends_with_what_there_is_or_an_error_after_shutdown(
    used_server: RunningServer, how: dict[str, Any]
):
    pool = PoolExecutor()
    items = range(1000) if how else iter(range(1000))
    results = pool.map(square, items, chunksize=1, **how)
    first = [next(results) for _ in range(3)]
    pool.shutdown()
    found = []
    with pytest.raises(RuntimeError, match="after shutdown"):
        found.extend(results)
    assert [*first, *found] == [number**2 for number in range(len(first) + len(found))]


def test_ctrl_c_ends_a_map_whose_results_nobody_takes(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # As if what ran had just ended by itself, so that there is nothing to kill.
    monkeypatch.setattr(Driver, "kill_all", lambda _: None)
    paths = [str(tmp_path / f"item{number}") for number in range(5000)]

    def interrupted() -> None:
        with PoolExecutor() as pool:
            pool.map(touch, paths, chunksize=1)
            eventually(lambda: list(tmp_path.glob("item*")), "some have run")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(tmp_path.glob("item*"))) < 5000
    server.await_busy([0, 0])


def raises_cancelled(number: int) -> None:
    raise concurrent.futures.CancelledError(number)


def test_a_functions_own_cancelled_error_is_an_exception_like_others(used_server: RunningServer):
    with PoolExecutor() as pool:
        future = pool.submit(raises_cancelled, 3)
        with pytest.raises(concurrent.futures.CancelledError, match="3"):
            future.result(HANG_S)
        assert not future.cancelled()


def test_a_map_whose_results_nobody_takes_any_more_goes_no_further(
    used_server: RunningServer, tmp_path: Path
):
    with PoolExecutor() as pool:
        results = pool.map(touch, [str(tmp_path / f"item{number}") for number in range(5000)], chunksize=1)
        next(results)
        results.close()
    assert len(list(tmp_path.glob("item*"))) < 2500


def test_items_that_run_code_are_taken_at_the_call(used_server: RunningServer):
    threads = set()

    class Items:
        def __len__(self) -> int:
            return 300

        def __iter__(self) -> Iterator[int]:
            for number in range(300):
                threads.add(threading.current_thread())
                yield number

    with PoolExecutor() as pool:
        results = pool.map(square, Items())
    assert list(results) == [number**2 for number in range(300)]
    assert threads == {threading.current_thread()}


def test_a_callback_may_shut_the_executor_down(used_server: RunningServer):
    pool = PoolExecutor()
    futures = [pool.submit(takes, 0.2, number) for number in range(6)]
    futures[0].add_done_callback(lambda _: pool.shutdown())
    assert [future.result(HANG_S) for future in futures] == list(range(6))


def test_a_server_that_ends_ends_a_map_that_nobody_looks_at(start_server: Callable[..., RunningServer]):
    server = start_server(1)
    pool = PoolExecutor(server.address)
    results = pool.map(takes, [0.1] * 10_000, range(10_000), chunksize=1)
    server.await_busy([1])
    server.close()
    pool.shutdown()  # It returns.
    with pytest.raises(PoolError):
        list(results)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    number: int


def fails_at(bad: int, number: int) -> int:
    if number == bad:
        raise FrozenError(number)
    return number


def test_an_exception_that_takes_no_attributes_arrives_and_costs_no_other_item(used_server: RunningServer):
    with PoolExecutor() as pool:
        error = pool.submit(fails_at, 3, 3).exception(HANG_S)
        assert error == FrozenError(3)
        assert isinstance(error.__cause__, Exception)
        assert "fails_at" in str(error.__cause__)
        found = list(pool.map(fails_at, [2] * 5, range(5), chunksize=5, return_exceptions=True))
    assert found == [0, 1, FrozenError(2), 3, 4]


def put(queue: Any, lock: Any, value: int) -> None:
    with lock:
        queue.put(value)


def test_what_a_manager_shares_can_be_used_on_workers(used_server: RunningServer):
    with multiprocessing.get_context("spawn").Manager() as manager, PoolExecutor() as pool:
        queue, lock, event = manager.Queue(), manager.Lock(), manager.Event()
        list(pool.map(put, [queue] * 5, [lock] * 5, range(5)))
        assert sorted(queue.get(timeout=HANG_S) for _ in range(5)) == list(range(5))
        assert not pool.submit(event.is_set).result(HANG_S)
        pool.submit(event.set).result(HANG_S)
        assert event.is_set()


def test_a_decorated_functions_own_options_hold_in_an_executor(used_server: RunningServer):
    limited = compute_this(timeout=0.5)(time.sleep)
    with PoolExecutor() as pool:
        assert isinstance(pool.submit(limited, HANG_S).exception(HANG_S), TaskTimeout)
        with pytest.raises(TaskTimeout):
            list(pool.map(limited, [HANG_S]))
        assert pool.submit(limited, 0).exception(HANG_S) is None


def leave_a_mark_and_die(folder: Path) -> None:
    (folder / str(len(list(folder.iterdir())))).touch()
    os._exit(1)


def test_what_a_decorator_says_goes_first_also_if_it_is_the_usual(used_server: RunningServer, tmp_path: Path):
    once, twice = compute_this(retries=0)(leave_a_mark_and_die), compute_this()(leave_a_mark_and_die)
    with PoolExecutor(retries=1) as pool:
        for number, function in ((1, once), (2, twice)):
            (folder := tmp_path / str(number)).mkdir()
            assert isinstance(pool.submit(function, folder).exception(HANG_S), WorkerLost)
            assert len(list(folder.iterdir())) == number


AT_EXIT = """
import atexit, sys, threading, time
from distribute_challenge import PoolExecutor
pool = PoolExecutor(sys.argv[1])
assert pool.submit(abs, -1).result() == 1

def submit_for_ever():
    while True:
        pool.submit(abs, -1)

@atexit.register
def last():
    try:
        pool.submit(abs, -1)
    except RuntimeError as error:
        print(error)

if sys.argv[2] == "daemon":
    threading.Thread(target=submit_for_ever, daemon=True).start()
    time.sleep(0.2)
results = pool.map(abs, range(-5000, 0))
"""


@pytest.mark.parametrize("how", ["plain", "daemon"])
def test_nothing_is_taken_once_the_program_ends_and_nothing_keeps_it(server: RunningServer, how: str):
    command = [sys.executable, "-c", AT_EXIT, server.address, how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
    assert result.returncode == 0
    assert result.stdout == "cannot schedule new futures after interpreter shutdown\n"
    if how == "plain":
        assert result.stderr == ""
        assert server.idle_status()["finished"] == 5001  # What the map has begun is run to its end.


def test_one_connection_that_cannot_be_made_fails_nothing_while_others_work(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    server = start_server(3)
    made = itertools.count()
    new_server = Connections.new_server

    def flaky(connections: Connections, *how: Any) -> Any:
        if next(made) == 2:
            raise ServerUnavailable("no descriptors for a moment")
        return new_server(connections, *how)

    monkeypatch.setattr(Connections, "new_server", flaky)
    with PoolExecutor(server.address) as pool:
        assert [future.result(HANG_S) for future in [pool.submit(takes, 0.05, n) for n in range(60)]]
    assert next(made) > 3


def test_a_function_that_ended_in_time_is_not_called_late_since_the_program_was_held_up(
    used_server: RunningServer,
):
    with PoolExecutor() as pool:
        holding = pool.submit(time.sleep, 0.1)
        holding.add_done_callback(lambda _: time.sleep(1.5))
        limited = compute_this(timeout=1)(time.sleep)
        assert pool.submit(limited, 0.4).result(HANG_S) is None


def test_a_callback_may_do_whatever_it_likes(server: RunningServer):
    """Wait for other tasks, take a worker, take its time, raise anything: it holds up nobody."""
    run_here = compute_this(time.sleep)
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    with PoolExecutor() as pool:

        def waits(future: Any) -> None:
            found.put(run_here(0).run())
            found.put(pool.submit(operator.index, 5).result(HANG_S))

        futures = [pool.submit(time.sleep, 0.05) for _ in range(8)]
        futures[0].add_done_callback(lambda _: sys.exit("not mine"))
        futures[0].add_done_callback(waits)
        futures[1].add_done_callback(lambda _: time.sleep(1))
        assert [future.result(HANG_S) for future in futures] == [None] * 8
        assert [found.get(timeout=HANG_S) for _ in range(2)] == [None, 5]
    server.await_busy([0, 0])


def test_shutdown_waits_for_callbacks(used_server: RunningServer):
    called = []
    with PoolExecutor() as pool:
        pool.submit(time.sleep, 0.05).add_done_callback(lambda _: (time.sleep(0.3), called.append(1)))
    assert called == [1]


PRIVATE = """
import time
from distribute_challenge import PoolExecutor
with PoolExecutor("local://1") as pool:
    pool.submit(abs, 1).result()
    print("up", flush=True)
    time.sleep(float("{0}"))
"""


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_program_without_standard_streams_has_a_private_pool_that_ends_with_it(closed: str):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRIVATE.format(seconds)]
        return subprocess.Popen(
            ["bash", "-c", f'exec "$@" {closed}', "bash", *command],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    with start(0) as program:
        assert program.communicate(timeout=HANG_S)[0] == "up\n"
        assert program.returncode == 0
    with start(HANG_S) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
        family = psutil.Process(program.pid).children(recursive=True)
        assert len(family) == 3  # With the template of workers.
        program.kill()
        program.wait(HANG_S)
        assert psutil.wait_procs(family, HANG_S)[1] == []


def test_a_private_pool_that_ends_in_order_says_nothing():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    text = "from distribute_challenge import PoolExecutor\nfor _ in range(5):\n" + textwrap.indent(
        "pool = PoolExecutor('local://2')\nlist(pool.map(abs, range(50)))\npool.shutdown()\n", "    "
    )
    command = [sys.executable, "-X", "dev", "-c", text]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_what_a_private_pool_has_lost_is_told_by_the_calls_alone():
    text = (
        "import os, signal, sys\nfrom distribute_challenge import PoolExecutor\n"
        "with PoolExecutor('local://1') as pool:\n"
        "    future = pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL)\n"
        "    print(future.exception(), pool.submit(eval, 'len(sys.argv)', {'sys': sys}).result())\n"
    )
    command = [sys.executable, "-c", text, "--an-option", "of the program"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
    assert "killed by SIGKILL" in result.stdout
    assert result.stdout.endswith(" 1\n"), "functions find no options of the worker's program"
    assert (result.stderr, result.returncode) == ("", 0)


IMPORTS = """
import sys, threading, traceback
from distribute_challenge import PoolExecutor, compute_this
from distribute_challenge.client.importing import importing

def look(event, args):
    if event == "import" and threading.current_thread() is thread and not importing._is_owned():
        print(args[0], [place.filename for place in traceback.extract_stack()[-3:]])

def use():
    assert pool.submit(pow, 2, 3).result() == 8
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert compute_this(server="local://1")(len)("abc").run() == 3

sys.addaudithook(look)
pool = PoolExecutor("local://1", prints=False)
thread = threading.Thread(target=use)
thread.start()
thread.join()
"""


def test_nothing_is_imported_while_another_thread_may_fork():
    """The child could never import that: the lock of the module is held by a thread that is not there."""
    command = [sys.executable, "-c", IMPORTS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, cwd=ROOT)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


FORKS = """
import os, signal, sys, threading, time
from distribute_challenge import PoolExecutor, compute_this
from distribute_challenge.client.parcels.shipping import Shipment

class Point:
    def __init__(self, x): self.x = x

def take(point): return point.x

def send(): Shipment(take).parcel((Point(3),), {{}})

def forks(count, work):
    for _ in range(count):
        pid = os.fork()
        if not pid:
            signal.alarm({limit})
            work()
            sys.exit(0)
        if os.waitpid(pid, 0)[1]:
            return "a child hung or failed"
    return "ended"

def again_and_again(work):
    def run():
        while not is_over: work()
    for _ in range(3): threads.append(threading.Thread(target=run))
    for thread in threads: thread.start()
    time.sleep(0.2)

is_over, threads = [], []
if sys.argv[1] == "sends":
    again_and_again(send)
    print(forks(10, send))
else:
    pool = PoolExecutor("local://1", prints=False)
    if sys.argv[1] == "starts":
        threading.Thread(target=lambda: pool.submit(pow, 2, 3).result(), daemon=True).start()
        time.sleep(0.1)
        print(forks(1, lambda: pool.submit(pow, 2, 4).result()))
    else:
        again_and_again(lambda: [x.result() for x in [pool.submit(pow, 2, 3) for _ in range(50)]])
        print(forks(10, lambda: None))
is_over.append(1)
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("what", ["sends", "starts", "submits"])
def test_a_child_forked_while_other_threads_use_the_pool_does_not_hang(what: str):
    # That it may hang is what newer versions of Python warn of.
    ignored = "ignore:This process:DeprecationWarning"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ignored}
    command = [sys.executable, "-c", FORKS.format(limit=HANG_S), what]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2 * HANG_S, env=environment)
    assert (result.stdout, result.stderr, result.returncode) == ("ended\n", "", 0)


def test_what_runs_can_be_stopped_all_at_once(server: RunningServer):
    for stop in (PoolExecutor.kill_workers, PoolExecutor.terminate_workers):
        with PoolExecutor() as pool:
            futures = [pool.submit(time.sleep, HANG_S) for _ in range(4)]
            eventually(lambda: futures[0].running() and futures[1].running(), "they run")  # noqa: B023
            stop(pool)
            assert concurrent.futures.wait(futures, HANG_S).not_done == set()
            assert all(future.cancelled() for future in futures)
            with pytest.raises(RuntimeError, match="after shutdown"):
                pool.submit(abs, 1)
        server.await_busy([0, 0])


def test_letters_that_the_programs_output_does_not_know_are_shown_as_their_numbers(address: str):
    program = "import distribute_challenge as d; d.compute_this(print)('gr\\u00fcn').run()"
    environment = {**os.environ, "COMPUTE_SERVER": address, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, timeout=HANG_S, env=environment, cwd=ROOT)
    assert (result.stdout, result.stderr) == (b"gr\\xfcn\n", b"")


@pytest.mark.parametrize("way", ["submit", "map"])
@pytest.mark.parametrize("of_function", [None, True, False])
@pytest.mark.parametrize("of_executor", [True, False])
def test_what_functions_print_is_shown_as_they_say_or_else_the_executor(
    used_server: RunningServer,
    capfd: pytest.CaptureFixture[str],
    way: str,
    of_function: bool | None,
    of_executor: bool,
):
    decorated = compute_this(prints=of_function)(print)
    with PoolExecutor(prints=of_executor) as pool:
        if way == "submit":
            pool.submit(decorated, "hello").result(HANG_S)
        else:
            list(pool.map(decorated, ["hello"]))
    assert capfd.readouterr().out == "hello\n" * (of_executor if of_function is None else of_function)


def test_it_says_how_many_functions_run_at_once(used_server: RunningServer):
    """Other libraries ask the standard executors that."""
    assert [PoolExecutor(max_workers=limit)._max_workers for limit in (None, 1, 7)] == [2, 1, 2]


def test_what_cannot_be_sent_is_also_what_pickle_says(used_server: RunningServer):
    with PoolExecutor() as pool, pytest.raises(pickle.PicklingError):
        pool.submit(len, [threading.Lock()]).result(HANG_S)


class Graph:
    """Whose nodes are told apart by being the same object."""

    def __init__(self) -> None:
        self.edges = {object.__new__(Node): number for number in range(5)}

    def degree(self, node: Any) -> int | None:
        return self.edges.get(node)

    __call__ = degree


class Node:
    """A node."""


@pytest.mark.parametrize("form", ["method", "object", "partial", "keyword"])
def test_what_a_function_holds_is_one_with_its_arguments(form: str):
    graph = Graph()
    function: Any = {
        "method": graph.degree,
        "object": graph,
        "partial": functools.partial(Graph.degree, graph),
        "keyword": functools.partial(lambda node, graph: graph.degree(node), graph=graph),
    }[form]
    with PoolExecutor("local://1") as pool:
        assert pool.submit(function, next(iter(graph.edges))).result() == 0
        assert list(pool.map(Graph.degree, itertools.repeat(graph), graph.edges)) == [0, 1, 2, 3, 4]
        assert compute_this(server="local://1")(function)(next(iter(graph.edges))).run() == 0


class Collects:
    """Whose map goes on while its results are put into it."""

    def __init__(self) -> None:
        self.found: dict[int, int] = {}

    def known(self, _: int) -> int:
        return len(self.found)


def test_a_map_has_the_function_as_it_was_when_it_began():
    it = Collects()
    with PoolExecutor("local://2") as pool:
        for number, result in enumerate(pool.map(it.known, range(2000), chunksize=2)):
            it.found[number] = result
    assert set(it.found.values()) == {0}


def test_methods_of_values_of_c_arrive_with_them():
    words, large = ["a"], b"x" * (1 << 20)
    with PoolExecutor("local://1") as pool:
        assert pool.submit(words.count, "a").result() == 1
        assert pool.submit(large.count, b"x").result() == 1 << 20
        assert pool.submit("{} {}".format, "a", large).result() == f"a {large}"


ROW = [0]
KEPT: dict[str, Any] = {"array": np.zeros(3), "last": 0}


def fills_a_list(x: int) -> list[int]:
    ROW[0] = x
    return ROW


def fills_an_array(x: int) -> Any:
    return np.add(x, 0, out=KEPT["array"])


def fills_an_attribute(x: int) -> Any:
    fills_an_attribute.row = [x]  # type: ignore[attr-defined]
    return fills_an_attribute.row  # type: ignore[attr-defined]


def fills_a_view(x: int) -> Any:
    KEPT["array"][:] = x
    return KEPT["array"][:2]


def fills_a_memory_view(x: int) -> Any:
    KEPT["array"][:] = x
    return memoryview(KEPT["array"])


def yields_later(x: int) -> Any:
    KEPT["last"] = x
    return (KEPT["last"] for _ in range(1))


async def awaits_later(x: int) -> Any:
    ROW[0] = x
    return ROW


@pytest.mark.parametrize(
    "function",
    [
        *(fills_a_list, fills_an_array, fills_an_attribute, fills_a_view, fills_a_memory_view),
        *(yields_later, awaits_later),
    ],
)
def test_each_item_of_a_chunk_has_the_value_that_was_returned_for_it(function: Any):
    """Whatever the next one does to the same list, or to what a generator reads."""
    with PoolExecutor("local://1") as pool:
        results = list(pool.map(function, range(200), chunksize=100))
    assert [int(value[0]) for value in results] == list(range(200))
    assert results[-1] is not results[-2]


def one_of_each(x: int) -> Any:
    return [(), (1, "a"), int, signal.SIGINT, [x], {"x": x}][x % 6]


def test_values_of_all_kinds_may_be_in_one_chunk():
    with PoolExecutor("local://1") as pool:
        assert list(pool.map(one_of_each, range(60), chunksize=30)) == list(map(one_of_each, range(60)))


KEYED_BY_OBJECTS = """
import dataclasses
from distribute_challenge import PoolExecutor

@dataclasses.dataclass(frozen=True)
class Node:
    name: str
    def neighbours(self): return graph[self]

class Opens:
    def __getstate__(self): return {"n": 1}
    def __setstate__(self, state): self.opened = True
    def others(self): return all_of_them

class Plugin:
    registry = {}
    def __init_subclass__(cls): Plugin.registry[cls.name] = cls

graph, all_of_them = {Node("a"): [1]}, [Opens()]

class Named(Plugin):
    name = "named"

def is_in(name): return Node(name) in graph
def is_open(): return Opens.others(None)[0].opened
def name(): return Named().name

with PoolExecutor("local://1") as pool:
    print([pool.submit(is_in, "a").result() for _ in range(3)], pool.submit(Node("a").neighbours).result())
    print(pool.submit(is_open).result(), pool.submit(name).result())
"""


def test_objects_of_the_script_among_its_global_names_are_whole(tmp_path: Path):
    """Their class is loaded with its methods, which use them: it must be far enough by then."""
    path = tmp_path / "script_with_objects.py"
    path.write_text(KEYED_BY_OBJECTS)
    told = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=HANG_S,
    )
    assert (told.stderr, told.stdout) == ("", "[True, True, True] [1]\nTrue named\n")


MAKES_CLASSES = """
import collections, functools
@functools.lru_cache
def row_type(fields): return collections.namedtuple("Row", fields)
def row(x): return row_type("a b")(x, x)
"""


def test_a_class_that_a_worker_has_made_comes_back_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "rows_made.py").write_text(MAKES_CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = importlib.import_module("rows_made")
    with PoolExecutor("local://1") as pool:
        for number in range(3):
            assert pool.submit(rows.row, number).result() == (number, number)
            gc.collect()


def test_a_lazy_map_within_a_function_takes_no_more_than_it_needs():
    def first() -> tuple[int, int]:
        taken = []

        def items() -> Iterator[int]:
            for number in itertools.count():
                taken.append(number)
                yield number

        with PoolExecutor() as pool:
            return next(pool.map(abs, items())), len(taken)

    with PoolExecutor("local://1") as pool:
        value, taken = pool.submit(first).result(HANG_S)
    assert value == 0
    assert taken < 1000


def test_a_function_with_a_slice_for_a_constant_travels_without_its_text():
    names: dict[str, Any] = {}
    exec("f = lambda text: text[1:3]", names)
    with PoolExecutor("local://1") as pool:
        assert pool.submit(names["f"], "abcd").result() == "bc"


SETS_UP = """
import gc, threading
from distribute_challenge import PoolExecutor

def sets_up():
    global barrier
    barrier = threading.Barrier(3)

def parties():
    return barrier.parties

def several():
    for _ in range(3):
        with PoolExecutor(initializer=sets_up) as pool:
            assert pool.submit(parties).result() == 3
    gc.collect()
    return sum(type(thing) is threading.Barrier for thing in gc.get_objects())
"""


def test_what_an_initializer_has_set_up_within_a_function_goes_with_its_executor():
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(SETS_UP, script)
    with PoolExecutor("local://1") as pool:
        assert pool.submit(script["several"]).result(HANG_S) == 0


SETS_A_NAME = """
import __main__

def sets_up():
    __main__.limit = 5

def limit():
    return __main__.limit
"""


def test_what_a_modules_initializer_sets_in_the_script_is_there_for_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sets_a_name.py").write_text(SETS_A_NAME)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("sets_a_name")
    with PoolExecutor("local://1", initializer=module.sets_up) as pool:
        assert [pool.submit(module.limit).result(HANG_S) for _ in range(3)] == [5] * 3
