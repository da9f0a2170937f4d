"""What travels for one function: its text, and with each call the values it uses, as they are then."""

from __future__ import annotations

import dis
import functools
import io
import os
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

from distribute_challenge.client.modules import imported_in, is_users, modules_for
from distribute_challenge.client.pace import Pace
from distribute_challenge.client.text import Text, find_text, not_ours
from distribute_challenge.errors import TaskNotSendable
from distribute_challenge.wire import payload
from distribute_challenge.wire.classes import with_token
from distribute_challenge.wire.definition import Values
from distribute_challenge.wire.functions import (
    Namespace,
    load_cached_property,
    reduce_cached,
    reduce_helper,
    reduce_top,
)
from distribute_challenge.wire.payload import CHUNK, INITIALIZER, NO_SCOPE, PRINTS, PROTOCOL, Call, Module

BY_VALUE = "# No text makes this very function again: it is sent by value.\n"
_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"}
_LruCache = type(functools.lru_cache(abs))


class Parcel:
    """One call, ready to go. `modules` are those of the user's own that it needs."""

    __slots__ = ("_call", "modules", "source")

    def __init__(self, source: str, call: Call, modules: tuple[Module, ...]) -> None:
        self.source = source
        self.modules = modules
        self._call = call

    @property
    def id(self) -> bytes:
        """By which its output can be asked for."""
        return self._call.id

    @property
    def prints(self) -> bool:
        """Whether its output is wanted."""
        return bool(self._call.flags & PRINTS)

    @property
    def is_chunk(self) -> bool:
        """Whether it runs the function for each item of a list."""
        return bool(self._call.flags & CHUNK)

    @property
    def is_initializer(self) -> bool:
        """Whether it runs the initializer of an executor."""
        return bool(self._call.flags & INITIALIZER)

    @property
    def scope(self) -> bytes:
        """The executor that it belongs to, if that has an initializer."""
        return self._call.scope

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return len(self.source) + len(self._call.function) + len(self._call.arguments)

    @property
    def call(self) -> Call:
        """The call, for who runs it in place."""
        return self._call

    def pack(self, sent: set[str]) -> bytes:
        """As bytes, for a connection on which modules with the digests in `sent` have gone before."""
        if not self.modules:
            return self._call.pack()
        news = tuple(
            module._replace(text=None) if module.digest in sent else module for module in self.modules
        )
        sent.update(module.digest for module in news)
        return self._call._replace(modules=pickle.dumps([tuple(module) for module in news])).pack()


class Shipment:
    """A function on its way to workers. `source` is the text that travels."""

    def __init__(
        self, function: Callable[..., Any], is_ours: Callable[[Any], bool] = lambda _: False
    ) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._text = find_text(function, is_ours)
        self.source = BY_VALUE if self._text is None else self._text.source
        self.pace = pace_of(function)

    def parcel(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        prints: bool = True,
        flags: int = 0,
        scope: bytes = NO_SCOPE,
        python: str | None = None,
    ) -> Parcel:
        """One call, with the values that the function uses as they are now.

        `python` is the version of the workers, as `3.12`. Raises TaskNotSendable, which names what cannot be
        pickled.
        """
        function, modules = self.dump_function(python)
        arguments = self.dump_arguments((args, kwargs), python, modules)
        return self.pack(function, arguments, modules, prints=prints, flags=flags, scope=scope)

    def chunk(
        self,
        function: bytes,
        items: list[tuple[Any, ...]],
        modules: set[str],
        *,
        prints: bool,
        scope: bytes,
        python: str | None,
    ) -> Parcel:
        """A call for each of `items`, given what `dump_function` returned."""
        needed = set(modules)
        arguments = self.dump_arguments(items, python, needed)
        return self.pack(function, arguments, needed, prints=prints, flags=CHUNK, scope=scope)

    def pack(
        self, function: bytes, arguments: bytes, modules: set[str], *, prints: bool, flags: int, scope: bytes
    ) -> Parcel:
        """The parts of a call together."""
        call = Call(flags | PRINTS * prints, os.urandom(8), scope, b"", function, arguments)
        try:
            sources = modules_for(frozenset(modules)) if modules else ()
        except (OSError, SyntaxError, UnicodeError) as error:
            raise TaskNotSendable(
                f"{self.name} cannot be sent to a worker: a module that it needs cannot be read ({error})"
            ) from error
        size = len(function) + len(arguments) + 4 * len(self.source)
        try:
            payload.check_size(size + sum(len(module.text or "") * 4 for module in sources))
        except OverflowError as error:
            raise TaskNotSendable(f"{self.name} cannot be sent to a worker: {error}") from error
        return Parcel(self.source, call, sources)

    def dump_function(self, python: str | None) -> tuple[bytes, set[str]]:
        """The function without its text, and the user's modules that it needs."""
        definition = None if self._text is None else tuple(self._text.definition)
        plain = self.function if self._text is None else self._text.inner
        return self._dump((plain, definition), python, self._parts_of_function)

    def dump_arguments(self, arguments: Any, python: str | None, modules: set[str]) -> bytes:
        """Arguments, or a list of them. Adds the user's modules that they need to `modules`."""
        if is_plain(arguments):
            return pickle.dumps(arguments, PROTOCOL)
        data, needed = self._dump(arguments, python, lambda: _parts_of_arguments(arguments))
        modules |= needed
        return data

    def _dump(
        self, value: Any, python: str | None, parts: Callable[[], Iterable[tuple[str, Any]]]
    ) -> tuple[bytes, set[str]]:
        file = io.BytesIO()
        sender = Sender(file, self, python)
        try:
            sender.dump(value)
        except Exception as error:
            raise TaskNotSendable(self._explain(parts(), error, python)) from error
        return file.getvalue(), sender.modules

    @property
    def text(self) -> Text | None:
        """The function's text, if it has one."""
        return self._text

    def is_itself(self, value: Any) -> bool:
        """Whether a value is the function, with our decorator or without."""
        return value is self.function or getattr(value, "__wrapped__", None) is self.function

    def _parts_of_function(self) -> Iterator[tuple[str, Any]]:
        if self._text is None:
            yield "the function itself, which has no text of its own", self.function
            return
        values = values_of(self._text, self)
        for name, value in [*values.globals.items(), *values.closure.items()]:
            yield f"the variable {name!r} that it uses", value
        for value in values.defaults or ():
            yield "a default value", value
        for name, value in (values.keyword_defaults or {}).items():
            yield f"the default value of {name!r}", value

    def _explain(self, parts: Iterable[tuple[str, Any]], error: Exception, python: str | None) -> str:
        for what, value in parts:
            try:
                Sender(io.BytesIO(), self, python).dump(value)
            except NotAcrossVersions as reason:
                return f"{self.name} cannot be sent to a worker, because of {what}: {reason}"
            except Exception as reason:
                return (
                    f"{self.name} cannot be sent to a worker, because of {what}, a {type(value).__name__} "
                    f"({reason}): make it inside the function instead"
                )
        return f"{self.name} cannot be sent to a worker: {error}"


