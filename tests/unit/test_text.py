"""Which text a function has: the one that makes that very function again, or none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from distribute_challenge.client.text import Text, dedent, find_text
from distribute_challenge.wire.definition import Values, bare, fill, finish, new_namespace


def ours(function: Any) -> Any:
    """Stands for our decorator."""
    return function


def keeps_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return ("wrapped", function(*args))

    return wrapper


def plain(x, y=1, *, z=2):
    return x + y + z


@ours
def below(x):
    return x


@keeps_name
@ours
@keeps_name
@keeps_name
def between(x):
    return x


calls: list[int] = []


def counting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(n: int) -> int:
        calls.append(n)
        return function(n)

    return wrapper


@ours
@counting
def countdown(n):
    return n if n == 0 else countdown(n - 1)


def calls_its_name(x):
    return calls_its_name(x)


def outer(a):
    b = a

    def uses_both(x):
        return a + b + x

    def uses_neither(x):
        """Not
        at the margin."""
        return x

    def changes(x):
        nonlocal b
        b += x
        return b

    return uses_both, uses_neither, changes


class Class:
    def method(self):
        return self.__mangled()  # type: ignore[attr-defined]

    def uses_super(self):
        return super().__repr__()


two_on_a_line = [lambda x: x + 1, lambda x: x + 2]


def text_of(function: Callable[..., Any]) -> str | None:
    found = find_text(function, lambda value: value is ours)
    return None if found is None else found.source


def rebuild(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    found = find_text(function, lambda value: value is ours)
    assert found is not None
    inner = found.inner
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells if name != found.definition.name}
    return make(found, Values(names, closure, inner.__defaults__, inner.__kwdefaults__, {}, ()))


def make(text: Text, values: Values) -> Callable[..., Any]:
    function = bare(text.source, text.definition, new_namespace("__main__"))
    fill(function, values)
    return finish(function, text.source, text.definition)


def test_a_plain_function_has_its_own_text():
    assert text_of(plain) == "def plain(x, y=1, *, z=2):\n    return x + y + z\n"
    assert rebuild(plain)(1) == 4
    assert rebuild(plain)(1, 2, z=3) == 6


def test_the_text_begins_below_our_decorator():
    assert text_of(below) == "def below(x):\n    return x\n"
    inner = between.__wrapped__
    assert text_of(inner) == "@keeps_name\n@keeps_name\ndef between(x):\n    return x\n"
    assert rebuild(inner, keeps_name=keeps_name)(3) == ("wrapped", ("wrapped", 3))


def test_a_wrapper_that_the_text_would_not_make_has_none():
    assert text_of(keeps_name(plain)) is None
    assert text_of(keeps_name(outer(1)[0])) is None
    assert text_of(keeps_name(below)) is None


def test_nested_functions_are_dedented_and_keep_their_closures():
    uses_both, uses_neither, changes = outer(10)
    assert text_of(uses_both) == "def uses_both(x):\n    return a + b + x\n"
    assert rebuild(uses_both)(1) == 21
    assert rebuild(uses_neither)(1) == 1
    assert rebuild(uses_neither).__doc__ == uses_neither.__doc__
    again = rebuild(changes)
    assert [again(1), again(1)] == [11, 12]


def test_default_values_are_those_of_the_definition_and_are_not_worked_out_again():
    times = []

    def default() -> int:
        times.append(1)
        return 5

    def function(x: default() = default(), *, y=default()):  # type: ignore[valid-type]
        return (x, y)

    times.clear()
    assert rebuild(function)() == (5, 5)
    assert times == []


def test_a_recursive_function_keeps_its_decorators():
    @ours
    @counting
    def in_a_closure(n):
        return n if n == 0 else in_a_closure(n - 1)

    for function in (countdown, in_a_closure):
        calls.clear()
        assert rebuild(function, counting=counting)(3) == 0
        assert calls == [3, 2, 1, 0]


def test_a_decorator_of_an_enclosing_function_cannot_be_found_again():
    def local(function: Callable[..., Any]) -> Callable[..., Any]:
        return keeps_name(function)

    @ours
    @local
    def decorated(x):
        return x

    assert text_of(decorated) is None


def test_a_name_that_stands_for_something_else_by_now_keeps_that_meaning():
    def measure(x):
        return measure(x)

    text = find_text(measure, lambda value: value is ours)
    assert text is not None
    assert make(text, Values({}, {"measure": len}, None, None, {}, ()))("four") == 4
    text = find_text(calls_its_name, lambda value: value is ours)
    assert text is not None
    assert make(text, Values({"calls_its_name": len}, {}, None, None, {}, ()))("four") == 4


@pytest.mark.parametrize(
    "function",
    [
        *two_on_a_line,
        Class.method,
        Class().method,
        functools.partial(plain, 1),
        len,
        Class,
        str.upper,
    ],
    ids=str,
)
def test_what_has_no_text_of_its_own_has_none(function: Callable[..., Any]):
    assert text_of(function) is None


def test_code_that_differs_from_its_file_has_no_text():
    namespace: dict[str, Any] = {}
    exec(compile("def plain(x):\n    return x + 2\n", __file__, "exec"), namespace)
    assert text_of(namespace["plain"]) is None
    exec("def unwritten(x):\n    return x\n", namespace)
    assert text_of(namespace["unwritten"]) is None


def test_a_function_whose_closure_is_not_complete_has_no_text():
    def too_early():
        return later

    assert text_of(too_early) is None
    later = 1
    assert text_of(too_early) is not None


def test_dedenting_leaves_strings_alone():
    source = '''\
    def f():
        """Text
  here"""
# a comment at the margin
        return f"""{
    1}
  x"""
'''
    expected = '''\
def f():
    """Text
  here"""
# a comment at the margin
    return f"""{
    1}
  x"""
'''
    assert dedent(source) == expected


def waits_and_joins(x):
    def name():
        return functools.partial(str, x)

    return functools.reduce(max, [x]), name()()


def test_methods_of_imported_names_are_no_obstacle():
    """Python compiles `module.name()` in one way where the module is imported, and elsewhere in another."""
    assert text_of(waits_and_joins) is not None
    assert rebuild(waits_and_joins, functools=functools)(3) == (3, "3")
