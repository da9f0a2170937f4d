"""The command `compute`, as a user has it who has installed the package and has no clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import processors
from tests.running import HANG_S, ROOT, script

BESIDE = {"server": "server.py", "worker": "worker.py", "graph": "grapher.py", "benchmark": "benchmark.py"}
SOURCES = ("distribute_challenge", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but what the wheel holds. The wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("installed")
    clone = folder / "clone"
    clone.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, clone / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(clone)]
    made = subprocess.run(build, capture_output=True, text=True, timeout=3 * HANG_S)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "deprecated" not in made.stdout + made.stderr
    shutil.rmtree(clone)
    [wheel] = folder.glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder / "site"),
    ]
    subprocess.run([*install, str(wheel)], check=True, timeout=HANG_S)
    return folder / "site"


def compute(installed: Path, folder: Path, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run(
        [sys.executable, str(installed / "bin" / "compute"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        **how,
    )


def test_the_wheel_serves_runs_and_draws(installed: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, str(installed / "bin" / "compute"), "server", "--port", "0"]
    program = tmp_path / "program.py"
    program.write_text(
        "import distribute_challenge\n"
        "@distribute_challenge.compute_this\n"
        "def func(x):\n"
        "    return x * x\n"
        "print(func(3).run(), distribute_challenge.__file__)\n"
    )
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            assert ready.startswith("ready: ")
            environment["COMPUTE_SERVER"] = ready.split()[1].rstrip(",")
            result = subprocess.check_output(
                [sys.executable, str(program)], cwd=tmp_path, env=environment, text=True, timeout=HANG_S
            )
        finally:
            server.terminate()
            server.wait(HANG_S)
        assert server.returncode == 0
    assert result.split() == ["9", str(installed / "distribute_challenge" / "__init__.py")]
    drawn = compute(installed, tmp_path, "graph", f"results_{processors.usable()}.csv")
    assert "Throughput = " in drawn.stdout, drawn.stderr
    assert (tmp_path / "plots" / "busy.pdf").read_bytes().startswith(b"%PDF")


def test_the_wheel_measures(installed: Path, tmp_path: Path):
    words = ("--workers", "1", "--clients", "1", "--tasks", "1", "--seconds", "0.1")
    measured = compute(installed, tmp_path, "benchmark", *words)
    assert measured.returncode == 0, measured.stderr
    assert "efficiency" in measured.stdout


@pytest.mark.parametrize("command", BESIDE)
def test_a_command_is_the_script_beside_it(installed: Path, tmp_path: Path, command: str):
    """The same arguments, and the same words about wrong ones, but for the name that the user typed."""
    for words in (["--help"], ["--no-such-option"], ["no-such-thing"]):
        by_name = compute(installed, tmp_path, command, *words)
        by_script = script(BESIDE[command], *words, cwd=tmp_path)
        assert by_name.returncode == by_script.returncode
        for one, other in ((by_name.stdout, by_script.stdout), (by_name.stderr, by_script.stderr)):
            assert one.replace(f"compute {command}", BESIDE[command]).split() == other.split()


def test_a_command_that_is_missing_or_unknown_is_said_in_one_line(installed: Path, tmp_path: Path):
    for words in ([], ["serve"]):
        said = compute(installed, tmp_path, *words)
        assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
        assert "see `compute --help`" in said.stderr


def test_a_pool_has_as_many_workers_as_there_are_processors(tmp_path: Path):
    """Those that this process may use: here, one."""
    one = f"""
import os, psutil, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
sys.path.insert(0, {str(ROOT)!r})
from distribute_challenge import PoolExecutor
with PoolExecutor("local://") as pool:
    pool.submit(abs, -1).result()
    processes = psutil.Process().children(recursive=True)
    print(sum(process.name().startswith("worker ") for process in processes))
"""
    said = subprocess.check_output([sys.executable, "-c", one], text=True, cwd=tmp_path, timeout=HANG_S)
    assert said == "1\n"
