"""Caching of functions: what a function depends on, and whether that is unchanged.

Constants are numbers, texts and the like, what is found by its name in a module, and functions and classes
that hold nothing else.
"""

from __future__ import annotations

import enum
import functools
import itertools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distribute_challenge.calls.payload import PLAIN_TYPES
from distribute_challenge.values.functions import Wrapper, annotations_of, content_of, global_names_of
from distribute_challenge.values.names import importable_module, is_importable, name_of

_UNBOUND = object()
_STATE = operator.attrgetter(
    *("__code__", "__defaults__", "__kwdefaults__", "__name__", "__qualname__", "__module__"),
    *("__doc__", "__dict__"),
)
_CLASS_STATE = operator.attrgetter("__bases__", "__name__", "__qualname__")
# Of classes: what describes the memory of their objects.
_LAYOUT = {types.GetSetDescriptorType, types.MemberDescriptorType}
_ALIASES = (types.GenericAlias, types.UnionType)  # `list[int]`, `int | str`
_TYPING = {"typing", "typing_extensions"}
_ANNOTATIONS = ("__annotations__", "__annotations_cache__")  # the second from Python 3.14 on
_UNCHANGING = {
    *("builtins.range", "re.Pattern", "pathlib.PosixPath", "pathlib.PurePosixPath"),
    *("decimal.Decimal", "datetime.date", "datetime.timedelta"),
}


def is_unchanging(kind: type) -> bool:
    """Whether objects of a type of the standard library are known never to change."""
    return f"{kind.__module__}.{kind.__qualname__}" in _UNCHANGING


class _Changeable(Exception):
    """Something may change without being bound anew."""


class Snapshot:
    """Everything that a function depends on, as it was when this was made: `snapshot` makes it."""

    def __init__(self, function: Callable[..., Any], modules: Iterable[types.ModuleType]) -> None:
        self._states: dict[types.FunctionType, tuple[Any, ...]] = {}  # of functions, as they were
        self.classes: dict[type, tuple[Any, ...]] = {}  # that travel by value, and what they were
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = [(own, len(own)) for own in map(vars, modules)]
        self._attributes: list[tuple[Any, str, Any]] = []  # an object, and what it has under a name
        self._cells: list[tuple[types.CellType, Any]] = []
        self._count = 0  # of modules, if a package is among them: what has been imported of it counts too
        self._add(function)

    def still_holds(self) -> bool:
        """Whether all is as it was."""
        for function, state in self._states.items():
            if not all(map(operator.is_, _STATE(function), state)):
                return False
        for cls, content in self.classes.items():
            if type(cls) is not type or not all(map(operator.is_, _CLASS_STATE(cls), content)):
                return False
        for namespace, name, value in self._names:
            if namespace.get(name, _UNBOUND) is not value:
                return False
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return False
        for cell, content in self._cells:
            if _content(cell) is not content:
                return False
        for holder, name, value in self._attributes:
            if getattr(holder, name) is not value:
                return False
        return self._count in (0, len(sys.modules))

    def _add(self, value: Any) -> None:
        kind = type(value)
        if kind in PLAIN_TYPES or value is Ellipsis or value is NotImplemented:
            return
        if kind is tuple or kind is frozenset:
            for part in value:
                self._add(part)
        elif isinstance(value, types.ModuleType):
            if not is_importable(value):
                raise _Changeable
            self._add_module(value.__name__)
            if hasattr(value, "__path__"):
                self._count = len(sys.modules)
        elif (name := name_of(value)) is not None:
            self._add_module(name.module)
            namespace, path = vars(sys.modules[name.module]), name.path.partition(".")[0]
            self._names.append((namespace, path, namespace.get(path, _UNBOUND)))
        elif issubclass(kind, enum.Enum) or is_unchanging(kind):
            if name_of(kind) is None:
                raise _Changeable
            self._add(kind)
        elif kind is types.FunctionType:
            self._add_function(value)
        elif kind is type:
            self._add_class(value)
        elif isinstance(value, Wrapper):
            own = vars(value)
            self._sizes.append((own, len(own)))
            self._names += [(own, name, part) for name, part in own.items()]
            self._add_names(own, own.keys() - value.fixed)
            self._add(value.__wrapped__)
        elif kind is functools.partial and not value.keywords and not vars(value):
            self._sizes += [(vars(value), 0), (value.keywords, 0)]
            self._attributes += [(value, "func", value.func), (value, "args", value.args)]
            self._add((value.func, *value.args))
        elif issubclass(kind, _ALIASES) or (kind.__module__ in _TYPING and hasattr(value, "__origin__")):
            parts = (getattr(value, name, ()) for name in ("__args__", "__metadata__"))  # Of annotations.
            self._add((getattr(value, "__origin__", None), *itertools.chain(*parts)))
        else:
            raise _Changeable

    def _add_function(self, function: Any) -> None:
        if function in self._states:
            return
        annotations = annotations_of(function)
        self._states[function] = _STATE(function)
        self._add(function.__defaults__ or ())
        if annotations is None:
            self._add(function.__annotate__)
        else:
            self._attributes.append((function, "__annotations__", annotations))
        for own in (function.__kwdefaults__, function.__dict__, annotations):
            if own is not None:
                self._sizes.append((own, len(own)))
                self._add_names(own, list(own))
        for cell in function.__closure__ or ():
            content = _content(cell)
            self._cells.append((cell, content))
            if content is not _UNBOUND:
                self._add(content)
        module = importable_module(function.__globals__)
        if module is None:
            self._add_names(function.__globals__, global_names_of(function))
        else:
            self._add_module(module)

    def _add_class(self, cls: type) -> None:
        if cls in self.classes:
            return
        self.classes[cls] = _CLASS_STATE(cls)
        self._add(cls.__bases__)
        own = vars(cls)
        self._sizes.append((own, len(own)))
        for name, value in own.items():
            self._names.append((own, name, value))
            kind = type(value)
            if kind is property:
                self._attributes.append((value, "__doc__", value.__doc__))
                self._add((value.fget, value.fset, value.fdel))
            elif kind is classmethod or kind is staticmethod:
                self._add(value.__func__)
            elif name in _ANNOTATIONS and kind is dict:
                self._sizes.append((value, len(value)))
                self._add_names(value, list(value))
            elif kind not in _LAYOUT and name != "__slotnames__":  # copyreg's cache
                self._add(value)

    def _add_module(self, name: str) -> None:
        """Another program may have another module of that name."""
        self._names.append((sys.modules, name, sys.modules[name]))

    def _add_names(self, namespace: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            value = namespace.get(name, _UNBOUND)
            self._names.append((namespace, name, value))
            if value is not _UNBOUND:
                self._add(value)


def snapshot(function: Callable[..., Any], modules: Iterable[types.ModuleType] = ()) -> Snapshot | None:
    """Everything that a function depends on; None if some of it may change without a trace.

    `modules` are those that were made for it: that nothing was added to them counts as well.
    """
    try:
        return Snapshot(function, modules)
    except _Changeable:
        return None


def _content(cell: types.CellType) -> Any:
    content = content_of(cell)
    return content[0] if content else _UNBOUND
