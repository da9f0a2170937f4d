"""What every peer runs. A module of its own, so that all of them can send the functions by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any


def noop(_item: object = None) -> None:
    """Nothing: what is left is the cost of the pool."""


def sleep_1ms(_item: object = None) -> None:
    """One millisecond, without a processor: on two cores the client needs one, too."""
    time.sleep(0.001)


def double(array: Any) -> Any:
    """A new array, so that no peer can send back a reference to what it was given."""
    return array * 2


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A chunk, for peers whose own `map` has none."""
    return [function(item) for item in items]
