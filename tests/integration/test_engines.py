"""Every kind of function, argument and result, case for case, on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distribute_challenge import PoolExecutor
from tests.cases import alike, everything
from tests.running import HANG_S, ROOT, RunningServer, eventually


@pytest.fixture(scope="module", params=["pool", "private", "dask"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of two workers."""
    if request.param == "pool":
        server = RunningServer(2, folder=tmp_path_factory.mktemp("server"))
        yield server.address
        server.close()
    elif request.param == "private":
        yield "local://2"
    else:
        yield request.getfixturevalue("cluster").address


@pytest.fixture(autouse=True)
def _chosen(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPUTE_SERVER", engine)


@pytest.mark.parametrize("name", [name for name in everything.CASES if name not in everything.IN_SCRIPTS])
def test_every_kind_of_function(name: str):
    everything.CASES[name]()


@pytest.mark.parametrize("name", alike.TASKS)
def test_every_kind_of_definition(name: str):
    alike.check(name)


@pytest.mark.parametrize("check", alike.CHECKS.values(), ids=alike.CHECKS)
def test_what_is_given_to_functions(check: Callable[[], None]):
    check()


def test_functions_of_a_script_give_there_what_they_give_here():
    expected = [f"ok {name}" for name in [*alike.TASKS, *alike.CHECKS]]
    assert run("tests/cases/alike.py").splitlines() == expected


def runs_alone(path: str) -> None:
    """Raises FileExistsError if another one runs."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    time.sleep(0.005)
    Path(path).unlink()


def test_not_more_workers_are_used_than_it_may(tmp_path: Path):
    with PoolExecutor(max_workers=1) as pool:
        for future in [pool.submit(runs_alone, str(tmp_path / "runs")) for _ in range(40)]:
            future.result(HANG_S)
        assert list(pool.map(runs_alone, [str(tmp_path / "runs")] * 40, chunksize=1)) == [None] * 40


def says(word: str) -> None:
    print(f"prepared with {word}")


def test_what_an_initializer_prints_is_shown_here(capsys: pytest.CaptureFixture[str]):
    shown = ""

    def is_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "prepared with care\n" in shown

    with PoolExecutor(initializer=says, initargs=("care",)) as pool:
        assert pool.submit(len, "abc").result(HANG_S) == 3
        eventually(is_shown, "its words are here")


def test_the_example_runs_unchanged():
    assert run("challenge.py", "0.1") == "func(0.1) = 0.010000000000000002\n"


def run(program: str, *arguments: str) -> str:
    """What a program prints, which neither fails nor complains."""
    command = [sys.executable, str(ROOT / program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=2 * HANG_S, check=False
    )
    assert (result.stderr, result.returncode) == ("", 0), result.stdout
    return result.stdout
