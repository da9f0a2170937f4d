"""The benchmark's parts that a run of it seldom shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distribute_challenge.record import cells
from distribute_challenge.record.cells import Cell, Settings
from distribute_challenge.sweep.children import ChildEnded, answer, running, tell


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells.FOLDER.mkdir()


def test_results_are_read_as_they_were_written():
    measured = {Cell(2, 1): 1 / 3, Cell(1, 1): 0.1 + 0.2, Cell(1, 2): 5e-324}
    cells.write_cells(measured)
    assert cells.read_cells(cells.SWEEP) == measured
    assert cells.SWEEP.read_text().splitlines()[:2] == ["Workers,Functions,Throughput", f"1,1,{0.1 + 0.2}"]


def test_settings_are_read_as_they_were_written():
    assert cells.read_settings() == Settings(5, 3)
    cells.write_settings(Settings(2, 0.1))
    assert cells.read_settings() == Settings(2, 0.1)


def test_a_child_that_has_ended_is_told():
    with running([sys.executable, "-c", "import sys; sys.stdin.close(); print(); sys.exit(7)"], "") as child:
        answer(child)
        child.wait()
        for talk in (lambda: tell(child, b"start\n"), lambda: answer(child)):
            with pytest.raises(ChildEnded, match="ended too early, with exit code 7"):
                talk()


def test_a_child_that_cannot_be_started_is_told():
    with pytest.raises(ChildEnded, match="cannot start a process"), running(["/nowhere/python"], ""):
        raise AssertionError
