"""Functions that were loaded before and may be called again.

Each call finds the function as it was sent, whatever earlier calls did to it and its global names. To make it
anew takes longer than a short call; so one whose names are bound to nothing but constants, modules and
functions like itself is kept, and called again as long as each of them is still what it was.
"""

from __future__ import annotations

import operator
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from distribute_challenge.wire.payload import PLAIN_TYPES

MAX_KEPT = 256
MAX_BYTES = 1 << 14  # of a function as it was sent: larger ones are not kept

Key = tuple[str, bytes]  # the source of a function, and its pickle
Namespaces = dict[str, dict[str, Any]]  # the global names of the functions in a call, by module


class Loaded(NamedTuple):
    """A function as it was loaded, with the namespaces of all functions that came with it."""

    function: Callable[..., Any]
    namespaces: Namespaces


class Kept:
    """The functions that one process keeps, by what they were loaded from.

    A function that runs is not among them: whoever calls it again meanwhile makes another one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Unchanged] = OrderedDict()  # the latest last

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def take(self, key: Key) -> Unchanged | None:
        """The function that was loaded from these before, if it is as it was then."""
        known = self._known.pop(key, None)
        return known if known is not None and known.still_holds() else None

    def put(self, key: Key, known: Unchanged) -> None:
        """Keep a function, which may have been called."""
        self._known[key] = known
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)


def watch(key: Key, loaded: Loaded) -> Unchanged | None:
    """How a function is that has just been loaded; None if it may change without a trace."""
    source, data = key
    return Unchanged(loaded) if len(source) + len(data) <= MAX_BYTES and _is_constant(loaded) else None


class Unchanged:
    """A function, and all that belongs to it when it was loaded."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._spaces = [(space, tuple(space), tuple(space.values())) for space in loaded.namespaces.values()]
        self._functions = [(function, _state(function)) for function in _functions_of(loaded)]

    def still_holds(self) -> bool:
        """Whether all is as it was."""
        for space, names, values in self._spaces:
            if tuple(space) != names or not all(map(operator.is_, space.values(), values)):
                return False
        for function, before in self._functions:
            if not is_bare(function) or function.__annotations__:  # Of a text there are none.
                return False
            if not all(map(operator.is_, _state(function), before)):
                return False
        return True


def _is_constant(loaded: Loaded) -> bool:
    """Whether nothing that belongs to a function may change without being bound anew."""
    if not isinstance(loaded.function, types.FunctionType):
        return False
    for value in _values_of(loaded):
        if isinstance(value, types.FunctionType):
            is_ours = any(value.__globals__ is space for space in loaded.namespaces.values())
            has_constants = are_plain(value.__defaults__ or ())
            if not (
                is_ours
                and has_constants
                and is_bare(value)
                and not value.__closure__
                and not value.__annotations__
            ):
                return False
        elif type(value) is types.ModuleType:
            if not travels_by_name(value):
                return False
        elif type(value) not in PLAIN_TYPES:
            return False
    return True


def _values_of(loaded: Loaded) -> Iterator[Any]:
    yield loaded.function
    for space in loaded.namespaces.values():
        yield from space.values()


def _functions_of(loaded: Loaded) -> Iterator[types.FunctionType]:
    return (value for value in _values_of(loaded) if isinstance(value, types.FunctionType))


def _state(function: types.FunctionType) -> tuple[Any, ...]:
    """What belongs to a function, each of it something that does not change inside."""
    names = function.__name__, function.__qualname__, function.__module__
    return (function.__code__, function.__defaults__, *names, function.__doc__)


def is_bare(function: types.FunctionType) -> bool:
    """Whether nothing that travels with a function may change inside."""
    return function.__kwdefaults__ is None and not function.__dict__


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all values are of types whose values never change."""
    return PLAIN_TYPES.issuperset(map(type, values))


def travels_by_name(module: types.ModuleType) -> bool:
    """Whether a module is imported where it is needed; else it is copied, with all that is in it."""
    name = module.__name__
    return sys.modules.get(name) is module and name.partition(".")[0] not in _copied()


def _copied() -> set[str]:
    """The modules of which the program has said that they are to be copied."""
    cloudpickle = sys.modules.get("cloudpickle")  # A process that has not loaded it copies none.
    names = () if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()
    return {name.partition(".")[0] for name in names}
