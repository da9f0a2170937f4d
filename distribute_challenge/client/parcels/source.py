"""The source text of a code object, as the user wrote it, if compiling that text gives this very code again.

It refuses to guess: the text is compiled, just as a worker would, and compared. Where they differ (a lambda,
code made by `exec`, a file that has changed since) there is no text.
"""

from __future__ import annotations
import __future__

import ast
import functools
import io
import linecache
import sys
import tokenize
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from distribute_challenge.values.code import codes_in
from distribute_challenge.values.definition import Definition, FunctionNode, Scope, compile_function, tree_of
from distribute_challenge.values.functions import ByCode, texts

_FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names[2:])
_CODE_ATTRIBUTES = (
    *("co_name", "co_qualname", "co_filename", "co_firstlineno", "co_flags", "co_code", "co_names"),
    *("co_varnames", "co_freevars", "co_cellvars", "co_exceptiontable"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)


class Text(NamedTuple):
    """A function's text, from its `def` on, and how to compile it."""

    source: str
    definition: Definition


class _Place(NamedTuple):
    """Where a function is in its file."""

    line: int
    end_line: int
    column: int
    scopes: tuple[Scope, ...]


class _Index(NamedTuple):
    """The functions in a file, by the line of the first decorator and the name; what the file imports."""

    lines: list[str]
    places: dict[tuple[int, str], _Place]
    imported: frozenset[str]


def find_text(code: types.CodeType, module: dict[str, Any] | None = None) -> Text | None:
    """The text that makes `code`, or None.

    `module` has the global names of its function: by them the text is found if it is in no file.
    """
    made = texts.get(code)
    if made is not None:  # On a worker: the text that came with the function.
        return Text(*made)
    known = _known.get(code)
    if known is None:
        known = _known.put(code, (_find(code, module),))
    return known[0]


# By the code alone: nothing is kept of a function and what it holds on to.
_known: ByCode[tuple[Text | None]] = ByCode()


def _find(code: types.CodeType, module: dict[str, Any] | None) -> Text | None:
    index = _index_of(code.co_filename, module)
    place = None if index is None else index.places.get((code.co_firstlineno, code.co_name))
    if index is None or place is None:
        return None
    try:
        source = dedent("".join(index.lines[place.line - 1 : place.end_line]))
        text = Text(source if source.endswith("\n") else f"{source}\n", _definition(code, place, index))
        return text if is_same_code(compile_function(*text), code) else None
    except (SyntaxError, ValueError, tokenize.TokenError):  # The file has changed since.
        return None


def _definition(code: types.CodeType, place: _Place, index: _Index) -> Definition:
    return Definition(
        name=code.co_name,
        filename=code.co_filename,
        first_line=code.co_firstlineno,
        line=place.line,
        column=place.column,
        scopes=place.scopes,
        free=code.co_freevars,
        imported=tuple(sorted(index.imported.intersection(_names_in(code)))),
        flags=code.co_flags & _FUTURE_FLAGS,
        optimize=sys.flags.optimize,
    )


def _names_in(code: types.CodeType) -> Iterator[str]:
    for part in codes_in(code):  # Also of variables: Python looks at the name alone.
        yield from (*part.co_names, *part.co_varnames, *part.co_cellvars, *part.co_freevars)


def _index_of(filename: str, module: dict[str, Any] | None) -> _Index | None:
    """The functions in a file as it is now; None if it cannot be read."""
    linecache.checkcache(filename)
    return _index("".join(linecache.getlines(filename, module)))


@functools.lru_cache(maxsize=64)
def _index(text: str) -> _Index | None:
    try:
        tree = tree_of(text)
    except (SyntaxError, ValueError):
        return None
    index = _Index(_lines_of(text), {}, frozenset(_imported_in(tree)))
    _add(tree, (), index.places)
    return index if index.places else None


def _add(node: ast.AST, scopes: tuple[Scope, ...], places: dict[tuple[int, str], _Place]) -> None:
    """Take in the functions below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            end = child.end_lineno or child.lineno
            places[first, child.name] = _Place(child.lineno, end, child.col_offset, scopes)
        if isinstance(child, FunctionNode | ast.ClassDef):
            params = tuple(param.name for param in getattr(child, "type_params", ()))
            _add(child, (*scopes, Scope(isinstance(child, ast.ClassDef), child.name, params)), places)
        else:
            _add(child, scopes, places)


def _imported_in(node: ast.AST) -> Iterator[str]:
    """The names that a module binds by importing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in child.names)
        elif not isinstance(child, FunctionNode | ast.ClassDef | ast.expr):
            yield from _imported_in(child)


def dedent(source: str) -> str:
    r"""Remove the first line's indentation from every line that does not begin inside a string.

    >>> dedent("    def f():\n        return 1\n")
    'def f():\n    return 1\n'
    """
    lines = _lines_of(source)
    indent = len(lines[0]) - len(lines[0].lstrip(" \t"))
    if not indent:
        return source
    inside = set(_lines_inside_strings(f"if True:\n{source}"))
    for number, line in enumerate(lines):
        if number + 2 not in inside:
            margin = len(line) - len(line.lstrip(" \t"))
            lines[number] = line[min(margin, indent) :]
    return "".join(lines)


def _lines_of(text: str) -> list[str]:
    """As Python counts them: a form feed, for instance, ends none."""
    return io.StringIO(text).readlines()


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


def is_same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects are the same in all that a program can see of them, but for columns."""
    if any(
        getattr(one, attribute, None) != getattr(other, attribute, None) for attribute in _CODE_ATTRIBUTES
    ):
        return False
    if len(one.co_consts) != len(other.co_consts) or [*one.co_lines()] != [*other.co_lines()]:
        return False
    return all(map(_is_same_constant, one.co_consts, other.co_consts))


def _is_same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return is_same_code(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, frozenset):  # Its order may differ from one process to the next.
        return sorted(map(_text, one)) == sorted(map(_text, other))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_is_same_constant, one, other))
    return _text(one) == _text(other)  # And not `==`: 0.0 and -0.0 are equal.


def _text(constant: Any) -> str:
    """What tells a constant apart. (Of a large number there may be no decimal text.)"""
    return hex(constant) if type(constant) is int else repr(constant)
