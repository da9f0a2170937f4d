"""Functions that are kept, at the client and on workers, are never found in another state than sent."""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import compute_this
from distribute_challenge.calls.constant import Snapshot, snapshot
from distribute_challenge.calls.payload import INITIALIZER, PRINTS, VALUE, Outcome
from distribute_challenge.calls.reuse import MAX_FUNCTION_BYTES, Kept
from distribute_challenge.calls.runner import Runner
from distribute_challenge.client.parcels.parcel import ANYWHERE, Destination, Written
from distribute_challenge.client.parcels.shipping import Shipment, shipment_of
from distribute_challenge.values.classes import apart

SCRIPT = """
import collections, datetime, decimal, enum, functools, json, math, re, types, typing, xml
import random as random_module
from math import sqrt
from random import getrandbits as draw_integers, random
from re import DOTALL, IGNORECASE

CONSTANT = 5
LIST = [1]

def helper(x):
    return x + CONSTANT

def uses_a_helper(x):
    return helper(x) + math.floor(0.5)

def uses_libraries(x):
    return sqrt(x), json.loads("1"), collections.OrderedDict, annotated(x)

def annotated(x: int, y: "str" = "y") -> list[int] | None:
    return None

def counts(x):
    global CONSTANT
    CONSTANT += x
    return CONSTANT

def marks_itself(x):
    marks_itself.calls = getattr(marks_itself, "calls", 0) + x
    return marks_itself.calls

def annotates_itself(x):
    annotates_itself.__annotations__["x"] = annotates_itself.__annotations__.get("x", 0) + x
    return annotates_itself.__annotations__["x"]

def changes_a_helper(x):
    helper.__defaults__ = (x,)
    return helper()

def replaces_a_helper(x):
    global helper
    before = helper(0)
    helper = lambda y: y + 100
    return before + x

def renames_itself(x):
    before = renames_itself.__name__, renames_itself.__doc__
    renames_itself.__name__, renames_itself.__doc__ = "other", "text"
    return x if before == ("renames_itself", None) else before

def binds_a_new_name(x):
    names = globals()
    names["new"] = names.get("new", 0) + x
    return names["new"]

def starts_a_thread():
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def starts_a_thread_while_a_connection_ends():
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    (peer,) = [thread for thread in threading.enumerate() if thread.name == "peer 127.0.0.1:1"]
    peer.may_end.set()
    peer.join()

def begins_a_connection():
    import threading
    threading.Thread(target=threading.Event().wait, name="peer 127.0.0.1:2", daemon=True).start()

def appends(x):
    LIST.append(x)
    return len(LIST)

def notes_a_call(x):
    import builtins
    builtins.noted_calls.append(x)

def raises_after_a_change(x):
    global CONSTANT
    CONSTANT = 1000
    raise ValueError(x)

def counting():
    count = 0
    def count_on(x):
        nonlocal count
        count += x
        return count
    return count_on

counts_on = counting()

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorated
def wrapped(x):
    return x + CONSTANT

settings = types.ModuleType("settings")
settings.number = 1

def uses_a_module_made_here(x):
    settings.number += x
    return settings.number

class Sly:
    def __getattr__(self, name):
        raise RuntimeError("not now")

sly = None

def uses_something_sly(x):
    return x, sly

def uses_a_package(x):
    return xml.__name__ + str(x)

class Base:
    unit = "m"

class Shape(Base):
    'Has a size.'
    scale: int = 2
    class Inner:
        pass
    def __init__(self, size):
        self._size = size
    def area(self):
        return __class__.scaled(self.size)
    @property
    def size(self):
        return self._size + CONSTANT
    @classmethod
    def scaled(cls, number):
        return cls.plus_nothing(number) * cls.scale
    @staticmethod
    def plus_nothing(number):
        return number

def uses_a_class(x):
    return Shape(x).area(), Shape.unit

def counts_in_a_class(x):
    Shape.scale += x
    return Shape.scale

def replaces_a_method(x):
    before = Shape(x).area()
    Shape.area = lambda self: 0
    return before

class Metric(type):
    unit = "m"

class Imperial(type):
    unit = "ft"

class Square(Base, typing.Generic[typing.TypeVar("T")], metaclass=Metric):
    pass

class Feet:
    unit = "ft"

def uses_a_generic_class(x):
    return Square.unit, type(Square).unit, typing.get_args(Square[int])

def replaces_a_base(x):
    before = Shape.unit
    Shape.__bases__ = (Feet,)
    return before

def replaces_a_metaclass(x):
    before = type(Square).unit
    Square.__class__ = Imperial
    return before

def takes_an_object(made):
    return isinstance(made, Base) and made.unit

class Colour(enum.Enum):
    RED = 1

PATTERN, LONG_AGO, LIMIT = re.compile("a+"), datetime.date(1970, 1, 1), decimal.Decimal("1.5")

def uses_values_that_never_change(x):
    return bool(PATTERN.match("aa")), LONG_AGO.year, LIMIT, IGNORECASE | DOTALL, ...

def draws(x):
    return random() < 1 and random is random_module.random and draw_integers(1) in (0, 1)

def uses_its_enum(x):
    return Colour.RED.value
"""


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Any]:
    """The global names of a script. (What is in this file would travel by its name.)"""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(SCRIPT, str(path), "exec"), names)
    return names


