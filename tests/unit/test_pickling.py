"""What is written in one pickle, and what is made of it, within one process."""

from __future__ import annotations

import copyreg
import ctypes
import dataclasses
import enum
import functools
import io
import json
import math
import pickle
import random
import struct
import sys
import threading
import types
import typing
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distribute_challenge.client.parcels.sending import NotAcrossVersions, Sender
from distribute_challenge.values.classes import apart
from distribute_challenge.values.functions import loading
from distribute_challenge.values.names import Name, name_of
from distribute_challenge.values.pickling import ReplyPickler


def written(value: Any, python: str | None = None) -> bytes:
    file = io.BytesIO()
    Sender(file, None, python).dump(value)
    return file.getvalue()


def again(value: Any) -> Any:
    return pickle.loads(written(value))


def script(text: str, tmp_path: Path) -> dict[str, Any]:
    """The global names of a script."""
    path = tmp_path / "script.py"
    path.write_text(text)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, str(path), "exec"), names)
    return names


@pytest.mark.parametrize(
    "value",
    [
        *(json.loads, json.JSONEncoder.encode, random.randint, len, dict, enum.Enum, again, json),
        *(dataclasses.MISSING, dataclasses.KW_ONLY, sys.version_info, typing.Any, typing.List),  # noqa: UP006
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_is_found_by_a_name_is_that_very_object(value: Any):
    assert again(value) is value


class ApiError(Exception):
    def __init__(self, code: int, data: dict[str, int]) -> None:
        super().__init__(f"error {code}")
        self.code, self.data = code, data

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.data)


class Slotted(Exception):
    __slots__ = ("place",)

    def __init__(self, place: int, *, why: str) -> None:
        super().__init__("slotted")
        self.place = place
        self.why = why


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (json.JSONDecodeError("Expecting value", "[1,", 3), ["msg", "doc", "pos", "lineno"]),
        (ApiError(404, {"a": 1}), ["code", "data"]),
        (Slotted(4, why="that"), ["place", "why"]),
        (ImportError("no", name="module", path="/a/path"), ["msg", "name", "path"]),
        (FileNotFoundError(2, "none", "file"), ["errno", "strerror", "filename"]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("direction", [Sender, ReplyPickler])
def test_an_exception_arrives_with_all_that_it_has(error: Exception, names: list[str], direction: Any):
    file = io.BytesIO()
    (Sender(file, None, None) if direction is Sender else ReplyPickler(file)).dump(error)
    made = pickle.loads(file.getvalue())
    assert (type(made), str(made)) == (type(error), str(error))
    assert [getattr(made, name) for name in names] == [getattr(error, name) for name in names]


def test_what_is_inside_a_decorated_function_of_a_module_has_a_name():
    assert name_of(decorated.__wrapped__) == Name(__name__, "decorated", 1)
    assert again(decorated.__wrapped__) is decorated.__wrapped__


@functools.lru_cache
def decorated():
    return 1


def test_closures_share_their_cells(tmp_path: Path):
    names = script(
        "def make():\n    n = 0\n    def add():\n        nonlocal n\n        n += 1\n"
        "    def read():\n        return n\n    return add, read\n",
        tmp_path,
    )
    add, read = again(names["make"]())
    add()
    assert read() == 1


def test_functions_of_one_script_share_their_global_names_also_in_two_pickles(tmp_path: Path):
    names = script("X = []\ndef add(): X.append(1)\ndef read(): return X\n", tmp_path)
    with loading("", {}):
        add, read = pickle.loads(written(names["add"])), pickle.loads(written(names["read"]))
        assert add.__globals__ is read.__globals__
        assert add.__globals__ is not names
    assert pickle.loads(written(names["add"])).__globals__ is not add.__globals__


def test_a_closure_of_a_module_has_the_global_names_of_that_module():
    assert again(lambda: script).__globals__ is globals()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
def test_type_parameters_and_aliases(tmp_path: Path):
    names = script(
        "def f[T: int, *Ts, **P](x: T) -> T:\n    return x\ntype Alias[T] = list[T]\n"
        "class C[*Ts, **P]:\n    def m(self): return Ts, P\n",
        tmp_path,
    )
    f = again(names["f"])
    assert [param.__name__ for param in f.__type_params__] == ["T", "Ts", "P"]
    assert f(1) == 1
    alias = again(names["Alias"])
    assert alias.__value__.__args__ == alias.__type_params__
    assert again(alias[int]).__args__ == (int,)
    assert again(names["C"])().m()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (threading.Lock(), "lock"),
        (weakref.WeakSet([decorated]), "WeakSet"),
        (sys.modules["__main__"], "__main__"),
        (3 * ctypes.c_int, "PyCArrayType, which C code has made"),
        (type(iter([])), "list_iterator, which C code has made"),
    ],
    ids=["lock", "weak set", "the script", "ctypes", "a type without a name"],
)
def test_what_cannot_travel_is_refused(value: Any, words: str):
    with pytest.raises(TypeError, match=words):
        written(value)


