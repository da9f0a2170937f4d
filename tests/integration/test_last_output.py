"""What a function that is killed has printed is shown: after a short time, and without an end of line."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, compute_this, forward_logging
from distribute_challenge.calls.logs import forwarded
from distribute_challenge.client.tasks import task
from tests.running import HANG_S, ROOT, RunningServer, eventually


@pytest.fixture
def server(use_server: Callable[[int], RunningServer]) -> RunningServer:
    """A server of one worker, which has imported this module: limits are short."""
    running = use_server(1)
    compute_this(prints=False)(prints_and_goes_on.__wrapped__)("", 0).run()
    return running


@compute_this
def prints_and_goes_on(end: str, seconds: float = HANG_S) -> None:
    print("step 1", end=end)
    print("in trouble", end=end, file=sys.stderr)
    time.sleep(seconds)


@compute_this
def prints_and_holds_the_interpreter(path: Path) -> None:
    print("step 1")
    path.touch()
    sum(range(10**12))  # In one instruction: no other thread of the worker gets to run.


def lone(limit_s: float, end: str) -> Any:
    prints_and_goes_on(end).run(timeout=limit_s)


def submitted(limit_s: float, end: str) -> Any:
    prints_and_goes_on(end).submit(timeout=limit_s).result(HANG_S)


def mapped(limit_s: float, end: str) -> Any:
    list(compute_this(timeout=limit_s)(prints_and_goes_on.__wrapped__).map([end]))


@pytest.mark.parametrize(("limit_s", "end"), [(0.5, "\n"), (0.4, "")])
@pytest.mark.parametrize("call", [lone, submitted, mapped])
def test_before_a_time_limit_kills_it(
    server: RunningServer,
    capsys: pytest.CaptureFixture[str],
    call: Callable[[float, str], Any],
    limit_s: float,
    end: str,
):
    with pytest.raises(TaskTimeout):
        call(limit_s, end)
    assert capsys.readouterr() == (f"step 1{end}", f"in trouble{end}")


def test_before_its_caller_kills_it(
    server: RunningServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def prints(path: Path) -> None:
        print("half a line", end="")
        path.touch()
        time.sleep(HANG_S)

    with PoolExecutor() as pool:
        future = pool.submit(prints, tmp_path / "begun")
        eventually((tmp_path / "begun").exists, "it runs")
        assert pool.kill(future)
        with pytest.raises(CancelledError):
            future.result(HANG_S)
    assert capsys.readouterr().out == "half a line"


@compute_this
def prints_and_holds_the_interpreter_for_a_while() -> None:
    print("step 1")
    ctypes.PyDLL(None).usleep(700_000)  # With Python's lock: its worker cannot answer meanwhile.
    time.sleep(HANG_S)


@pytest.mark.parametrize("call", ["run", "submit"])
def test_before_it_is_killed_by_a_worker_that_takes_its_time(
    server: RunningServer, capsys: pytest.CaptureFixture[str], call: str
):
    delayed = prints_and_holds_the_interpreter_for_a_while()
    with pytest.raises(TaskTimeout):
        delayed.run(timeout=0.4) if call == "run" else delayed.submit(timeout=0.4).result(HANG_S)
    assert capsys.readouterr().out == "step 1\n"


@pytest.mark.parametrize("call", ["run", "submit"])
def test_one_that_holds_the_interpreter_is_killed_all_the_same(
    server: RunningServer, tmp_path: Path, call: str
):
    delayed = prints_and_holds_the_interpreter(tmp_path / "begun")
    with pytest.raises(TaskTimeout):
        delayed.run(timeout=0.5) if call == "run" else delayed.submit(timeout=0.5).result(HANG_S)


def test_nothing_is_shown_twice(server: RunningServer, capsys: pytest.CaptureFixture[str]):
    @compute_this
    def prints_slowly() -> None:
        for number in range(100):
            print(number, end=" ", flush=number % 2 == 0)
            time.sleep(0.01)
        time.sleep(HANG_S)

    with pytest.raises(TaskTimeout):
        prints_slowly().run(timeout=2)
    shown = [int(number) for number in capsys.readouterr().out.split()]
    assert shown == list(range(len(shown)))
    assert shown


def test_output_that_nobody_wants_is_not_asked_for(server: RunningServer, capsys: pytest.CaptureFixture[str]):
    silent = compute_this(prints=False, timeout=0.3)(prints_and_goes_on.__wrapped__)
    with pytest.raises(TaskTimeout):
        silent("\n").run()
    assert capsys.readouterr() == ("", "")


def prints_for_a_while(number):
    for line in range(30):
        print(number, line)
        time.sleep(0.013)


def test_what_tasks_print_one_after_another_on_a_worker_is_shown_once(
    start_server: Callable[..., RunningServer], capsys: pytest.CaptureFixture[str]
):
    """The answer to a question about one task may come when the next one runs."""
    with PoolExecutor(start_server(1).address) as pool:
        assert list(pool.map(prints_for_a_while, range(8), chunksize=1)) == [None] * 8
    assert capsys.readouterr().out.splitlines() == [f"{n} {line}" for n in range(8) for line in range(30)]


BLOCKED = """
import sys, time
from distribute_challenge import PoolExecutor, TaskTimeout

