"""Functions in pickles: what the receiver makes of the code, the values and the names that were written."""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import linecache
import marshal
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from distribute_challenge.values.classes import Script
from distribute_challenge.values.code import names_of
from distribute_challenge.values.definition import Definition, Scope, compile_function
from distribute_challenge.values.making import Reduced
from distribute_challenge.values.names import importable_module

T = TypeVar("T")

SCRIPT = 0  # what tells the script's module apart
MadeModules = dict[int, types.ModuleType]  # made for the functions of a call, by what tells them apart

_MAX_WRAPPERS = 20
_INNER: dict[type, str] = {types.MethodType: "__func__", functools.partial: "func"}
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


class ByCode(Generic[T]):
    """Something for each code object. (Equal ones may be from different files: a dict would mix them up.)"""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[types.CodeType], T]] = {}

    def get(self, code: types.CodeType) -> T | None:
        """The value of a code object, if it has one."""
        found = self._found.get(id(code))
        return found[1] if found is not None and found[0]() is code else None

    def put(self, code: types.CodeType, value: T) -> T:
        """Keep a value as long as the code object lives."""
        key = id(code)
        self._found[key] = weakref.ref(code, lambda _: self._found.pop(key, None)), value
        return value

    def values(self) -> list[T]:
        """All values of code objects that live."""
        return [value for code, value in list(self._found.values()) if code() is not None]


# The text and the definition of each code object that was made of a text here.
texts: ByCode[tuple[str, Definition]] = ByCode()

_NOTHING: tuple[str, MadeModules | None] = "", None
_loading = threading.local()  # `now`: the source, and the modules, of the call that this thread loads


class Wrapper:
    """A callable around a function, whose attributes travel with it."""

    __wrapped__: Callable[..., Any]
    fixed: frozenset[str]  # the attributes that it has had from the beginning
    shipment: Any  # how it travels
    options: Any  # of its calls


class loading:  # noqa: N801  It is used as a function is; a generator's context takes three times as long.
    """While the pickles of a call are loaded: the text that travels beside them, and their modules."""

    __slots__ = ("_before", "_now")

    def __init__(self, source: str, modules: MadeModules) -> None:
        self._now = source, modules

    def __enter__(self) -> None:
        self._before = getattr(_loading, "now", _NOTHING)
        _loading.now = self._now

    def __exit__(self, *_: object) -> None:
        _loading.now = self._before  # Nothing may hold on to what was loaded.


def load_module(key: int, name: str, package: str | None) -> types.ModuleType:
    """A module, empty at first, for functions whose own one cannot be imported."""
    modules: MadeModules | None = getattr(_loading, "now", _NOTHING)[1]
    if modules is not None and key in modules:
        return modules[key]
    module = Script(name) if key == SCRIPT else types.ModuleType(name)
    vars(module).update(__package__=package, __builtins__=builtins)
    if modules is not None:
        modules[key] = module
    return module


def load_descriptor(cls: type, name: str) -> Any:
    """An attribute of a class that is written in C. (From Python 3.15 on, all share those of `object`.)"""
    return vars(type("Any", (), {}))[name] if cls is object else getattr(cls, name)


def load_view(data: bytes, form: str, shape: tuple[int, ...]) -> memoryview:
    """A view of numbers, say. Raises ValueError or TypeError if `memoryview` makes none of that form."""
    view = memoryview(data)
    return view.cast(form) if len(shape) == 1 else view.cast(form, shape)  # type: ignore[call-overload,no-any-return]


def load_singleton(module: types.ModuleType, name: str, make: Callable[..., Any], arguments: Reduced) -> Any:
    """Something that a module has but one of, made if it is not there yet."""
    namespace = vars(module)
    if name not in namespace:
        namespace[name] = make(*arguments)
    return namespace[name]


def load_text(source: str | None, definition: Reduced) -> types.CodeType:
    """The code of a function; the text of the called one travels beside the call."""
    name, filename, first_line, line, column, scopes, *rest = definition
    around = tuple(Scope(*scope) for scope in scopes)
    what = Definition(name, filename, first_line, line, column, around, *rest)
    text = _loading.now[0] if source is None else source
    code = compile_function(text, what)
    texts.put(code, (text, what))
    return code


