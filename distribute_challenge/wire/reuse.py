"""Functions that were loaded before and may be called again.

Each call finds the function as it was sent, whatever earlier calls did to it and its global names. To make it
anew takes longer than a short call; so one whose names are bound to nothing but constants, modules and
functions like itself is kept, and called again as long as each of them is still what it was.
"""

from __future__ import annotations

import operator
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distribute_challenge.wire.payload import PLAIN_TYPES

MAX_KEPT = 256
MAX_BYTES = 1 << 14  # of a function as it was sent: larger ones are not kept

Namespaces = dict[str, dict[str, Any]]  # the global names of the functions in a call, by module


class Loaded(NamedTuple):
    """A function as it was loaded, with the namespaces of all functions that came with it."""

    function: Callable[..., Any]
    namespaces: Namespaces


class Kept:
    """The functions that one process keeps, by what they were loaded from."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], _Unchanged] = OrderedDict()  # the latest last

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        return key in self._known

    def take(self, source: str, data: bytes) -> Loaded | None:
        """The function that was loaded from these before, if it is as it was then."""
        known = self._known.pop((source, data), None)
        if known is None or not known.still_holds():
            return None
        self._known[source, data] = known
        return Loaded(known.loaded.function, dict(known.loaded.namespaces))

    def put(self, source: str, data: bytes, loaded: Loaded) -> None:
        """Keep a function that has just been loaded and not yet been called, if that is possible."""
        if len(source) + len(data) > MAX_BYTES or not _is_constant(loaded):
            return
        self._known[source, data] = _Unchanged(loaded)
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)


class _Unchanged:
    """A function, and all that belongs to it when it was loaded."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._spaces = [(space, tuple(space), tuple(space.values())) for space in loaded.namespaces.values()]
        self._functions = [
            (function, function.__code__, function.__defaults__) for function in _functions_of(loaded)
        ]

    def still_holds(self) -> bool:
        for space, names, values in self._spaces:
            if tuple(space) != names or not all(map(operator.is_, space.values(), values)):
                return False
        return all(
            function.__code__ is code and function.__defaults__ is defaults and _is_bare(function)
            for function, code, defaults in self._functions
        )


def _is_constant(loaded: Loaded) -> bool:
    """Whether nothing that belongs to a function may change without being bound anew."""
    if not isinstance(loaded.function, types.FunctionType):
        return False
    for value in _values_of(loaded):
        if isinstance(value, types.FunctionType):
            is_ours = any(value.__globals__ is space for space in loaded.namespaces.values())
            has_constants = PLAIN_TYPES.issuperset(map(type, value.__defaults__ or ()))
            if not (is_ours and has_constants and _is_bare(value) and not value.__closure__):
                return False
        elif type(value) not in PLAIN_TYPES and not isinstance(value, types.ModuleType):
            return False
    return True


def _values_of(loaded: Loaded) -> Iterator[Any]:
    yield loaded.function
    for space in loaded.namespaces.values():
        yield from space.values()


def _functions_of(loaded: Loaded) -> Iterator[types.FunctionType]:
    return (value for value in _values_of(loaded) if isinstance(value, types.FunctionType))


def _is_bare(function: types.FunctionType) -> bool:
    return function.__kwdefaults__ is None and not function.__dict__