def test_an_open_file_is_refused(tmp_path: Path):
    with (tmp_path / "file").open("w+") as file, pytest.raises(TypeError, match="open file"):
        written(file)


def test_code_without_a_text_does_not_cross_versions(tmp_path: Path):
    other = "3.10" if sys.version_info[:2] != (3, 10) else "3.11"
    names = script("f = lambda: 1\ndef g(): return 1\n", tmp_path)
    with pytest.raises(NotAcrossVersions, match="<lambda>"):
        written(names["f"], other)
    assert pickle.loads(written(names["g"], other))() == 1


def test_a_pickle_of_code_that_another_version_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = script("f = lambda: 1\n", tmp_path)
    data = written(names["f"])
    monkeypatch.setattr("importlib.util.MAGIC_NUMBER", b"else")
    with pytest.raises(TypeError, match="does not cross"):
        pickle.loads(data)


def test_a_module_made_at_run_time_and_its_functions_stay_together():
    module = types.ModuleType("made")
    exec("X = 1\ndef f(): return X\ndef g(): return f()", vars(module))
    copy, f = again((module, module.f))
    copy.X = 2
    assert (f(), copy.g(), module.g()) == (2, 2, 1)


def test_a_class_goes_back_as_itself(tmp_path: Path):
    names = script("class C:\n    def m(self): return 1\n", tmp_path)
    file = io.BytesIO()
    with apart():  # As on a worker, which has a copy.
        copy = again(names["C"])
        ReplyPickler(file).dump((copy, copy().m))
    cls, method = pickle.loads(file.getvalue())
    assert cls is names["C"]
    assert method.__func__ is names["C"].m


def test_a_library_that_has_a_way_for_all_exceptions_does_not_get_this_ones(monkeypatch: pytest.MonkeyPatch):
    """As `import distributed` does it: what its own class keeps would be lost."""

    def generally(error: BaseException) -> Any:
        return type(error).__new__, (type(error), *error.args)

    for kind in (Exception, Slotted):
        monkeypatch.setitem(copyreg.dispatch_table, kind, generally)
    made = again(Slotted(4, why="that"))
    assert (made.place, made.why) == (4, "that")
    monkeypatch.setitem(copyreg.dispatch_table, Slotted, lambda _: (str, ("its own",)))
    assert again(Slotted(4, why="that")) == "its own"


def test_an_object_of_a_class_that_is_false_comes_back(tmp_path: Path):
    names = script(
        "class Registry(type):\n    def __len__(cls): return len(cls.items)\n\n"
        "class Empty(metaclass=Registry):\n    items = ()\n",
        tmp_path,
    )
    assert not names["Empty"]
    copy = again(names["Empty"]())
    sent_back = io.BytesIO()
    ReplyPickler(sent_back).dump(copy)
    assert type(pickle.loads(sent_back.getvalue())) is names["Empty"]


class Holds:
    """Its state is whatever it holds."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __getstate__(self) -> Any:
        return self.held

    def __setstate__(self, state: Any) -> None:
        self.held = state


@pytest.mark.parametrize("held", [np.arange(3), 0, [], ()], ids=repr)
def test_any_state_arrives(held: Any, tmp_path: Path):
    np.testing.assert_array_equal(again(Holds(held)).held, held)
    names = script("class Holds:\n    pass\n", tmp_path)
    names["Holds"].__getstate__, names["Holds"].__setstate__ = Holds.__getstate__, Holds.__setstate__
    names["one"] = names["Holds"]()  # One that its script has by a name.
    names["one"].held = held
    np.testing.assert_array_equal(again(names["one"]).held, held)


@pytest.mark.parametrize("form", ["B", "b", "d", "i", "c", "?"])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (0,)])
def test_a_view_of_memory_arrives_with_its_form(form: str, shape: tuple[int, ...]):
    data = bytes(math.prod(shape) * struct.calcsize(form))
    view = memoryview(data).cast(form) if len(shape) == 1 else memoryview(data).cast(form, shape)
    made = again(view)
    assert (made.format, made.shape, made.tobytes()) == (form, shape, data)
    with pytest.raises((TypeError, ValueError)):
        written(memoryview(np.zeros(3, ">f8")))
