"""Whatever a script is made of, its functions give on the pool what they give here.

`HYPOTHESIS_PROFILE=explore` tries other scripts than usual, and `EXAMPLES=2000` so many.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from distribute_challenge import PoolExecutor
from tests.running import HANG_S, RunningServer
from tests.scripts import scripts

EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
numbers = itertools.count()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolExecutor]:
    server = RunningServer(2, folder=tmp_path_factory.mktemp("server"))
    with PoolExecutor(server.address) as pool:
        yield pool
    server.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scripts")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def run_as_script(path: Path) -> dict[str, Any]:
    """The global names of a script, which is in a file and cannot be imported."""
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), names)
    return names


def import_it(path: Path) -> dict[str, Any]:
    importlib.invalidate_caches()
    return vars(importlib.import_module(path.stem))


@pytest.mark.parametrize("load", [run_as_script, import_it], ids=["script", "module"])
@pytest.mark.timeout(20 * HANG_S)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=scripts())
def test_every_function_of_a_script_gives_on_the_pool_what_it_gives_here(
    text: str, load: Any, pool: PoolExecutor, folder: Path
):
    path = folder / f"made_up_{os.getpid()}_{next(numbers)}.py"
    path.write_text(text)
    names = load(path)
    for name in sorted(name for name in names if name.startswith("task")):
        got = outcome(pool.submit(names[name]).result, HANG_S)
        expected = outcome(names[name])
        assert (got, shown(got)) == (expected, shown(expected)), f"{name} of {path}"


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What becomes of a call, also if it raises."""
    try:
        return call(*args)
    except Exception as error:
        return type(error), str(error)


def shown(value: Any) -> str:
    """Its repr, but for where it is in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
