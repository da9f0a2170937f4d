"""What the README shows works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import results, table
from tests.running import HANG_S, ROOT, RunningServer

README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_block(server: RunningServer, folder: Path, block: str) -> str:
    program = folder / "readme_example.py"
    program.write_text(block)
    environment = {**os.environ, "COMPUTE_SERVER": server.address, "PYTHONPATH": str(ROOT)}
    return subprocess.check_output(
        [sys.executable, str(program)], text=True, timeout=HANG_S, env=environment, cwd=folder
    )


def test_the_first_example(server: RunningServer, tmp_path: Path):
    assert run_block(server, tmp_path, PYTHON_BLOCKS[0]) == "9\n"
    assert server.idle_status()["finished"] == 1


def test_the_configurations_of_which_some_fail(server: RunningServer, tmp_path: Path):
    failed = [f"({rate / 10}, 9) ValueError('too deep')\n" for rate in range(10)]
    assert run_block(server, tmp_path, PYTHON_BLOCKS[1]) == "".join(failed)
    status = server.idle_status()
    assert (status["finished"], status["failed"]) == (90, 10)


def test_the_executor(server: RunningServer, tmp_path: Path):
    assert run_block(server, tmp_path, PYTHON_BLOCKS[2]) == f"27 {sum(x**3 for x in range(1000))}\n"
    assert server.idle_status()["finished"] == 1001


def test_joblib(server: RunningServer, tmp_path: Path):
    pytest.importorskip("joblib")
    assert run_block(server, tmp_path, PYTHON_BLOCKS[3]) == f"{sum(x**3 for x in range(1000))}\n"


def test_the_plain_client(server: RunningServer, tmp_path: Path):
    block = PYTHON_BLOCKS[4].replace("18811", str(server.port))
    assert run_block(server, tmp_path, f"{block}\nprint(result)\n") == "9\n"
    assert server.idle_status()["finished"] == 1


def test_every_file_it_names_exists():
    for name in re.findall(r"\]\(([^:)]+)\)", README):
        assert (ROOT / name.partition("#")[0]).exists(), name


def test_every_option_it_names_exists():
    for name in re.findall(r"^\| `(\w+\.py)[^`]*`", README, re.MULTILINE):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}"))
        shown = subprocess.check_output([sys.executable, str(ROOT / name), "--help"], text=True)
        for option in re.findall(r"(--\w+|-v)", row.split("|")[1]):
            assert option in shown, (name, option)


def test_its_figures_are_those_of_the_last_measurement():
    assert table.text(results.read()) in README