def run(runner: Runner, shipment: Shipment, *args: Any) -> Any:
    parcel = shipment.parcel(args, {})
    kind, content, seconds, *_ = runner.run(parcel.source, parcel.call())
    return Outcome(kind, content, seconds, 0, ()).load()


def watched(function: Callable[..., Any]) -> Snapshot:
    found = snapshot(function)
    assert found is not None
    assert found.still_holds()
    return found


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("uses_a_helper", 6),
        ("counts", 6),
        ("marks_itself", 1),
        ("annotates_itself", 1),
        ("changes_a_helper", 6),
        ("replaces_a_helper", 6),
        ("appends", 2),
        ("uses_a_module_made_here", 2),
        ("renames_itself", 1),
        ("binds_a_new_name", 1),
        ("counts_on", 1),
        ("wrapped", 6),
        ("uses_a_class", (12, "m")),
        ("counts_in_a_class", 3),
        ("replaces_a_method", 12),
        ("replaces_a_base", "m"),
        ("replaces_a_metaclass", "m"),
        ("draws", True),
        ("uses_its_enum", 1),
    ],
)
def test_each_call_finds_the_function_as_it_was_sent(name: str, result: int, names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names[name])
    with apart():  # As on a worker, whose classes are copies.
        assert [run(runner, shipment, 1) for _ in range(3)] == [result] * 3


def test_a_call_that_raised_leaves_nothing_to_the_next(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["raises_after_a_change"])
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            run(runner, shipment, 7)
    assert run(runner, Shipment(names["uses_a_helper"]), 1) == 6


def test_a_function_that_leaves_a_thread_is_not_kept(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["starts_a_thread"])
    parcel = shipment.parcel((), {})
    run(runner, shipment)
    assert not runner.keeps(parcel.source, parcel.call())


@pytest.mark.parametrize(
    ("name", "leaves"), [("starts_a_thread_while_a_connection_ends", True), ("begins_a_connection", False)]
)
def test_threads_of_connections_are_not_a_functions(name: str, leaves: bool, names: dict[str, Any]):
    """On a worker, those of other clients come and go while a function runs."""
    runner, may_end = Runner(), threading.Event()
    peer: Any = threading.Thread(target=may_end.wait, name="peer 127.0.0.1:1")
    peer.may_end = may_end
    peer.start()
    try:
        run(runner, Shipment(names[name]))
        assert runner.has_left_threads is leaves
    finally:
        may_end.set()


@pytest.mark.parametrize(
    "name",
    [
        *("uses_a_helper", "uses_libraries", "wrapped", "counts_on", "annotated", "uses_a_class", "draws"),
        "uses_values_that_never_change",
    ],
)
def test_a_constant_function_is_written_once_and_kept(name: str, names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names[name])
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert runner.keeps(parcel.source, parcel.call())
    assert shipment.dump_function(None) is shipment.dump_function(None)


