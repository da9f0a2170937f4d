"""A server that goes away and comes back: what waits for it, and what is run again."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rpyc

from distribute_challenge import PoolError, PoolExecutor, ServerUnavailable, compute_this
from tests.running import HANG_S, RunningServer, eventually, free_port, has_content


class Restarted:
    """A server that is ended, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = ("--port", str(free_port(3)))
        self.server = RunningServer(2, *self._options, folder=folder)

    def start_again(self) -> None:
        self.server = RunningServer(2, *self._options, folder=self._folder)


@pytest.fixture
def restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarted]:
    made = Restarted(tmp_path)
    monkeypatch.setenv("COMPUTE_SERVER", made.server.address)
    yield made
    made.server.close()


def begin_and_wait(path: Path) -> int:
    """Returns the second time that it is called; the first time, never."""
    with (path / "calls").open("a") as file:
        file.write("x")
    if (path / "calls").stat().st_size == 1:
        time.sleep(HANG_S)
    return 7


def lone(function: Any, argument: Any) -> Any:
    return function(argument).run()


def submitted(function: Any, argument: Any) -> Any:
    return function(argument).submit().result(HANG_S)


def mapped(function: Any, argument: Any) -> Any:
    (value,) = function.map([argument])
    return value


Call = Callable[[Any, Any], Any]


def in_thread(call: Call, function: Any, argument: Any, results: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: results.append(call(function, argument)), daemon=True)
    thread.start()
    return thread


def is_stopping(connection: rpyc.Connection) -> bool:
    try:
        connection.root.find_free_worker()
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("call", [lone, submitted, mapped])
def test_a_call_with_wait_waits_for_a_server_that_has_gone(
    restarted: Restarted, call: Call, number: signal.Signals
):
    absolute = compute_this(wait=HANG_S)(abs)
    assert call(absolute, -1) == 1  # And its connections are kept.
    restarted.server.stop(number)
    results: list[Any] = []
    thread = in_thread(call, absolute, -2, results)
    restarted.start_again()
    thread.join(HANG_S)
    assert results == [2]


@pytest.mark.parametrize("call", [lone, submitted])
def test_a_call_with_wait_that_stands_in_line_outlasts_a_restart(restarted: Restarted, call: Call):
    absolute = compute_this(wait=HANG_S)(abs)
    results: list[Any] = []
    with restarted.server.connect() as holder:
        for _ in range(2):
            holder.root.find_free_worker()
        thread = in_thread(call, absolute, -2, results)
        restarted.server.await_waiting(1)
        restarted.server.stop(signal.SIGKILL)
    restarted.start_again()
    thread.join(HANG_S)
    assert results == [2]


def test_a_task_waits_while_the_server_is_stopping(restarted: Restarted, tmp_path: Path):
    """It says so, and gives what runs its time; meanwhile it still answers."""
    absolute = compute_this(wait=HANG_S)(abs)
    running = PoolExecutor().submit(begin_and_wait, tmp_path)
    eventually(lambda: has_content(tmp_path / "calls"), "a function runs")
    results: list[Any] = []
    with restarted.server.connect() as other:
        restarted.server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_stopping(other), "it is stopping")
        threads = [in_thread(call, absolute, -2, results) for call in (lone, submitted)]
        restarted.server.stop(signal.SIGTERM)
    assert isinstance(running.exception(HANG_S), PoolError)
    restarted.start_again()
    for thread in threads:
        thread.join(HANG_S)
    assert results == [2, 2]


@pytest.mark.parametrize("call", [lone, submitted, mapped])
def test_a_call_with_retries_is_run_again_after_a_restart(restarted: Restarted, tmp_path: Path, call: Call):
    function = compute_this(retries=1, wait=HANG_S)(begin_and_wait)
    results: list[Any] = []
    thread = in_thread(call, function, tmp_path, results)
    eventually(lambda: has_content(tmp_path / "calls"), "it has begun")
    restarted.server.stop(signal.SIGKILL)
    restarted.start_again()
    thread.join(HANG_S)
    assert results == [7]
    assert (tmp_path / "calls").read_text() == "xx"


def wait_unless_first(folder: Path, number: int) -> int:
    (folder / f"begun {number}").touch()
    while number and not (folder / "again").exists():
        time.sleep(0.01)
    return number


def test_a_map_with_retries_goes_on_after_a_restart_though_results_are_taken_meanwhile(
    restarted: Restarted, tmp_path: Path
):
    """That starts its next chunks, for which there is no server at that moment."""
    with PoolExecutor(retries=1) as pool:
        results = pool.map(functools.partial(wait_unless_first, tmp_path), range(20), chunksize=1)
        eventually(lambda: len(list(tmp_path.glob("begun *"))) >= 3, "two others run")
        restarted.server.stop(signal.SIGKILL)
        eventually(lambda: not pool._engine.has_answered, "it is noticed")
        found = [next(results)]
        (tmp_path / "again").touch()
        restarted.start_again()
        found += results
    assert found == list(range(20))


@pytest.mark.parametrize("call", [lone, submitted])
def test_a_call_with_wait_and_no_retries_is_not_run_twice(restarted: Restarted, tmp_path: Path, call: Call):
    function = compute_this(wait=HANG_S)(begin_and_wait)
    errors: list[Any] = []

    def expect_error(*call_of: Any) -> Any:
        with pytest.raises(ServerUnavailable) as caught:
            call(*call_of)
        return caught.type

    thread = in_thread(expect_error, function, tmp_path, errors)
    eventually(lambda: has_content(tmp_path / "calls"), "it has begun")
    restarted.server.stop(signal.SIGKILL)
    restarted.start_again()
    thread.join(HANG_S)
    assert errors == [ServerUnavailable]
    assert (tmp_path / "calls").read_text() == "x"


@pytest.mark.parametrize("call", [lone, submitted])
def test_a_server_that_does_not_come_back_is_waited_for_no_longer_than_asked(
    restarted: Restarted, call: Call, monkeypatch: pytest.MonkeyPatch
):
    patient, hasty = compute_this(wait=0.5)(abs), compute_this(abs)
    assert call(patient, -1) == 1
    restarted.server.stop(signal.SIGKILL)
    for function in (patient, hasty):
        with pytest.raises(ServerUnavailable, match="start one with"):
            call(function, -1)


def test_an_executor_works_on_after_a_restart(restarted: Restarted):
    with PoolExecutor(wait=HANG_S) as pool:
        assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
        restarted.server.stop(signal.SIGKILL)
        restarted.start_again()
        assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
        assert pool.submit(os.getpid).result(HANG_S) in restarted.server.worker_pids()