@contextlib.contextmanager
def shown_texts() -> Iterator[None]:
    """While a traceback is written: code that is in no file here (a notebook's, say) shows its lines, too."""
    before: dict[str, Any] = {}
    for source, definition in texts.values():
        name, number, lines = definition.filename, definition.line, source.splitlines(keepends=True)
        if linecache.getline(name, number).strip() == lines[0].strip():
            continue
        if name not in before:
            before[name] = linecache.cache.pop(name, None)
            linecache.cache[name] = (len(source), None, [], name)
        shown: Any = linecache.cache[name][2]  # type: ignore[misc]
        shown += ["\n"] * (number - 1 + len(lines) - len(shown))
        shown[number - 1 : number - 1 + len(lines)] = lines
    try:
        yield
    finally:
        for name, entry in before.items():
            del linecache.cache[name]
            if entry is not None:
                linecache.cache[name] = entry


def reduce_code(code: types.CodeType) -> Reduced:
    """The reduced form of code without a text."""
    try:
        data = marshal.dumps(code, 2)  # The same each time, whoever else holds its constants.
    except ValueError:  # From Python 3.14 on, slices may be among them.
        data = marshal.dumps(code)
    return _load_code, (importlib.util.MAGIC_NUMBER, sys.version.split()[0], data)


def _load_code(magic: bytes, python: str, data: bytes) -> types.CodeType:
    if magic != importlib.util.MAGIC_NUMBER:
        here = sys.version.split()[0]
        raise TypeError(f"the code of a function does not cross from Python {python} to {here}")
    code: types.CodeType = marshal.loads(data)
    return code


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: str, cells: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """A function without any of the values that it uses, which may be among those itself."""
    return types.FunctionType(code, namespace, name, None, cells)


def fill_function(function: types.FunctionType, state: Reduced) -> None:
    """Give a function its values: attributes, global names, contents of its cells."""
    attributes, names, contents, _ = state  # The last are submodules: loading them imports them.
    function.__globals__.update(names)
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        fill_cell(cell, content)
    for name, value in attributes.items():
        setattr(function, name, value)


def fill_cell(cell: types.CellType, content: tuple[()] | tuple[Any]) -> None:
    """Give a cell its content, if it has any."""
    if content:
        cell.cell_contents = content[0]


def content_of(cell: types.CellType) -> tuple[()] | tuple[Any]:
    """The content of a cell; nothing if it has none yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def functions_in(function: Any) -> Iterator[types.FunctionType]:
    """The plain functions of which a function is made by wrapping, the innermost last."""
    for _ in range(_MAX_WRAPPERS):
        if type(function) is types.FunctionType:
            yield function
        attribute = _INNER.get(type(function), "__wrapped__")
        function = getattr(function, attribute, None)
        if not callable(function):
            return


def globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The global names that travel with a function, and their values: none of an importable module's."""
    namespace = function.__globals__
    if importable_module(namespace) is not None:
        return {}
    return {name: namespace[name] for name in sorted(global_names_of(function).intersection(namespace))}


def global_names_of(function: types.FunctionType) -> set[str]:
    """The global names that a function mentions: in its code, and in annotations that are texts."""
    names = names_of(function.__code__).globals.difference(["__builtins__"])
    for annotation in (annotations_of(function) or {}).values():
        if type(annotation) is str:
            names.update(_IDENTIFIER.findall(annotation))
    return names


def values_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that travel with a function, and their values."""
    yield from globals_of(function).items()
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        for value in content_of(cell):
            yield name, value


def annotations_of(function: Any) -> dict[str, Any] | None:
    """The annotations of a function; None if they cannot be worked out (yet)."""
    try:
        annotations: dict[str, Any] = function.__annotations__
    except Exception:  # Of Python 3.14 on they are worked out when they are asked for.
        return None
    return annotations