def prints(): print("x" * 1_000_000)

with PoolExecutor() as pool:
    printed = pool.submit(prints)
    for _ in range(5):
        assert pool.submit(int, 7).result(20) == 7
    try:
        PoolExecutor(timeout=0.5).submit(time.sleep, 60).result(20)
    except TaskTimeout:
        sys.stderr.write("all is well\\n")
        sys.stderr.flush()
"""


def test_a_terminal_that_takes_nothing_stops_nothing_else(server: RunningServer, tmp_path: Path):
    (tmp_path / "program.py").write_text(BLOCKED)
    command = [sys.executable, str(tmp_path / "program.py")]
    variables = {**os.environ, "COMPUTE_SERVER": server.address, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stderr is not None
    assert program.stderr.readline() == "all is well\n"
    assert program.communicate(timeout=HANG_S)[0] == "x" * 1_000_000 + "\n"


def test_a_result_waits_for_what_is_being_shown(server: RunningServer, monkeypatch: pytest.MonkeyPatch):
    """Longer here: the machine may be busy."""
    monkeypatch.setattr(task, "SHOWN_S", 10.0)
    monkeypatch.setattr(task, "MOST_SHOWN_S", 2 * HANG_S)

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.002)
            handled.append(record)

    def logs():
        for number in range(200):
            logging.getLogger("slow").warning("line %d", number)

    handled: list[logging.LogRecord] = []
    handler = Slow()
    logging.getLogger("slow").addHandler(handler)
    forward_logging()
    try:
        with PoolExecutor() as pool:
            pool.submit(logs).result(HANG_S)
            assert len(handled) == 200
    finally:
        forwarded.clear()
        logging.getLogger("slow").removeHandler(handler)


def test_a_slow_handler_of_log_records_costs_the_others_nothing(server: RunningServer):
    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handled.append(record)
            goes_on.wait(HANG_S)

    def logs():
        logging.getLogger("slow").warning("a word")

    handled: list[logging.LogRecord] = []
    goes_on = threading.Event()
    handler = Slow()
    logging.getLogger("slow").addHandler(handler)
    forward_logging()
    try:
        with PoolExecutor() as pool:
            futures = [pool.submit(logs) for _ in range(20)]
            assert [pool.submit(int, n).result(HANG_S) for n in range(20)] == list(range(20))
            for future in futures:
                future.result(HANG_S)
            assert len(handled) == 1
            goes_on.set()
    finally:
        goes_on.set()
        forwarded.clear()
        logging.getLogger("slow").removeHandler(handler)
    assert len(handled) == 20
