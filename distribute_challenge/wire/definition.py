"""How the text of a function is turned into the function, the same way at both ends.

Only the function itself is compiled from the text. What Python works out when it meets a `def` (default
values, annotations) has happened at the client already: the values come with the call. Decorators
that are kept are applied at the end, to the finished function.

A function is made in two steps, `bare` and `fill`, since it may be among the values that it uses.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

_FACTORY = "__with_closure__"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """How to make a function out of its text."""

    name: str
    filename: str
    line: int  # of the file, where the text begins
    free: tuple[str, ...]  # names of the enclosing function that it uses
    flags: int  # of `compile`: the module's `from __future__` imports
    decorated: bool  # whether the decorators in the text are applied


class Values(NamedTuple):
    """The values that a function uses."""

    globals: dict[str, Any]
    closure: dict[str, Any]
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None
    attributes: dict[str, Any]
    submodules: tuple[types.ModuleType, ...]  # of packages among the globals: loading them imports them


class CompiledFunction(NamedTuple):
    """The code of the plain function, and that of its decorators, outermost first."""

    code: types.CodeType
    decorators: tuple[types.CodeType, ...]


def parse(source: str, flags: int = 0) -> FunctionNode:
    """The one function definition in `source`. Raises SyntaxError if there is none."""
    tree = compile(source, "<source>", "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    node = tree.body[0] if isinstance(tree, ast.Module) and len(tree.body) == 1 else None
    if not isinstance(node, FunctionNode):
        raise SyntaxError("not the definition of one function")
    return node


@functools.lru_cache(maxsize=512)
def compile_function(source: str, definition: Definition, imported: tuple[str, ...] = ()) -> CompiledFunction:
    """Compile a function's text. Remembered.

    `imported` are names that the module around it imports: that has no influence on what the function does,
    but on the code that Python makes of it.
    """
    node = parse(source, definition.flags)
    ast.increment_lineno(node, definition.line - 1)
    decorators = node.decorator_list if definition.decorated else []
    node.decorator_list = []
    node.returns = None
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        argument.annotation = None
    for variadic in (arguments.vararg, arguments.kwarg):
        if variadic is not None:
            variadic.annotation = None
    # Only the number of default values matters here: the values are set later.
    arguments.defaults = [ast.copy_location(ast.Constant(None), node) for _ in arguments.defaults]
    arguments.kw_defaults = [
        default and ast.copy_location(ast.Constant(None), node) for default in arguments.kw_defaults
    ]
    bound: ast.stmt = node
    if definition.free:
        # The names of the enclosing function become parameters of one, so that they are cells again.
        names = [ast.arg(name) for name in definition.free if name != definition.name]
        no_more: list[Any] = []
        bound = ast.FunctionDef(
            name=_FACTORY,
            args=ast.arguments(
                posonlyargs=[], args=[], kwonlyargs=names, kw_defaults=[None] * len(names), defaults=no_more
            ),
            body=[node, ast.Return(ast.Name(definition.name, ast.Load()))],
            decorator_list=[],
        )
        if sys.version_info >= (3, 12):
            bound.type_params = []
        ast.copy_location(bound, node)
    imports = [ast.copy_location(ast.Import([ast.alias(name)]), node) for name in imported]
    module = ast.fix_missing_locations(ast.Module([*imports, bound], []))

    def code(tree: Any, mode: str) -> types.CodeType:
        return compile(tree, definition.filename, mode, definition.flags, dont_inherit=True)  # type: ignore[no-any-return]

    plain = _code_called(definition.name, code(module, "exec"))
    return CompiledFunction(plain, tuple(code(ast.Expression(decorator), "eval") for decorator in decorators))


def _code_called(name: str, code: types.CodeType) -> types.CodeType:
    """The function's own code: in the module's constants, or in those of what is around the function."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            return constant if constant.co_name == name else _code_called(name, constant)
    raise SyntaxError(f"no function {name} in its own text")


def new_namespace(module: str, package: str | None = None) -> dict[str, Any]:
    """The global names of the functions of one module in a package, none yet."""
    return {"__name__": module, "__package__": package, "__builtins__": builtins}


def bare(source: str, definition: Definition, namespace: dict[str, Any]) -> types.FunctionType:
    """The plain function, without any of the values that it uses."""
    code = compile_function(source, definition).code
    cells = tuple(types.CellType() for _ in code.co_freevars)
    function = types.FunctionType(code, namespace, definition.name, None, cells)
    function.__qualname__ = definition.name
    return function


def fill(function: types.FunctionType, values: Values) -> None:
    """Give a bare function the values that it uses."""
    function.__globals__.update(values.globals)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name in values.closure:
            cell.cell_contents = values.closure[name]
    function.__defaults__ = values.defaults
    function.__kwdefaults__ = values.keyword_defaults
    function.__dict__.update(values.attributes)


def finish(function: types.FunctionType, source: str, definition: Definition) -> Callable[..., Any]:
    """Apply the decorators, and give the result its own name.

    By that a recursive function calls itself, decorated as it is; unless the name stands for something else
    by now, which then came with the values.
    """
    namespace = function.__globals__
    finished: Callable[..., Any] = function
    for code in reversed(compile_function(source, definition).decorators):
        finished = eval(code, namespace)(finished)
    namespace.setdefault(definition.name, finished)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name == definition.name and _is_empty(cell):
            cell.cell_contents = finished
    return finished


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  To read an empty one is a ValueError.
    except ValueError:
        return True
    return False
