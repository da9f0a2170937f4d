"""How the text of a function is turned into the function, the same way at both ends.

Only the function itself is compiled from the text. What Python works out when it meets a `def` (default
values, annotations) has happened at the client already: the values come with the call. Decorators
that are kept are applied here, to the finished function.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from distribute_challenge.wire.payload import Call, Definition

_FACTORY = "__with_closure__"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class CompiledFunction(NamedTuple):
    """The code that binds the function, and that of its decorators, outermost first."""

    body: types.CodeType
    decorators: tuple[types.CodeType, ...]


def parse(source: str, flags: int = 0) -> FunctionNode:
    """The one function definition in `source`. Raises SyntaxError if there is none."""
    tree = compile(source, "<source>", "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    node = tree.body[0] if isinstance(tree, ast.Module) and len(tree.body) == 1 else None
    if not isinstance(node, FunctionNode):
        raise SyntaxError("not the definition of one function")
    return node


@functools.lru_cache(maxsize=512)
def compile_function(source: str, definition: Definition) -> CompiledFunction:
    """Compile a function's text. Remembered."""
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
    module = ast.fix_missing_locations(ast.Module([bound], []))

    def code(tree: Any, mode: str) -> types.CodeType:
        return compile(tree, definition.filename, mode, definition.flags, dont_inherit=True)  # type: ignore[no-any-return]

    return CompiledFunction(
        code(module, "exec"), tuple(code(ast.Expression(decorator), "eval") for decorator in decorators)
    )


def make_function(source: str, call: Call) -> Callable[..., Any]:
    """The function of a call, in a namespace of its own."""
    definition = call.definition
    if definition is None:
        return call.function  # type: ignore[no-any-return]
    compiled = compile_function(source, definition)
    namespace = {"__name__": definition.module, "__builtins__": builtins, **call.globals}
    exec(compiled.body, namespace)
    if definition.free:
        others = {name: value for name, value in call.closure.items() if name != definition.name}
        function = namespace.pop(_FACTORY)(**others)
    else:
        function = namespace[definition.name]
    function.__defaults__ = call.defaults
    function.__kwdefaults__ = call.keyword_defaults
    plain = function
    for decorator in reversed([eval(code, namespace) for code in compiled.decorators]):
        function = decorator(function)
    # By its own name a recursive function calls itself, decorated as it is; unless that name stands for
    # something else by now, which then came with the call.
    own = definition.name
    namespace[own] = call.globals.get(own, function)
    for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True):
        if name == own:
            cell.cell_contents = call.closure.get(own, function)
    return function  # type: ignore[no-any-return]
