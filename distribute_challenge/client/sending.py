"""Writes functions, classes and values for workers: functions as text where they have one."""

from __future__ import annotations

import dis
import functools
import io
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cloudpickle

from distribute_challenge.client.modules import imported_in, is_users
from distribute_challenge.client.text import Text, find_text, not_ours
from distribute_challenge.wire.buffers import Collector
from distribute_challenge.wire.classes import with_token
from distribute_challenge.wire.definition import Values
from distribute_challenge.wire.functions import (
    Namespace,
    load_cached_property,
    reduce_cached,
    reduce_helper,
    reduce_top,
)
from distribute_challenge.wire.payload import PROTOCOL

_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"}
_LruCache = type(functools.lru_cache(abs))


class Subject(NamedTuple):
    """The function of a call, and its text if it has one."""

    function: Callable[..., Any]
    text: Text | None

    def is_itself(self, value: Any) -> bool:
        """Whether a value is the function, with our decorator or without."""
        return value is self.function or getattr(value, "__wrapped__", None) is self.function


class NotAcrossVersions(TypeError):
    """Something that only workers of the same Python version could take."""


class Sender(cloudpickle.Pickler):
    """Writes values for workers: functions as text where they have one, classes with a token.

    `modules` collects the user's own modules that are needed to load what was written.
    """

    def __init__(
        self, file: io.BytesIO, subject: Subject, python: str | None, large: Collector | None = None
    ) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=large)
        self.modules: set[str] = set()
        self._subject = subject
        self._python = python
        self._namespaces: dict[int, Namespace] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a built-in type."""
        if isinstance(obj, types.ModuleType):
            self._need(obj.__name__)
            return super().reducer_override(obj)
        if isinstance(obj, types.FunctionType):
            return self._reduce_function(obj)
        if isinstance(obj, type):
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented or len(reduced) != 6:
                self._need(obj.__module__)
                return reduced
            self._refuse_across_versions(f"the class {obj.__qualname__}, which would travel by value")
            return with_token(obj, reduced)
        if getattr(obj, "__wrapped__", None) is self._subject.function and self._subject.text is None:
            return _itself, (self._subject.function,)  # By its name a function calls itself, not the pool.
        if isinstance(obj, functools.cached_property):
            return load_cached_property, (obj.func, obj.attrname)  # In some versions it holds a lock.
        if isinstance(obj, _LruCache) and obj.__module__ == "__main__":
            return reduce_cached(obj)  # By its name it would not be found on a worker.
        is_own = obj is sys.stdout or obj is sys.stderr  # These travel by name.
        if isinstance(obj, io.TextIOWrapper) and not is_own and not obj.closed and obj.writable():
            raise TypeError("a file open for writing does not travel")  # cloudpickle would copy its text.
        return super().reducer_override(obj)

    def _reduce_function(self, function: types.FunctionType) -> Any:
        text = self._subject.text
        if text is not None and function is text.inner:
            self._needs_of(function, text)
            values = values_of(text, self._subject)
            return reduce_top(text.definition, self._namespace(function), values)
        reduced = super().reducer_override(function)
        # A function of the same module goes by value, with the values that it uses now.
        is_near = text is not None and function.__globals__ is text.inner.__globals__
        if reduced is NotImplemented and not is_near:
            self._need(function.__module__)
            return reduced
        text = find_text(function, not_ours)
        self._needs_of(function, text)
        if text is None and reduced is NotImplemented:
            self._need(function.__module__)
            return reduced
        if text is None:
            self._refuse_across_versions(
                f"the function {function.__qualname__}, which has no text of its own"
            )
            return reduced
        if text.definition.free:
            self._refuse_across_versions(f"the function {function.__qualname__}, which is a closure")
        return reduce_helper(
            text.source, text.definition, self._namespace(function), values_of(text, self._subject)
        )

    def _namespace(self, function: types.FunctionType) -> Namespace:
        scope = function.__globals__
        if id(scope) not in self._namespaces:
            package = scope.get("__package__")
            self._namespaces[id(scope)] = Namespace(function.__module__ or "__main__", package)
        return self._namespaces[id(scope)]

    def _need(self, module: str | None) -> None:
        if module and is_users(module):
            self.modules.add(module)

    def _needs_of(self, function: types.FunctionType, text: Text | None) -> None:
        """Take note of the modules that a function imports when it is called."""
        if text is None:
            for name in names_of(function.__code__).imported:
                self._need(name)
        elif names_of(function.__code__).imported:
            for name in imported_in(text.source, function.__globals__.get("__package__") or ""):
                self._need(name)

    def _refuse_across_versions(self, what: str) -> None:
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if self._python is not None and self._python != here:
            raise NotAcrossVersions(
                f"{what}, does not cross from Python {here} to the workers' {self._python}: make it inside "
                "the function instead, or start the server with this Python"
            )


def _itself(function: Any) -> Any:
    return function


class Names:
    """The names that a function's code, and all code inside it, mentions."""

    def __init__(self, code: types.CodeType) -> None:
        self.globals: set[str] = set()
        self.all: set[str] = set()
        self.imported: set[str] = set()
        codes = [code]
        for part in codes:  # It grows while it is gone through.
            codes += [constant for constant in part.co_consts if isinstance(constant, types.CodeType)]
            self.all.update(part.co_names)
            for instruction in dis.get_instructions(part):
                if instruction.opname in _GLOBAL and isinstance(instruction.argval, str):
                    self.globals.add(instruction.argval)
                elif instruction.opname == "IMPORT_NAME":
                    self.imported.add(instruction.argval)


names_of = functools.lru_cache(maxsize=1024)(Names)


def values_of(text: Text, subject: Subject) -> Values:
    """The values that a function with a text uses, as they are now.

    Under its own name the function of a call finds itself: that is not among them.
    """
    inner = text.inner
    scope = inner.__globals__
    names = names_of(inner.__code__)
    own = text.definition.name if subject.text is not None and inner is subject.text.inner else None
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    values = {
        name: scope[name]
        for name in sorted(names.globals.union(text.decorator_names()))
        if name in scope and not (name == own and subject.is_itself(scope[name]))
    }
    return Values(
        globals=values,
        closure={
            name: cell.cell_contents
            for name, cell in cells
            if not (name == text.definition.name and subject.is_itself(cell.cell_contents))
        },
        defaults=inner.__defaults__,
        keyword_defaults=inner.__kwdefaults__,
        attributes={name: value for name, value in vars(inner).items() if name != "__wrapped__"},
        submodules=tuple(_submodules(values.values(), names.all)),
    )


def _submodules(values: Iterable[Any], names: set[str]) -> Iterator[types.ModuleType]:
    """The submodules that are reached through packages: `import xml.dom` binds only `xml`."""
    for package in values:
        if isinstance(package, types.ModuleType) and hasattr(package, "__path__"):
            prefix = f"{package.__name__}."
            for name, module in list(sys.modules.items()):
                is_inside = name.startswith(prefix) and module is not None
                if is_inside and names.issuperset(name.removeprefix(prefix).split(".")):
                    yield module
