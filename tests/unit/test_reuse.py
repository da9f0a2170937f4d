"""Functions that are kept, at the client and on workers, are never found in another state than sent."""

from __future__ import annotations

import math
import types
import xml
from collections.abc import Callable
from typing import Any

import pytest

from distribute_challenge.client.pool import _shipments, shipment_of
from distribute_challenge.client.shipping import Shipment, Written
from distribute_challenge.client.unchanged import watch
from distribute_challenge.wire.functions import load_call
from distribute_challenge.wire.payload import NO_SCOPE, Outcome
from distribute_challenge.wire.reuse import Kept
from distribute_challenge.wire.running import Runner

CONSTANT = 5
LIST = [1]


def helper(x):
    return x + CONSTANT


def uses_a_helper(x):
    return helper(x) + math.floor(0.5)


def counts(x):
    global CONSTANT
    CONSTANT += x
    return CONSTANT


def marks_itself(x):
    marks_itself.calls = getattr(marks_itself, "calls", 0) + x
    return marks_itself.calls


def changes_a_helper(x):
    helper.__defaults__ = (x,)
    return helper()


def replaces_a_helper(x):
    global helper
    before = helper(0)
    helper = lambda y: y + 100  # noqa: E731
    return before + x


def renames_itself(x):
    before = renames_itself.__name__, renames_itself.__doc__
    renames_itself.__name__, renames_itself.__doc__ = "other", "text"
    return x if before == ("renames_itself", None) else before


def starts_a_thread():
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()


def appends(x):
    LIST.append(x)
    return len(LIST)


def raises_after_a_change(x):
    global CONSTANT
    CONSTANT = 1000
    raise ValueError(x)


settings = types.ModuleType("settings")
settings.number = 1  # type: ignore[attr-defined]


def uses_a_module_made_here(x):
    settings.number += x
    return settings.number


class Sly:
    def __getattr__(self, name):
        raise RuntimeError("not now")


sly: Any = None


def uses_something_sly(x):
    return x, sly


def uses_a_package(x):
    return xml.__name__ + str(x)


def run(runner: Runner, shipment: Shipment, *args: Any) -> Any:
    parcel = shipment.parcel(args, {})
    kind, content, seconds, _ = runner.run(parcel.source, parcel.call())
    return Outcome(kind, content, seconds, 0, ()).load()


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (uses_a_helper, 6),
        (counts, 6),
        (marks_itself, 1),
        (changes_a_helper, 6),
        (replaces_a_helper, 6),
        (appends, 2),
        (uses_a_module_made_here, 2),
        (renames_itself, 1),
    ],
)
def test_each_call_finds_the_function_as_it_was_sent(function: Callable[[int], int], result: int):
    runner, shipment = Runner(), Shipment(function)
    assert [run(runner, shipment, 1) for _ in range(3)] == [result] * 3


def test_a_call_that_raised_leaves_nothing_to_the_next():
    runner, shipment = Runner(), Shipment(raises_after_a_change)
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            run(runner, shipment, 7)
    assert run(runner, Shipment(uses_a_helper), 1) == 6


def test_a_function_that_leaves_a_thread_is_not_kept():
    runner, shipment = Runner(), Shipment(starts_a_thread)
    parcel = shipment.parcel((), {})
    run(runner, shipment)
    assert not runner.keeps(parcel.source, parcel.call())


def test_a_kept_function_is_the_same_one_again():
    runner, shipment = Runner(), Shipment(uses_a_helper)
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert runner.keeps(parcel.source, parcel.call())
    assert shipment.dump_function(None) is shipment.dump_function(None)


def test_a_function_that_runs_is_not_called_again_by_another_call():
    kept, shipment = Kept(), Shipment(uses_a_helper)
    parcel = shipment.parcel((1,), {})
    (first, _, known), (second, _, _) = (
        load_call(parcel.source, parcel.call().function, parcel.call().arguments, kept) for _ in range(2)
    )
    assert first.function is not second.function
    assert known is not None
    kept.put((parcel.source, parcel.call().function), known)
    third, *_ = load_call(parcel.source, parcel.call().function, parcel.call().arguments, kept)
    assert third.function is first.function


def test_a_module_that_was_made_at_run_time_is_sent_as_it_is_now(monkeypatch: pytest.MonkeyPatch):
    runner, shipment = Runner(), Shipment(uses_a_module_made_here)
    assert run(runner, shipment, 1) == 2
    monkeypatch.setattr(settings, "number", 10)
    assert run(runner, shipment, 1) == 11


def test_a_global_that_cannot_be_looked_at_is_no_obstacle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "sly", Sly())
    assert watch(Shipment(uses_something_sly)._subject) is None


def test_the_same_large_bytes_travel_once_in_a_chunk():
    blob = bytes(1 << 20)
    parcel = Shipment(uses_a_helper).chunk(
        Written(b""), [[blob] * 20, list(range(20))], prints=True, scope=NO_SCOPE, python=None
    )
    assert parcel.size < 2 << 20


def test_what_may_change_inside_is_not_kept():
    runner, shipment = Runner(), Shipment(appends)
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert not runner.keeps(parcel.source, parcel.call())
    assert shipment.dump_function(None) is not shipment.dump_function(None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONSTANT", 6), ("CONSTANT", True), ("helper", lambda x: x), ("helper", None), ("math", None)],
)
def test_a_name_that_is_bound_anew_is_noticed(name: str, value: object, monkeypatch: pytest.MonkeyPatch):
    shipment = Shipment(uses_a_helper)
    before = watch(shipment._subject)
    assert before is not None
    assert before.still_holds()
    monkeypatch.setitem(globals(), name, value)
    assert not before.still_holds()


def test_a_name_that_is_bound_for_the_first_time_is_noticed(monkeypatch: pytest.MonkeyPatch):
    before = watch(Shipment(uses_a_helper)._subject)
    assert before is not None
    monkeypatch.delitem(globals(), "CONSTANT")
    assert not before.still_holds()
    unbound = watch(Shipment(uses_a_helper)._subject)
    monkeypatch.setitem(globals(), "CONSTANT", 5)
    assert unbound is not None
    assert not unbound.still_holds()


def test_new_code_and_new_defaults_of_a_helper_are_noticed():
    before = watch(Shipment(uses_a_helper)._subject)
    assert before is not None
    code = helper.__code__
    try:
        helper.__code__ = (lambda x: x).__code__
        assert not before.still_holds()
        helper.__code__ = code
        assert before.still_holds()
        helper.__defaults__ = (1,)
        assert not before.still_holds()
    finally:
        helper.__code__, helper.__defaults__ = code, None


def test_another_submodule_of_a_package_is_noticed(monkeypatch: pytest.MonkeyPatch):
    import sys

    before = watch(Shipment(uses_a_package)._subject)
    assert before is not None
    assert before.still_holds()
    monkeypatch.setitem(sys.modules, "xml.made_up", types.ModuleType("xml.made_up"))
    assert not before.still_holds()


def test_only_functions_that_hold_nothing_are_remembered():
    large = bytearray(10)

    def closure():
        return large

    assert shipment_of(closure) is not shipment_of(closure)
    assert closure not in _shipments
    assert appends not in _shipments
    assert shipment_of(uses_a_helper) is shipment_of(uses_a_helper)


def test_a_remembered_function_with_new_code_is_another_one():
    def first():
        return 1

    def second():
        return 2

    before = shipment_of(first)
    first.__code__ = second.__code__
    assert shipment_of(first) is not before
