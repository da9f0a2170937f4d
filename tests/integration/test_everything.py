"""Every kind of function, argument and result: of a script, and across versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rpyc

from tests.cases import everything
from tests.running import ROOT, RunningServer

LIMIT_S = 150
HERE = f"3.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = RunningServer(2, folder=tmp_path_factory.mktemp("server"))
    yield server.address
    server.close()


def run_cases(address: str, python: str, *arguments: str) -> list[str]:
    """What the program said, line by line."""
    environment = {**os.environ, "COMPUTE_SERVER": address, "PYTHONPATH": f"{ROOT}:{libraries()}"}
    command = [python, str(ROOT / "tests" / "cases" / "everything.py"), *arguments]
    result = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def libraries() -> Path:
    """Where RPyC and cloudpickle are: pure Python, so that other versions can use them, too."""
    return Path(rpyc.__file__).parents[1]


def test_functions_of_a_script(address: str):
    assert run_cases(address, sys.executable) == [f"ok {name}" for name in everything.CASES]


def other_pythons() -> dict[str, str]:
    """Interpreters of other versions that are on this machine."""
    found = {}
    for minor in range(10, 16):
        version = f"3.{minor}"
        candidates = [shutil.which(f"python{version}")]
        candidates += map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
        for python in filter(None, candidates):
            probe = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            said = subprocess.run(probe, capture_output=True, text=True, check=False).stdout.strip()
            if version != HERE and said == version:
                found[version] = python
    return found


OTHERS = other_pythons()


@pytest.mark.skipif(not OTHERS, reason="no other version of Python (3.10 to 3.15) was found on this machine")
@pytest.mark.parametrize("version", sorted(OTHERS))
def test_plain_functions_cross_from_here_to_another_version(
    version: str, start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{libraries()}")
    server = start_server(2, python=OTHERS[version])
    assert server.status()["python"].startswith(f"{version}.")
    expected = [f"ok {name}" for name in everything.CASES if name in everything.PLAIN]
    assert run_cases(server.address, sys.executable, "--plain") == expected


@pytest.mark.skipif(not OTHERS, reason="no other version of Python (3.10 to 3.15) was found on this machine")
@pytest.mark.parametrize("version", sorted(OTHERS))
def test_plain_functions_cross_from_another_version_to_here(version: str, address: str):
    expected = [f"ok {name}" for name in everything.CASES if name in everything.PLAIN]
    assert run_cases(address, OTHERS[version], "--plain") == expected


CANNOT_CROSS = """
import collections, dataclasses
from distribute_challenge import compute_this

class Box:
    def __init__(self, content): self.content = content
    def doubled(self): return Box(2 * self.content)

@dataclasses.dataclass
class Generated:
    x: int = 1

def make(n):
    def closure(): return n
    return closure

inner = make(1)

@compute_this
def takes(x): return x
@compute_this
def makes(n): return Box(n).doubled()
@compute_this
def uses(): return inner()
@compute_this
def generates(): return Generated()

assert (makes(2).run().content, type(makes(2).run()), uses().run()) == (4, Box, 1)
assert takes(Box(3)).run().content == 3
for call, words in (
    (takes(Generated()), "the class Generated"),
    (generates(), "the class Generated"),
    (compute_this(lambda: 1)(), "<lambda>"),
    (takes(lambda: 1), "<lambda>"),
):
    try:
        call.run()
    except TypeError as error:
        assert type(error).__name__ == "TaskNotSendable", error
        assert words in str(error) and "does not cross from Python" in str(error), error
    else:
        raise AssertionError(words)
print(takes(5).run())
"""


@pytest.mark.skipif(not OTHERS, reason="no other version of Python (3.10 to 3.15) was found on this machine")
def test_closures_and_classes_cross_and_what_cannot_is_said_before_a_worker_is_taken(
    address: str, tmp_path: Path
):
    script = tmp_path / "script.py"
    script.write_text(CANNOT_CROSS)
    environment = {**os.environ, "COMPUTE_SERVER": address, "PYTHONPATH": f"{ROOT}:{libraries()}"}
    for python in OTHERS.values():
        result = subprocess.run(
            [python, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (result.stdout, result.stderr) == ("5\n", "")
