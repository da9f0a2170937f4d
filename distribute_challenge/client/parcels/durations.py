"""How long functions take, as far as known."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any


class Pace:
    """How long one function takes, as last measured; None before."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Take a measurement in: a longer one counts at once, shorter ones little by little."""
        if self.seconds is None or seconds > self.seconds:
            self.seconds = seconds
        else:
            self.seconds += 0.25 * (seconds - self.seconds)


_paces: weakref.WeakKeyDictionary[types.CodeType, Pace] = weakref.WeakKeyDictionary()


def pace_of(function: Callable[..., Any]) -> Pace:
    """How long a function takes, as far as known: that of all functions with its code."""
    code = getattr(function, "__code__", None)
    return Pace() if code is None else _paces.setdefault(code, Pace())
