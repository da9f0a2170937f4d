"""Functions that are kept, at the client and on workers, are never found in another state than sent."""

from __future__ import annotations

import math
import xml
from collections.abc import Callable
from typing import Any

import pytest

from distribute_challenge.client.pool import _shipments, shipment_of
from distribute_challenge.client.shipping import Shipment
from distribute_challenge.client.unchanged import watch
from distribute_challenge.wire.payload import Outcome
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


def appends(x):
    LIST.append(x)
    return len(LIST)


def raises_after_a_change(x):
    global CONSTANT
    CONSTANT = 1000
    raise ValueError(x)


def uses_a_package(x):
    return xml.__name__ + str(x)


def run(runner: Runner, shipment: Shipment, *args: Any) -> Any:
    parcel = shipment.parcel(args, {})
    kind, content, seconds, _ = runner.run(parcel.source, parcel.call)
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


def test_a_kept_function_is_the_same_one_again():
    runner, shipment = Runner(), Shipment(uses_a_helper)
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert runner.keeps(parcel.source, parcel.call)
    assert shipment.dump_function(None) is shipment.dump_function(None)


def test_what_may_change_inside_is_not_kept():
    runner, shipment = Runner(), Shipment(appends)
    parcel = shipment.parcel((1,), {})
    run(runner, shipment, 1)
    assert not runner.keeps(parcel.source, parcel.call)
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
    import types

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
