"""What a function that is killed has printed is shown: after a short time, and without an end of line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, compute_this
from tests.running import HANG_S, RunningServer, eventually


@pytest.fixture
def server(start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """A server of one worker, which has imported this module: limits are short."""
    running = start_server(1)
    monkeypatch.setenv("COMPUTE_SERVER", running.address)
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