@pytest.mark.parametrize(("meanwhile", "writes"), [(5, 1), (1000, 2)], ids=["and back", "twice"])
def test_what_another_thread_binds_while_a_function_is_written_does_not_stay(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, meanwhile: int, writes: int
):
    """It binds that as it was before at once, or a little later, and then does it all again."""
    shipment = Shipment(names["uses_a_helper"])
    dump = Shipment._dump

    def dump_while_it_changes(self: Shipment, *args: Any, **how: Any) -> Written:
        names["CONSTANT"] = 1000
        written = dump(self, *args, **how)
        names["CONSTANT"] = meanwhile
        return written

    with monkeypatch.context() as patched:
        patched.setattr(Shipment, "_dump", dump_while_it_changes)
        for _ in range(writes):
            shipment.dump_function(None)
            names["CONSTANT"] = 5
    assert [run(Runner(), shipment, 1) for _ in range(3)] == [6] * 3


class Expression:
    """It looks like an alias of typing."""

    __args__ = ()


def test_an_object_of_any_class_may_change(names: dict[str, Any]):
    names["CONSTANT"] = Expression()
    assert snapshot(names["helper"]) is None


def test_a_function_of_a_module_is_kept():
    runner, shipment = Runner(), Shipment(run)
    parcel = shipment.parcel((), {})
    with pytest.raises(TypeError):
        run(runner, shipment)
    assert runner.keeps(parcel.source, parcel.call())


def test_a_function_that_runs_is_not_called_again_by_another_call(names: dict[str, Any]):
    kept, shipment = Kept(), Shipment(names["uses_a_helper"])
    parcel = shipment.parcel((1,), {})
    key, arguments = (b"", parcel.source, parcel.call().function), parcel.call().arguments
    first, second = kept.load(key, arguments), kept.load(key, arguments)
    assert first.function is not second.function
    kept.put(key, first.known)
    assert kept.load(key, arguments).function is first.function


