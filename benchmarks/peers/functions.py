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


def sleep_10ms(_item: object = None) -> None:
    """Ten milliseconds of the same."""
    time.sleep(0.01)


def fit(rows: Any) -> Any:
    """Some 10 ms of scikit-learn."""
    from sklearn.cluster import KMeans

    return KMeans(2, n_init=1, max_iter=3, random_state=0).fit(rows).cluster_centers_


def total(array: Any) -> float:
    """A short function of a large value."""
    return float(array[0] + array[-1])


def double(array: Any) -> Any:
    """A new array, so that no peer can send back a reference to what it was given."""
    return array * 2


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A chunk, for peers whose own `map` has none."""
    return [function(item) for item in items]
