"""The text of a function as a way to write its code object, the same way at both ends.

Only the body counts, and the scopes around the function. Decorators, default values and annotations are left
out: what Python made of them at the client travels as values.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import types
import warnings
from typing import Any, NamedTuple

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_AROUND = "<generic parameters"  # Python puts the code of a generic function into one called so.


class Scope(NamedTuple):
    """A function or class around a function."""

    is_class: bool
    name: str
    type_params: tuple[str, ...] = ()


class Definition(NamedTuple):
    """All that is needed, beside the text, to compile a function to the code that it had in its file."""

    name: str
    filename: str
    first_line: int  # of the file: that of its first decorator
    line: int  # that of its `def`
    column: int  # by how much it was indented there
    scopes: tuple[Scope, ...]  # around it, outermost first
    free: tuple[str, ...]  # names of the functions around it that it uses
    imported: tuple[str, ...]  # global names that its module imports: Python compiles those differently
    flags: int  # of `compile`: the module's `from __future__` imports
    optimize: int  # as by `python -O`


def tree_of(source: str, flags: int = 0) -> ast.Module:
    """The syntax tree of a text. Raises SyntaxError or ValueError.

    Python 3.11 now and then fails if another thread runs in the middle of it: it is tried again then.
    """
    how: Any = {"flags": flags | ast.PyCF_ONLY_AST, "dont_inherit": True}
    for _ in range(3):
        with contextlib.suppress(SystemError):
            return compile(source, "<source>", "exec", **how)  # type: ignore[no-any-return]
    return compile(source, "<source>", "exec", **how)  # type: ignore[no-any-return]


def parse(source: str, flags: int = 0) -> FunctionNode:
    """The one function definition in `source`. Raises SyntaxError if there is none."""
    tree = tree_of(source, flags)
    node = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(node, FunctionNode):
        raise SyntaxError("not the definition of one function")
    return node


@functools.lru_cache(maxsize=512)
def compile_function(source: str, definition: Definition) -> types.CodeType:
    """The code of a function, from its text. Cached. Raises SyntaxError."""
    node = parse(source, definition.flags)
    _move(node, definition.line - 1, definition.column)
    _strip(node)
    line, column = definition.first_line, definition.column
    place: dict[str, Any] = {"lineno": line, "end_lineno": line}
    place.update(col_offset=column, end_col_offset=column)
    if definition.first_line != definition.line:  # A decorator was there.
        node.decorator_list = [ast.Name("_", ast.Load(), **place)]
    statement: ast.stmt = node
    free = [name for name in definition.free if name != "__class__"]
    for number, scope in reversed([*enumerate(definition.scopes)]):
        # The names of all functions around become parameters of the outermost one.
        is_outermost = not any(not outer.is_class for outer in definition.scopes[:number])
        statement = _around(statement, scope, free if is_outermost else [])
    imports = [ast.Import([ast.alias(name)], **place) for name in definition.imported]
    module = ast.fix_missing_locations(ast.Module([*imports, statement], []))
    how: dict[str, Any] = {"flags": definition.flags, "dont_inherit": True, "optimize": definition.optimize}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # It was said when the file itself was compiled.
        code = compile(module, definition.filename, "exec", **how)
    return _find(code, [*(scope.name for scope in definition.scopes), definition.name])


def _move(node: ast.AST, lines: int, columns: int) -> None:
    ast.increment_lineno(node, lines)
    if columns:  # So that tracebacks mark the right part of a line.
        for part in ast.walk(node):
            if isinstance(part, ast.expr | ast.stmt | ast.arg):
                part.col_offset += columns
                part.end_col_offset = (part.end_col_offset or 0) + columns


def _strip(node: FunctionNode) -> None:
    """Remove all that is worked out when Python meets the `def`, and has no part in the function's code."""
    node.decorator_list = []
    node.returns = None
    arguments = node.args
    arguments.defaults = []
    arguments.kw_defaults = [None] * len(arguments.kwonlyargs)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None


def _around(statement: ast.stmt, scope: Scope, parameters: list[str]) -> ast.stmt:
    """The scope with nothing in it but the statement."""
    head = f"{'class' if scope.is_class else 'def'} {scope.name}"
    if scope.type_params:
        head += f"[{', '.join(scope.type_params)}]"
    if not scope.is_class:
        head += f"({', '.join(name for name in parameters if name not in scope.type_params)})"
    made: Any = tree_of(f"{head}: pass").body[0]
    made.body = [statement]
    return ast.copy_location(made, statement)  # type: ignore[no-any-return]


def _find(code: types.CodeType, path: list[str]) -> types.CodeType:
    """The code at the end of a path of names."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_name == path[0]:
                return constant if len(path) == 1 else _find(constant, path[1:])
            if constant.co_name.startswith(_AROUND):
                return _find(constant, path)
    raise SyntaxError(f"no function {path[-1]} in its own text")
