"""On a worker, each program finds its own modules, and nothing of another one's."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distribute_challenge.calls import program
from distribute_challenge.calls.payload import NO_SCOPE, Module
from distribute_challenge.values import PROTOCOL
from distribute_challenge.worker.modules import MAX_ENDED, ProgramModules

ONE, TWO = b"1" * len(NO_SCOPE), b"2" * len(NO_SCOPE)


@pytest.fixture
def modules() -> Iterator[ProgramModules]:
    before = sys.meta_path[:], sys.path[:], dict(sys.modules), program.current.id
    modules = ProgramModules()
    yield modules
    modules.use(b"", NO_SCOPE)
    sys.meta_path[:], sys.path[:] = before[:2]
    for name in set(sys.modules).difference(before[2]):
        del sys.modules[name]
    sys.modules.update(before[2])
    program.current.id = before[3]


def packed(*modules: Module, folders: tuple[str, ...] = ()) -> bytes:
    return pickle.dumps((folders, [tuple(module) for module in modules]), PROTOCOL)


def module(name: str, text: str) -> Module:
    return Module(name, f"/nowhere/{name}.py", None, f"{name} {text}", text)


def test_each_program_has_its_own_modules_and_finds_them_again(modules: ProgramModules):
    for scope in (ONE, TWO):
        modules.use(packed(module("theirs", f"X = {scope!r}")), scope)
        importlib.import_module("theirs").seen = 0
    for _ in range(2):
        for scope in (ONE, TWO):
            modules.use(packed(module("theirs", f"X = {scope!r}")), scope)
            theirs = importlib.import_module("theirs")
            theirs.seen += 1
            assert scope == theirs.X
    assert theirs.seen == 2
    modules.use(b"", NO_SCOPE)
    with pytest.raises(ImportError):
        importlib.import_module("theirs")


def test_a_module_called_like_one_of_the_workers_hides_it_for_its_program_only(modules: ProgramModules):
    import colorsys

    modules.use(packed(module("colorsys", "X = 1")), ONE)
    assert importlib.import_module("colorsys").X == 1
    modules.use(b"", NO_SCOPE)
    assert importlib.import_module("colorsys") is colorsys
    modules.use(packed(module("colorsys", "X = 1")), ONE)
    assert importlib.import_module("colorsys").X == 1


def test_what_is_imported_from_a_programs_folders_is_its_alone(modules: ProgramModules, tmp_path: Path):
    (tmp_path / "beside.py").write_text("X = 1\n")
    modules.use(packed(folders=(str(tmp_path),)), ONE)
    assert importlib.import_module("beside").X == 1
    modules.use(b"", NO_SCOPE)
    assert "beside" not in sys.modules
    modules.use(packed(folders=(str(tmp_path),)), ONE)
    assert "beside" in sys.modules


def test_a_changed_text_is_loaded_into_the_same_module(modules: ProgramModules):
    modules.use(packed(module("changing", "X = 1\nY = globals().get('Y', 0) + 1")), ONE)
    before = importlib.import_module("changing")
    modules.use(packed(module("changing", "X = 2\nY = globals().get('Y', 0) + 1")), ONE)
    after = importlib.import_module("changing")
    assert after is before
    assert (after.X, after.Y) == (2, 2)


def test_a_changed_text_that_cannot_be_loaded_is_an_error_each_time(modules: ProgramModules):
    modules.use(packed(module("changing", "X = 1")), ONE)
    importlib.import_module("changing")
    broken = packed(module("changing", "1 / 0"))
    with pytest.raises(ZeroDivisionError):
        modules.use(broken, ONE)
    modules.use(broken, ONE)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("changing")


def test_programs_without_a_connection_are_forgotten_in_time(modules: ProgramModules):
    scopes = [bytes([number]) * len(NO_SCOPE) for number in range(1, MAX_ENDED + 3)]
    text = packed(module("counting", "N = 0"))
    for scope in scopes:
        modules.connect(scope)
        modules.use(text, scope)
        importlib.import_module("counting").N = 1
        modules.disconnect([scope])
    modules.use(b"", NO_SCOPE)
    modules.use(text, scopes[-1])
    assert importlib.import_module("counting").N == 1
    modules.use(text, scopes[0])
    assert importlib.import_module("counting").N == 0


def test_the_workers_own_modules_cannot_be_replaced(modules: ProgramModules):
    with pytest.raises(ImportError, match="cannot be replaced"):
        modules.use(packed(module("distribute_challenge.errors", "")), ONE)


def test_a_text_that_is_not_there_any_more_is_an_error(modules: ProgramModules):
    with pytest.raises(RuntimeError, match="has not come"):
        modules.use(packed(module("theirs", "X = 1")._replace(text=None)), ONE)
