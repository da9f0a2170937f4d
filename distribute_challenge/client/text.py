"""The text of a function, as the user wrote it, and whether it makes that very function again.

It refuses to guess: the text is compiled, just as a worker would, and compared with the function's code.
Where they differ (a lambda, a wrapper made elsewhere, a file that has changed since) there is no text.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import inspect
import io
import symtable
import tokenize
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distribute_challenge.wire.definition import Definition, FunctionNode, compile_function, parse

_FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[2:])
_CODE_ATTRIBUTES = (
    *("co_name", "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)


class Text(NamedTuple):
    """A function's text, how to compile it, and the plain function inside any decorators."""

    source: str
    definition: Definition
    inner: Any  # types.FunctionType

    def decorator_names(self) -> Iterator[str]:
        """The names that the decorators in the text mention."""
        if self.definition.decorated:
            for decorator in parse(self.source, self.definition.flags).decorator_list:
                for node in ast.walk(decorator):
                    if isinstance(node, ast.Name):
                        yield node.id


def find_text(function: Callable[..., Any], is_our_decorator: Callable[[Any], bool]) -> Text | None:
    """The text that makes `function`, or None.

    It begins below the decorator that `is_our_decorator` knows: that one and those above stay at the client.
    """
    inner = inspect.unwrap(function)
    if not isinstance(inner, types.FunctionType) or not _is_closure_complete(inner):
        return None
    if inner is not function or is_our_decorator is not not_ours:
        return _find(inner, is_our_decorator, is_decorated=inner is not function)
    code = inner.__code__
    if code not in _known:
        found = _find(inner, not_ours, is_decorated=False)
        _known[code] = None if found is None else (found.source, found.definition)
    known = _known[code]
    return None if known is None else Text(*known, inner)


def not_ours(value: Any) -> bool:
    """No decorator is: for functions that are not decorated by us."""
    del value
    return False


# Of plain functions, by their code alone: nothing is kept of a function and what it holds on to.
_known: weakref.WeakKeyDictionary[types.CodeType, tuple[str, Definition] | None] = weakref.WeakKeyDictionary()


def _find(
    inner: types.FunctionType, is_our_decorator: Callable[[Any], bool], *, is_decorated: bool
) -> Text | None:
    code = inner.__code__
    flags = code.co_flags & _FUTURE_FLAGS
    try:
        lines, first_line = inspect.getsourcelines(code)
        source = dedent("".join(lines))
        node = parse(source, flags)
    except (OSError, SyntaxError, tokenize.TokenError):
        return None
    skipped, decorators_below = _our_place(node, inner, is_our_decorator)
    if is_decorated and not (skipped and decorators_below):
        return None  # The wrapper was made somewhere else: the text is only that of what is inside it.
    definition = Definition(
        name=node.name,
        filename=code.co_filename,
        line=max(first_line, 1) + skipped,
        free=code.co_freevars,
        flags=flags,
        decorated=is_decorated,
    )
    source = "".join(source.splitlines(keepends=True)[skipped:])
    try:
        if not _makes(source, definition, code):
            return None
    except SyntaxError:  # A nonlocal name without its enclosing function, for instance.
        return None
    text = Text(source, definition, inner)
    known = inner.__globals__.keys() | vars(builtins).keys()
    # A decorator that is known only inside an enclosing function cannot be found again.
    return text if known.issuperset(text.decorator_names()) else None


def _makes(source: str, definition: Definition, code: types.CodeType) -> bool:
    """Whether the text makes a function with this very code. Raises SyntaxError if it makes none."""
    if _is_same_code(compile_function(source, definition).code, code):
        return True
    imported = _imported_names("".join(inspect.findsource(code)[0])).intersection(_names_in(code))
    made = compile_function(source, definition, tuple(sorted(imported)))
    return bool(imported) and _is_same_code(made.code, code)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


@functools.lru_cache(maxsize=64)
def _imported_names(module: str) -> frozenset[str]:
    """The names that the text of a module binds by importing."""
    table = symtable.symtable(module, "<module>", "exec")
    return frozenset(symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported())


def dedent(source: str) -> str:
    r"""Remove the first line's indentation from every line that does not begin inside a string.

    >>> dedent("    def f():\n        return 1\n")
    'def f():\n    return 1\n'
    """
    lines = source.splitlines(keepends=True)
    indent = len(lines[0]) - len(lines[0].lstrip(" \t"))
    if not indent:
        return source
    inside = set(_lines_inside_strings(f"if True:\n{source}"))
    for number, line in enumerate(lines):
        if number + 2 not in inside:
            margin = len(line) - len(line.lstrip(" \t"))
            lines[number] = line[min(margin, indent) :]
    return "".join(lines)


def _lines_inside_strings(source: str) -> Iterator[int]:
    """Numbers, from 1, of the lines of `source` that begin within a string."""
    openings: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            yield from range(token.start[0] + 1, token.end[0] + 1)
        elif kind in ("FSTRING_START", "TSTRING_START"):
            openings.append(token.start[0])
        elif kind in ("FSTRING_END", "TSTRING_END"):
            yield from range(openings.pop() + 1, token.end[0] + 1)


def _our_place(
    node: FunctionNode, inner: types.FunctionType, is_ours: Callable[[Any], bool]
) -> tuple[int, int]:
    """On which line of the text, from 1, our decorator ends (0: not there), and how many are below it."""
    last_line, below = 0, len(node.decorator_list)
    for number, decorator in enumerate(node.decorator_list, start=1):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        names: list[str] = []
        while isinstance(called, ast.Attribute):
            names.insert(0, called.attr)
            called = called.value
        if not isinstance(called, ast.Name):
            continue
        value = inner.__globals__.get(called.id)
        for name in names:
            value = getattr(value, name, None)
        # A name of an enclosing function cannot be looked up: there, what it is called decides.
        if is_ours(value) or [called.id, *names][-1] == "compute_this":
            last_line, below = decorator.end_lineno or 0, len(node.decorator_list) - number
    return last_line, below


def _is_closure_complete(function: types.FunctionType) -> bool:
    """Whether every variable of the enclosing function that `function` uses has its value already."""
    for cell in function.__closure__ or ():
        try:
            cell.cell_contents  # noqa: B018  To read an empty one is a ValueError.
        except ValueError:
            return False
    return True


def _is_same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever in a file and however deep they stand."""
    if (one.co_flags ^ other.co_flags) & ~inspect.CO_NESTED:
        return False
    if any(getattr(one, attribute) != getattr(other, attribute) for attribute in _CODE_ATTRIBUTES):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    return all(map(_is_same_constant, one.co_consts, other.co_consts))


def _is_same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return _is_same_code(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, frozenset):  # Its order may differ from one process to the next.
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_is_same_constant, one, other))
    return repr(one) == repr(other)  # And not `==`: 0.0 and -0.0 are equal.
