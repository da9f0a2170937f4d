"""On a worker, each program finds its own modules, and nothing of another one's."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from distribute_challenge.calls.payload import NO_PROGRAM, Module
from distribute_challenge.calls.program import current
from distribute_challenge.client.parcels.modules import modules_for
from distribute_challenge.values import PROTOCOL
from distribute_challenge.worker.modules import MAX_ENDED, ProgramModules

ONE, TWO = b"1" * len(NO_PROGRAM), b"2" * len(NO_PROGRAM)


dropped: list[bytes] = []


@pytest.fixture
def modules() -> Iterator[ProgramModules]:
    before = sys.meta_path[:], sys.path[:], dict(sys.modules), current.id
    modules = ProgramModules(dropped.append)
    yield modules
    modules.use(b"", NO_PROGRAM)
    sys.meta_path[:], sys.path[:] = before[:2]
    for name in set(sys.modules).difference(before[2]):
        del sys.modules[name]
    sys.modules.update(before[2])
    current.id = before[3]


def packed(*modules: Module, folders: tuple[str, ...] = ()) -> bytes:
    return pickle.dumps((folders, [tuple(module) for module in modules]), PROTOCOL)


def module(name: str, text: str) -> Module:
    return Module(name, f"/nowhere/{name}.py", None, f"{name} {text}", text)


def test_each_program_has_its_own_modules_and_finds_them_again(modules: ProgramModules):
    for program in (ONE, TWO):
        modules.use(packed(module("theirs", f"X = {program!r}")), program)
        importlib.import_module("theirs").seen = 0
    for _ in range(2):
        for program in (ONE, TWO):
            modules.use(packed(module("theirs", f"X = {program!r}")), program)
            theirs = importlib.import_module("theirs")
            theirs.seen += 1
            assert program == theirs.X
    assert theirs.seen == 2
    modules.use(b"", NO_PROGRAM)
    with pytest.raises(ImportError):
        importlib.import_module("theirs")


def test_a_module_called_like_one_of_the_workers_hides_it_for_its_program_only(modules: ProgramModules):
    import colorsys

    modules.use(packed(module("colorsys", "X = 1")), ONE)
    assert importlib.import_module("colorsys").X == 1
    modules.use(b"", NO_PROGRAM)
    assert importlib.import_module("colorsys") is colorsys
    modules.use(packed(module("colorsys", "X = 1")), ONE)
    assert importlib.import_module("colorsys").X == 1


def test_what_is_imported_from_a_programs_folders_is_its_alone(modules: ProgramModules, tmp_path: Path):
    (tmp_path / "beside.py").write_text("X = 1\n")
    modules.use(packed(folders=(str(tmp_path),)), ONE)
    assert importlib.import_module("beside").X == 1
    modules.use(b"", NO_PROGRAM)
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
    programs = [bytes([number]) * len(NO_PROGRAM) for number in range(1, MAX_ENDED + 3)]
    text = packed(module("counting", "N = 0"))
    for program in programs:
        modules.connect(program)
        modules.use(text, program)
        importlib.import_module("counting").N = 1
        modules.disconnect([program])
    modules.use(b"", NO_PROGRAM)
    assert dropped[-2:] == programs[:2]
    modules.use(text, programs[-1])
    assert importlib.import_module("counting").N == 1
    modules.use(text, programs[0])
    assert importlib.import_module("counting").N == 0


def test_a_program_that_has_come_back_is_not_forgotten(modules: ProgramModules):
    """It has closed all of its connections, and made another one, as many others come and go."""
    text = packed(module("theirs", "N = 0"))
    for _ in range(2):
        modules.connect(ONE)
        modules.use(text, ONE)
        importlib.import_module("theirs").N += 1
        modules.disconnect([ONE])
    modules.connect(ONE)
    dropped.clear()
    for number in range(2 * MAX_ENDED):
        other = number.to_bytes(len(NO_PROGRAM), "big")
        modules.connect(other)
        modules.use(text, other)
        modules.disconnect([other])
    assert ONE not in dropped
    assert len(dropped) >= MAX_ENDED - 1
    modules.use(text, ONE)
    assert importlib.import_module("theirs").N == 2


def test_the_workers_own_modules_cannot_be_replaced(modules: ProgramModules):
    with pytest.raises(ImportError, match="cannot be replaced"):
        modules.use(packed(module("distribute_challenge.errors", "")), ONE)


def test_a_text_that_is_not_there_any_more_is_an_error(modules: ProgramModules):
    with pytest.raises(RuntimeError, match="has not come"):
        modules.use(packed(module("theirs", "X = 1")._replace(text=None)), ONE)


class TwoAtOnce:
    """A loader whose text is read by two threads at the same moment, or by none."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def get_source(self, name: str) -> str:
        del name
        self.barrier.wait(timeout=60)
        return "X = 1"


def test_threads_that_read_a_module_at_once_send_the_same_one(monkeypatch: pytest.MonkeyPatch):
    """Else a worker that has it from one thread would not know what the other one means by its digest."""
    theirs = types.ModuleType("read_by_two")
    theirs.__file__ = "/nowhere/read_by_two.py"
    theirs.__spec__ = ModuleSpec("read_by_two", TwoAtOnce(), origin=theirs.__file__)
    monkeypatch.setitem(sys.modules, "read_by_two", theirs)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(modules_for, [frozenset({"read_by_two"})] * 2)
    assert first.digests == second.digests


def test_after_a_reload_that_failed_calls_of_before_find_what_was_before(modules: ProgramModules):
    """As those of a program whose forked child has loaded its module anew."""
    one, two = packed(module("theirs", "X = 1")), packed(module("theirs", "X = "))
    for _ in range(2):
        modules.use(one, ONE)
        assert importlib.import_module("theirs").X == 1
        with pytest.raises(SyntaxError):
            modules.use(two, ONE)


def test_texts_of_before_a_reload_are_kept_for_calls_that_are_in_line(modules: ProgramModules):
    one, two = module("theirs", "X = 1"), module("theirs", "X = 2")
    for each in (one, two, one._replace(text=None), two._replace(text=None)):
        modules.use(packed(each), ONE)
        assert int(each.digest[-1]) == importlib.import_module("theirs").X


def test_a_program_that_changes_its_folder_finds_modules_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With an empty entry on its path, as in `python -c` and in an interactive session."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for name in ("first", "second", "first"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert str(folder) in modules_for(frozenset()).folders
