"""Functions in pickles: what a sender writes for one that has a text, and how the receiver makes it again.

The function of a call is written without its text, which travels beside it; the functions that it uses are
written with theirs. All functions of one module share their global names, as they did where they come from.
"""

from __future__ import annotations

import functools
import pickle
import threading
import types
from collections.abc import Callable, Iterable
from typing import Any

from distribute_challenge.wire.definition import Definition, Values, bare, fill, finish, new_namespace
from distribute_challenge.wire.regions import Buffer
from distribute_challenge.wire.reuse import Kept, Loaded, Namespaces, Unchanged, watch

Reduced = tuple[Any, ...]

_loading = threading.local()  # `source` and `namespaces` of the call that this thread loads


class Namespace:
    """Stands in a pickle for the global names of a module's functions."""

    def __init__(self, module: str, package: str | None) -> None:
        self._module = module
        self._package = package

    def __reduce__(self) -> Reduced:
        return _load_namespace, (self._module, self._package)


def reduce_top(definition: Definition, namespace: Namespace, values: Values) -> Reduced:
    """What pickle is to write for the function of a call."""
    return _load_top, (tuple(definition), namespace), tuple(values), None, None, _fill


def reduce_helper(source: str, definition: Definition, namespace: Namespace, values: Values) -> Reduced:
    """What pickle is to write for any other function with a text."""
    return _load_helper, (source, tuple(definition), namespace), tuple(values), None, None, _fill


def reduce_cached(function: Any) -> Reduced:
    """What pickle is to write for what `functools.lru_cache` makes of a function."""
    parameters = function.cache_parameters()
    return _load_cached, (parameters["maxsize"], parameters["typed"]), function.__wrapped__, None, None, _wrap


def load_call(
    source: str, function_data: bytes, arguments_data: bytes, kept: Kept, buffers: Iterable[Buffer] = ()
) -> tuple[Loaded, Any, Unchanged | None]:
    """The function of a call, its arguments, and if the function is to be kept, how it is.

    Functions of one module share their global names. One that was loaded before is taken from `kept`.
    """
    rest = iter(buffers)  # First come those of the function.
    key = source, function_data
    before = getattr(_loading, "source", None), getattr(_loading, "namespaces", None)
    known = kept.take(key)
    namespaces: Namespaces = {} if known is None else dict(known.loaded.namespaces)
    _loading.source, _loading.namespaces = source, namespaces
    try:
        if known is not None:
            loaded = Loaded(known.loaded.function, namespaces)
        else:
            function, definition = pickle.loads(function_data, buffers=rest)
            if definition is not None:
                function = finish(function, source, Definition(*definition))
            loaded = Loaded(function, namespaces)
            # Before the arguments are loaded: functions among them add to the namespaces.
            known = watch(key, Loaded(function, dict(namespaces)))
        return loaded, pickle.loads(arguments_data, buffers=rest), known
    finally:
        _loading.source, _loading.namespaces = before  # Nothing may hold on to what was loaded.


def load_cached_property(function: Callable[..., Any], name: str | None) -> functools.cached_property[Any]:
    """A `functools.cached_property` as it was, but for its lock."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _load_namespace(module: str, package: str | None) -> dict[str, Any]:
    namespaces: dict[str, dict[str, Any]] = _loading.namespaces
    if module not in namespaces:
        namespaces[module] = new_namespace(module, package)
    return namespaces[module]


def _load_top(definition: Reduced, namespace: dict[str, Any]) -> types.FunctionType:
    return bare(_loading.source, Definition(*definition), namespace)


def _load_helper(source: str, definition: Reduced, namespace: dict[str, Any]) -> types.FunctionType:
    return bare(source, Definition(*definition), namespace)


def _fill(function: types.FunctionType, values: Reduced) -> None:
    fill(function, Values(*values))


def _load_cached(maxsize: int | None, typed: bool) -> Any:
    # It may be among the values that the function inside it uses: so it is made first, around nothing.
    inside: list[Callable[..., Any]] = []
    cached = functools.lru_cache(maxsize, typed)(lambda *args, **kwargs: inside[0](*args, **kwargs))
    cached.__dict__["__inside__"] = inside
    return cached


def _wrap(cached: Any, function: Callable[..., Any]) -> None:
    cached.__dict__.pop("__inside__").append(function)
    functools.update_wrapper(cached, function)
