"""Objects in pickles: what the receiver makes of those that pickle has no good way for."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any

Reduced = tuple[Any, ...]


class StandIn:
    """Stands for something in one pickle: what it is there is in `reduced`."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Reduced:
        return self._reduced


def fill_object(made: Any, state: Any) -> None:
    """Give an object its content, and ask nothing of its class for that."""
    content, slots = state if type(state) is tuple else (state, None)
    if content:
        made.__dict__.update(content)
    for name, value in (slots or {}).items():
        object.__setattr__(made, name, value)


def slots_of(obj: object) -> dict[str, Any]:
    """The attributes of an object that its class, or a base written in Python, keeps in slots."""
    found = {}
    for space in [vars(cls) for cls in type(obj).__mro__ if "__slots__" in vars(cls)]:
        for name, slot in space.items():
            if type(slot) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It is empty.
                    found[name] = slot.__get__(obj)
    return found


def fill_exception(made: BaseException, state: dict[str, Any]) -> None:
    """Give an exception its attributes, some of which C code keeps. Its class may refuse them."""
    for name, value in state.items():
        try:
            object.__setattr__(made, name, value)
        except AttributeError:  # A property has that name.
            made.__dict__[name] = value


def make_exception(kind: type[BaseException], args: Reduced) -> BaseException:
    """An exception without its own constructor."""
    exception = kind.__new__(kind, *args)
    builtin: Any = next(cls for cls in kind.__mro__ if cls.__module__ == "builtins")
    builtin.__init__(exception, *args)
    return exception


def make_cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """A function with `functools.lru_cache`, and an empty cache."""
    return functools.lru_cache(maxsize, typed)(function)


def make_dispatch(function: Callable[..., Any], others: dict[type, Callable[..., Any]]) -> Any:
    """A function with `functools.singledispatch`, and its registered functions."""
    made = functools.singledispatch(function)
    for cls, other in others.items():
        made.register(cls, other)
    return made


def make_type(kind: str, name: str, module: str, arguments: Reduced, options: dict[str, Any]) -> Any:
    """A `typing.NewType`, `ParamSpec` or the like."""
    import typing  # Late: most workers never need it.

    made = getattr(typing, kind)(name, *arguments, **options)
    with contextlib.suppress(AttributeError, TypeError):  # Of some kinds it is fixed.
        made.__module__ = module
    return made