class NotAcrossVersions(TypeError):
    """Something that only workers of the same Python version could take."""


class Sender(cloudpickle.Pickler):
    """Writes values for workers: functions as text where they have one, classes with a token.

    `modules` collects the user's own modules that are needed to load what was written.
    """

    def __init__(self, file: io.BytesIO, shipment: Shipment, python: str | None) -> None:
        super().__init__(file, PROTOCOL)
        self.modules: set[str] = set()
        self._shipment = shipment
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
        if getattr(obj, "__wrapped__", None) is self._shipment.function and self._shipment.text is None:
            return _itself, (self._shipment.function,)  # By its name a function calls itself, not the pool.
        if isinstance(obj, functools.cached_property):
            return load_cached_property, (obj.func, obj.attrname)  # In some versions it holds a lock.
        if isinstance(obj, _LruCache) and obj.__module__ == "__main__":
            return reduce_cached(obj)  # By its name it would not be found on a worker.
        is_own = obj is sys.stdout or obj is sys.stderr  # These travel by name.
        if isinstance(obj, io.TextIOBase) and not is_own and not obj.closed and obj.writable():
            raise TypeError("a file open for writing does not travel")  # cloudpickle would copy its text.
        return super().reducer_override(obj)

    def _reduce_function(self, function: types.FunctionType) -> Any:
        text = self._shipment.text
        if text is not None and function is text.inner:
            self._needs_of(function, text)
            values = values_of(text, self._shipment)
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
            text.source, text.definition, self._namespace(function), values_of(text, self._shipment)
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
            for name in _names_of(function.__code__).imported:
                self._need(name)
        elif _names_of(function.__code__).imported:
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


_names_of = functools.lru_cache(maxsize=1024)(Names)
_paces: weakref.WeakKeyDictionary[types.CodeType, Pace] = weakref.WeakKeyDictionary()


def pace_of(function: Callable[..., Any]) -> Pace:
    """How long a function takes, as far as known: that of all functions with its code."""
    code = getattr(function, "__code__", None)
    return Pace() if code is None else _paces.setdefault(code, Pace())


def values_of(text: Text, shipment: Shipment) -> Values:
    """The values that a function with a text uses, as they are now.

    Under its own name the function of a call finds itself: that is not among them.
    """
    inner = text.inner
    scope = inner.__globals__
    names = _names_of(inner.__code__)
    own = text.definition.name if shipment.text is not None and inner is shipment.text.inner else None
    cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    values = {
        name: scope[name]
        for name in sorted(names.globals.union(text.decorator_names()))
        if name in scope and not (name == own and shipment.is_itself(scope[name]))
    }
    return Values(
        globals=values,
        closure={
            name: cell.cell_contents
            for name, cell in cells
            if not (name == text.definition.name and shipment.is_itself(cell.cell_contents))
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


def is_plain(arguments: Any) -> bool:
    """Whether arguments hold nothing but plain values, for which plain pickle will do."""
    if isinstance(arguments, list):
        return all(payload.PLAIN_TYPES.issuperset(map(type, item)) for item in arguments)
    args, kwargs = arguments
    return payload.PLAIN_TYPES.issuperset(map(type, args)) and payload.PLAIN_TYPES.issuperset(
        map(type, kwargs.values())
    )


def _parts_of_arguments(arguments: Any) -> Iterator[tuple[str, Any]]:
    """Everything that the arguments hold, and what to call it in a message."""
    calls = [(args, {}) for args in arguments] if isinstance(arguments, list) else [arguments]
    for args, kwargs in calls:
        for number, value in enumerate(args, start=1):
            yield f"argument {number}", value
        for name, value in kwargs.items():
            yield f"argument {name!r}", value
