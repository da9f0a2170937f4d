"""Where a function is: asked while it runs, and told when it is stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import psutil
import pytest
import rpyc

from distribute_challenge import PoolExecutor, TaskTimeout, WorkerLost
from tests.running import HANG_S, RunningServer, eventually

HERE = Path(__file__).name


def does_nothing():
    """Only its module matters."""


def in_python(number=0):
    while True:
        number += 1


def in_c():
    """Holds the interpreter all the time: no other thread of the worker runs."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def in_a_system_call():
    time.sleep(HANG_S)


def in_a_generator():
    return sum(endless())


def endless():
    while True:
        yield 1


def in_recursion(depth=500):
    return in_recursion(depth - 1) if depth else in_python()


def waiting_for_a_thread():
    thread = threading.Thread(target=time.sleep, args=(HANG_S,))
    thread.start()
    thread.join()


FUNCTIONS = [in_python, in_c, in_a_system_call, in_a_generator, in_recursion, waiting_for_a_thread]
INNERMOST = {in_recursion: in_python}


def mentions(stack: str, function: Callable[..., object]) -> bool:
    """Whether a frame is one of a function of this file."""
    return re.search(rf'{HERE}", line \d+ in {function.__name__}$', stack, re.MULTILINE) is not None


@pytest.fixture
def asked(server: RunningServer) -> Iterator[Callable[[int], str]]:
    """The server's call `stack`, by a plain client."""
    with server.connect() as connection:
        yield connection.root.stack


@contextlib.contextmanager
def running(
    server: RunningServer, function: Callable[..., object], *arguments: object
) -> Iterator[tuple[int, Future[object]]]:
    """A function that runs on a worker: the port of that, and the future. It is killed with the block."""

    def port() -> int | None:
        for worker in server.status()["workers"]:
            if [call["function"] for call in worker["running"]] == [function.__qualname__]:
                return int(worker["port"])
        return None

    with PoolExecutor(server.address) as pool:
        future = pool.submit(function, *arguments)
        try:
            yield eventually(port, f"{function} runs"), future
        finally:
            pool.kill(future)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_time_limit_tells_where_the_function_was(
    start_server: Callable[..., RunningServer], function: Callable[[], object]
):
    server = start_server(1)
    with PoolExecutor(server.address) as pool:
        pool.submit(does_nothing).result(HANG_S)  # This module is imported there.

    def last_words() -> str:
        with PoolExecutor(server.address, timeout=0.3) as limited, pytest.raises(TaskTimeout) as error:
            limited.submit(function).result(HANG_S)
        return str(error.value)

    # A worker that does not get to answer at once is killed all the same, and one that has taken the place of
    # another may still be importing this module then.
    innermost = INNERMOST.get(function, function)
    words = eventually(lambda: text if mentions(text := last_words(), innermost) else None, "it is told")
    assert "distribute_challenge/worker" not in words


def test_so_does_the_end_of_one_that_is_killed(server: RunningServer, asked: Callable[[int], str]):
    def last_words() -> str:
        with running(server, in_c) as (port, future):
            eventually(lambda: mentions(asked(port), in_c), "it is there")
        with pytest.raises(CancelledError) as error:
            future.result(HANG_S)
        return str(error.value)

    # A worker that does not get to answer at once is killed all the same.
    eventually(lambda: mentions(last_words(), in_c), "its end tells")


def test_and_of_one_that_takes_too_much_memory(start_server: Callable[..., RunningServer]):
    def grows():
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))
            time.sleep(0.001)

    def last_words() -> str:
        with PoolExecutor(server.address) as pool, pytest.raises(WorkerLost, match="--memory-limit") as error:
            pool.submit(grows).result(HANG_S)
        return str(error.value)

    server = start_server(1, "--memory-limit", "100M", "--interval", "0.05")
    eventually(lambda: mentions(last_words(), grows), "its end tells")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_server_tells_where_a_function_is(
    server: RunningServer, asked: Callable[[int], str], function: Callable[[], object]
):
    innermost = INNERMOST.get(function, function)
    with running(server, function) as (port, future):

        def is_told() -> bool:
            assert not future.done(), future.exception()
            try:
                return mentions(asked(port), innermost)
            except RuntimeError:  # So far it has had no time to say.
                return False

        eventually(is_told, f"{innermost} is where it is")