def test_a_kept_function_is_of_the_module_that_its_program_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Two programs may have modules of one name."""
    functions = []
    runner = Runner()
    (tmp_path / "theirs.py").touch()
    for number in (1, 2):
        module = types.ModuleType("theirs")
        module.__file__ = str(tmp_path / "theirs.py")
        exec(f"def f():\n    return {number}", vars(module))
        monkeypatch.setitem(sys.modules, "theirs", module)
        functions.append(run(runner, Shipment(module.f)))
    assert functions == [1, 2]


def test_a_module_that_was_made_at_run_time_is_sent_as_it_is_now(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["uses_a_module_made_here"])
    assert run(runner, shipment, 1) == 2
    names["settings"].number = 10
    assert run(runner, shipment, 1) == 11


def test_a_global_that_cannot_be_looked_at_is_no_obstacle(names: dict[str, Any]):
    names["sly"] = names["Sly"]()
    assert snapshot(names["uses_something_sly"]) is None


def test_the_same_large_bytes_travel_once_in_a_chunk(names: dict[str, Any]):
    blob = bytes(1 << 20)
    parcel = Shipment(names["uses_a_helper"]).chunk(
        Written(b""), [[blob] * 20, list(range(20))], ANYWHERE, PRINTS
    )
    assert parcel.size < 2 << 20


def test_functions_that_hold_none_of_the_values_that_have_gone_are_kept(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["uses_a_helper"])
    run(runner, shipment, 1)
    parcel = shipment.parcel((1,), {})
    assert runner.forget_holders([b"a token that it does not hold"]) == []
    assert runner.keeps(parcel.source, parcel.call())
    (dropped,) = runner.forget_holders([parcel.function[10:26]])
    assert dropped() is None
    assert not runner.keeps(parcel.source, parcel.call())


def test_only_the_latest_functions_are_kept(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distribute_challenge.calls.reuse.MAX_KEPT", 2)
    runner = Runner()
    shipments = [Shipment(names[name]) for name in ("uses_a_helper", "annotated", "uses_a_package")]
    for shipment in shipments:
        run(runner, shipment, 1)
    calls = [shipment.parcel((1,), {}) for shipment in shipments]
    assert [runner.keeps(call.source, call.call()) for call in calls] == [False, True, True]


def test_one_function_that_holds_much_is_kept_by_who_sends_it():
    def length_of(text: str) -> Callable[[], int]:
        return lambda: len(text)

    kept: list[weakref.ref[Callable[[], int]]] = []
    for size in (100, 2 << 20, 3 << 20):
        function = length_of("x" * size)
        shipment = shipment_of(function)
        shipment.parcel((), {})
        assert shipment_of(function) is shipment
        kept.append(weakref.ref(function))
        del function, shipment
    gc.collect()
    assert [function() is not None for function in kept] == [True, False, True]


def test_only_the_latest_functions_are_kept_by_who_sends_them():
    made = []
    for number in range(200):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def f(x):\n    return x + {number}", names)
        shipment_of(names["f"])
        made.append(weakref.ref(names["f"]))
    gc.collect()
    assert shipment_of(names["f"]) is shipment_of(names["f"])
    assert sum(function() is not None for function in made) <= 100


def test_only_small_functions_are_kept():
    """They are kept by the hundred: in no more memory than a few megabytes."""
    runner, kept = Runner(), []
    for size in (MAX_FUNCTION_BYTES // 2, MAX_FUNCTION_BYTES):
        value = "x" * size

        def uses_a_text(begin: int, value: str = value) -> int:
            return begin + len(value)

        shipment = Shipment(uses_a_text)
        assert run(runner, shipment, 1) == size + 1
        parcel = shipment.parcel((1,), {})
        kept.append(runner.keeps(parcel.source, parcel.call()))
    assert kept == [True, False]


def test_an_initializer_runs_once_for_each_executor_until_that_is_forgotten(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    runner, calls = Runner(), []

    def prepare(number: int) -> None:
        to = Destination(program=bytes([number]) * 16)
        parcel = Shipment(names["notes_a_call"]).parcel((number,), {}, to, INITIALIZER)
        assert runner.run(parcel.source, parcel.call()).kind == VALUE

    monkeypatch.setattr("builtins.noted_calls", calls, raising=False)
    for number in (1, 2, 2, 1):
        prepare(number)
    runner.forget(bytes([1]) * 16)
    for number in (2, 1):
        prepare(number)
    assert calls == [1, 2, 1]


def test_new_annotations_are_noticed(names: dict[str, Any]):
    function = names["annotated"]
    before = watched(function)
    function.__annotations__ = dict(function.__annotations__)
    assert not before.still_holds()
    before = watched(function)
    function.__annotations__["z"] = int
    assert not before.still_holds()


def test_what_may_change_inside_is_not_kept(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["appends"])
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert not runner.keeps(parcel.source, parcel.call())
    assert shipment.dump_function(None) is not shipment.dump_function(None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONSTANT", 6), ("CONSTANT", True), ("helper", lambda x: x), ("helper", None), ("math", None)],
)
def test_a_name_that_is_bound_anew_is_noticed(name: str, value: object, names: dict[str, Any]):
    before = watched(names["uses_a_helper"])
    names[name] = value
    assert not before.still_holds()


def test_a_name_that_is_bound_for_the_first_time_is_noticed(names: dict[str, Any]):
    before = watched(names["uses_a_helper"])
    del names["CONSTANT"]
    assert not before.still_holds()
    unbound = watched(names["uses_a_helper"])
    names["CONSTANT"] = 5
    assert not unbound.still_holds()


def test_changes_of_a_helper_are_noticed(names: dict[str, Any]):
    before, helper = watched(names["uses_a_helper"]), names["helper"]
    for attribute, value in (("__code__", (lambda x: x).__code__), ("__defaults__", (1,)), ("mark", 1)):
        old = getattr(helper, attribute, None)
        setattr(helper, attribute, value)
        assert not before.still_holds()
        delattr(helper, attribute) if attribute == "mark" else setattr(helper, attribute, old)
        assert before.still_holds()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            ("Shape.area", lambda _: 0),
            ("Shape.scale", 3),
            ("Shape.more", 1),
            ("Shape.__qualname__", "Other"),
        ),
        *(
            ("Shape.size", property(lambda _: 0)),
            ("Shape.area.__defaults__", (1,)),
            ("Shape.__doc__", "other"),
        ),
        *(("Base.unit", "km"), ("Shape.size.fget.__defaults__", (1,)), ("Shape.__name__", "Other")),
        *(("Shape.plus_nothing", staticmethod(abs)), ("Shape.Inner.more", 1), ("Shape.more", [])),
        *(("Shape.size.__doc__", "other"), ("Shape.__annotations__", {}), ("CONSTANT", 6)),
    ],
)
def test_changes_of_a_class_are_noticed(path: str, value: object, names: dict[str, Any]):
    before = watched(names["uses_a_class"])
    owner, _, name = path.rpartition(".")
    if owner:
        first, *rest = owner.split(".")
        setattr(functools.reduce(getattr, rest, names[first]), name, value)
    else:
        names[name] = value
    assert not before.still_holds()


def test_other_bases_of_a_class_are_noticed(names: dict[str, Any]):
    before = watched(names["uses_a_class"])
    names["Shape"].__bases__ = (type("Other", (), {}),)
    assert not before.still_holds()


def test_a_class_has_the_bases_that_it_has_now(names: dict[str, Any]):
    """What its definition says of them, as `__orig_bases__` does, may have been true once."""
    runner, shipment = Runner(), Shipment(names["uses_a_generic_class"])
    square, bases = names["Square"], names["Square"].__bases__
    with apart():
        assert run(runner, shipment, 1) == ("m", "m", (int,))
        square.__bases__, square.__class__ = (names["Feet"], *bases[1:]), names["Imperial"]
        assert run(runner, Shipment(names["uses_a_generic_class"]), 1) == ("ft", "ft", (int,))
    with apart():  # One that has never seen it
        assert run(Runner(), Shipment(names["uses_a_generic_class"]), 1) == ("ft", "ft", (int,))


def test_a_function_is_kept_if_objects_of_its_class_have_travelled(names: dict[str, Any]):
    runner, shipment = Runner(), Shipment(names["takes_an_object"])
    for _ in range(2):
        parcel = shipment.parcel((names["Base"](),), {})
        run(runner, shipment, names["Base"]())
    assert runner.keeps(parcel.source, parcel.call())


def test_what_a_metaclass_may_change_is_not_kept(names: dict[str, Any]):
    assert snapshot(names["uses_its_enum"]) is None


@pytest.mark.parametrize("in_place", [False, True])
def test_objects_among_the_arguments_are_of_the_class_that_the_function_uses(
    in_place: bool, names: dict[str, Any]
):
    runner, shipment = Runner(in_place=in_place), Shipment(names["takes_an_object"])
    with apart():
        assert run(runner, shipment, 1) is False
        for unit in ("m", "m", "km"):
            names["Base"].unit = unit
            with apart() if in_place else contextlib.nullcontext():
                assert run(runner, shipment, names["Base"]()) == unit


def test_an_attribute_of_a_decorated_function_is_noticed(names: dict[str, Any]):
    task = names["task"] = compute_this(names["uses_a_helper"])
    task.offset = 5
    exec("def uses_task(x):\n    return x + task.offset", names)
    before = watched(names["uses_task"])
    task.offset = 7
    assert not before.still_holds()
    task.offset = 5
    assert before.still_holds()
    task.more = 1
    assert not before.still_holds()
    task.more = []
    assert snapshot(names["uses_task"]) is None


def test_another_submodule_of_a_package_is_noticed(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    before = watched(names["uses_a_package"])
    monkeypatch.setitem(sys.modules, "xml.made_up", types.ModuleType("xml.made_up"))
    assert not before.still_holds()


def test_what_a_library_has_by_a_name_is_noticed(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    before = watched(names["uses_libraries"])
    monkeypatch.setattr("math.sqrt", len)
    assert not before.still_holds()


def test_only_functions_that_hold_nothing_are_remembered(names: dict[str, Any]):
    large = bytearray(10)

    def closure():
        return large

    assert shipment_of(closure) is not shipment_of(closure)
    assert shipment_of(names["appends"]) is not shipment_of(names["appends"])
    assert shipment_of(operator.index) is shipment_of(operator.index)
    assert shipment_of([].append) is not shipment_of([].append)
    assert shipment_of(names["uses_a_helper"]) is shipment_of(names["uses_a_helper"])


def test_a_remembered_function_with_new_code_is_another_one():
    def first():
        return 1

    def second():
        return 2

    before = shipment_of(first)
    first.__code__ = second.__code__
    assert shipment_of(first) is not before


def test_a_partial_that_is_changed_in_place_is_another_one():
    part = functools.partial(pow, 2)
    found = watched(lambda: part)
    part.__setstate__((pow, (5,), {}, {}))
    assert not found.still_holds()


def test_a_partial_that_gets_a_keyword_in_place_is_another_one():
    part = functools.partial(pow, 2)
    found = watched(lambda: part)
    part.keywords["mod"] = 5
    assert not found.still_holds()
