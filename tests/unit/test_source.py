"""Which text code has: the one that makes this very code again, or none."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from distribute_challenge.client.parcels.source import dedent, find_text, is_same_code
from distribute_challenge.values.definition import compile_function, tree_of


def keeps_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return ("wrapped", function(*args))

    return wrapper


def plain(x, y=1, *, z: int = 2) -> int:
    """What it does."""
    return x + y + z


@keeps_name
@keeps_name
def decorated(x):
    return json.dumps(x)


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

    class Local:
        def method(self):
            return a, self.__mangled, super().__repr__()  # type: ignore[attr-defined]

    return uses_both, uses_neither, changes, Local


class Class:
    def method(self):
        return self.__mangled()  # type: ignore[attr-defined]

    def uses_super(self):
        return super().__repr__()

    @property
    def deep(self):
        class Inner:
            async def method(self):
                return [__class__ for _ in range(3)]  # type: ignore[name-defined]

        return Inner.method


two_on_a_line = [lambda x: x + 1, lambda x: x + 2]


def imports_shadowed(json, functools):
    """Python looks at the names alone when it compiles `module.name()`."""
    return json.dumps(1), functools.reduce(max, [1])


def text_of(function: Callable[..., Any]) -> str | None:
    found = find_text(function.__code__)
    return None if found is None else found.source


def test_a_plain_function_has_its_own_text():
    assert text_of(plain) == (
        'def plain(x, y=1, *, z: int = 2) -> int:\n    """What it does."""\n    return x + y + z\n'
    )


def test_the_text_begins_below_all_decorators():
    assert text_of(inspect.unwrap(decorated)) == "def decorated(x):\n    return json.dumps(x)\n"


@pytest.mark.parametrize(
    "function",
    [
        *(plain, inspect.unwrap(decorated), decorated, outer, *outer(1)[:3], outer(1)[3].method),
        *(Class.method, Class.uses_super, Class.deep.fget, Class().deep, imports_shadowed),  # type: ignore[attr-defined]
        *(functools.singledispatch, json.JSONEncoder.iterencode, inspect.getsource, dedent),
    ],
    ids=lambda function: function.__qualname__,
)
def test_the_text_makes_the_very_code(function: Callable[..., Any]):
    """Its name in full, its file, all its lines: also as a traceback shows them."""
    code = function.__code__  # type: ignore[attr-defined]
    text = find_text(code)
    assert text is not None
    made = compile_function(*text)
    assert is_same_code(made, code)
    assert [*made.co_lines()] == [*code.co_lines()]
    if sys.version_info >= (3, 11):
        assert made.co_qualname == code.co_qualname


def test_code_that_differs_in_anything_is_not_the_same():
    def some(a, b=1, *args, c, **kwargs):
        inside = lambda: (a in {1, 2}, 0.0)  # noqa: E731
        return inside, kwargs, b, c, args

    code = some.__code__
    changes = {
        "co_name": "other",
        "co_filename": "other.py",
        "co_firstlineno": code.co_firstlineno + 1,
        "co_flags": code.co_flags | inspect.CO_COROUTINE,
        "co_code": code.co_code[:-2] + bytes([code.co_code[-2], code.co_code[-1] ^ 1]),
        "co_names": (*code.co_names, "other"),
        "co_varnames": ("other", *code.co_varnames[1:]),
        "co_posonlyargcount": 1,
        "co_consts": tuple(-0.0 if value == 0.0 else value for value in (*code.co_consts, None)),
    }
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = "other"
    assert is_same_code(code, code.replace())
    for name, value in changes.items():
        assert not is_same_code(code, code.replace(**{name: value})), name
    nested = next(value for value in code.co_consts if isinstance(value, types.CodeType))
    assert is_same_code(nested, nested.replace())
    for before, after in ((0.0, -0.0), (0.0, 0), (frozenset((1, 2)), frozenset((1, 3)))):
        consts = tuple(after if repr(value) == repr(before) else value for value in nested.co_consts)
        assert not is_same_code(nested, nested.replace(co_consts=consts)), (before, after)


def test_nested_functions_are_dedented():
    uses_both, uses_neither, changes, _ = outer(10)
    assert text_of(uses_both) == "def uses_both(x):\n    return a + b + x\n"
    assert (
        text_of(uses_neither) == 'def uses_neither(x):\n    """Not\n        at the margin."""\n    return x\n'
    )
    assert text_of(changes) == "def changes(x):\n    nonlocal b\n    b += x\n    return b\n"


def test_default_values_and_annotations_are_not_worked_out():
    times = []

    def default() -> int:
        times.append(1)
        return 5

    def function(x: default() = default(), *, y=default()):  # type: ignore[valid-type]
        return (x, y)

    times.clear()
    text = find_text(function.__code__)
    assert text is not None
    types.FunctionType(compile_function(*text), {})
    assert times == []


def test_a_wrapper_has_its_own_text_and_not_that_of_what_it_wraps():
    assert str(text_of(decorated)).startswith("def wrapper(*args: Any)")


@pytest.mark.parametrize("function", two_on_a_line)
def test_a_lambda_has_none(function: Callable[..., Any]):
    assert text_of(function) is None


def test_code_that_differs_from_its_file_has_no_text():
    namespace: dict[str, Any] = {}
    line = plain.__code__.co_firstlineno - 1
    exec(compile("\n" * line + "def plain(x):\n    return x + 2\n", __file__, "exec"), namespace)
    assert text_of(namespace["plain"]) is None
    exec("def unwritten(x):\n    return x\n", namespace)
    assert text_of(namespace["unwritten"]) is None


def test_equal_code_of_two_files_has_the_text_of_each(tmp_path):
    functions = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.py"
        path.write_text("def f(x):\n    return x\n")
        namespace: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        functions.append(namespace["f"])
    texts = [find_text(function.__code__) for function in functions]
    assert [text.definition.filename[-6:] for text in texts if text is not None] == ["one.py", "two.py"]


def test_a_form_feed_ends_no_line(tmp_path):
    path = tmp_path / "fed.py"
    path.write_text("x = 1\n\f\ndef f():\n    return x\n")
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    assert text_of(namespace["f"]) == "def f():\n    return x\n"


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


def test_a_parser_that_fails_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    """As Python 3.11's does, if another thread runs in the middle of it."""
    ends = iter([SystemError("AST constructor recursion depth mismatch"), None])

    def fails_once(*args: Any, **options: Any) -> Any:
        if (error := next(ends)) is not None:
            raise error
        return compile(*args, **options)

    monkeypatch.setattr("distribute_challenge.values.definition.compile", fails_once, raising=False)
    assert ast.unparse(tree_of("x = 1")) == "x = 1"