def test_one_that_runs_python_gets_no_signal_to_tell_it(
    server: RunningServer, asked: Callable[[int], str], tmp_path: Path
):
    ends = tmp_path / "ends"

    def counts_signals():
        signals: list[int] = []
        signal.signal(signal.SIGRTMAX, lambda number, _: signals.append(number))
        while not ends.exists():
            pass
        return len(signals)

    with running(server, counts_signals) as (port, future):
        eventually(lambda: mentions(asked(port), counts_signals), "it is told")
        ends.touch()
        assert future.result(HANG_S) == 0


def test_a_function_that_calls_itself_is_shown_a_few_times(
    server: RunningServer, asked: Callable[[int], str]
):
    with running(server, in_recursion) as (port, _):
        stack = eventually(lambda: "repeated" in asked(port) and asked(port), "it is deep")
    assert stack.count(" in in_recursion") == 3


def test_a_plain_clients_function_has_a_stack_too(server: RunningServer, asked: Callable[[int], str]):
    with server.connect() as scheduler:
        port = scheduler.root.find_free_worker()
        worker = rpyc.connect("127.0.0.1", port)
        call = rpyc.async_(worker.root.run_code)("def f():\n    while True: pass\nf()")
        assert eventually(lambda: asked(port).startswith('File "<run_code>", line 2 in f'), "it has a stack")
        assert not call.ready


def test_an_idle_worker_has_none(server: RunningServer, asked: Callable[[int], str]):
    assert [asked(port) for port in server.ports] == ["", ""]


@pytest.mark.parametrize("port", [0, -1, 80, True, "18812", None])
def test_of_another_port_none_is_told(used_server: RunningServer, asked: Callable[[int], str], port: object):
    with pytest.raises(ValueError, match="port"):
        asked(port)  # type: ignore[arg-type]


def test_a_function_is_not_disturbed(server: RunningServer, asked: Callable[[int], str]):
    """Also while threads of its own are busy, and end, and begin."""

    def counts(enough):
        def count(numbers):
            for number in range(2000):
                numbers.append(number * number)

        while True:
            lists = [[], [], [], []]
            threads = [threading.Thread(target=count, args=(numbers,)) for numbers in lists]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if enough.exists():
                return [sum(numbers) for numbers in lists]

    enough = server.folder / "enough"
    with running(server, counts, enough) as (port, future):
        eventually(lambda: mentions(asked(port), counts), "it is there")
        stacks = [asked(port) for _ in range(500)]
        enough.touch()
        assert future.result(HANG_S) == [sum(number * number for number in range(2000))] * 4
    assert all(mentions(stack, counts) for stack in stacks)


def test_two_who_ask_at_once_get_an_answer_each(server: RunningServer, asked: Callable[[int], str]):
    answers: list[str] = []
    with running(server, in_a_system_call) as (port, _):

        def ask():
            with server.connect() as connection:
                answers.extend(connection.root.stack(port) for _ in range(50))

        eventually(lambda: mentions(asked(port), in_a_system_call), "it is there")
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_S)
    assert [answer.count(" in in_a_system_call") for answer in answers] == [1] * 150


def test_a_worker_that_was_stopped_says_nothing_and_is_killed_all_the_same(
    server: RunningServer, asked: Callable[[int], str]
):
    with running(server, in_python) as (port, future):
        pid = server.worker_pids()[server.ports.index(port)]
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it has stopped")
        with pytest.raises(RuntimeError, match=f"worker {port} does not say .*process {pid}"):
            asked(port)
    with pytest.raises(CancelledError, match=r"replaced$"):
        future.result(HANG_S)
    server.await_busy([0, 0])


def keeps_signals_off():
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    in_c()


def ignores_signals():
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    in_c()


@pytest.mark.parametrize("function", [keeps_signals_off, ignores_signals])
def test_who_cannot_be_asked_goes_on(
    server: RunningServer, asked: Callable[[int], str], function: Callable[[], object]
):
    pids = server.worker_pids()
    with running(server, function) as (port, future):

        def is_silent():
            try:
                return not asked(port)
            except RuntimeError:
                return True

        eventually(is_silent, "it does not say where it is")
        assert server.worker_pids() == pids
        assert not future.done()
    with pytest.raises(CancelledError):
        future.result(HANG_S)
