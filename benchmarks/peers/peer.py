"""What every peer can be asked to do.

A peer is used as its own documentation shows it. It is imported when it starts, in a process that knows no
other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

CHUNKS: tuple[int | None, ...] = (1, 10, 100, 1000)
POOLS = frozenset({"startup", "lone", "submit", "map", "short", "short_submit", "array"})
ALL = POOLS | {"medium", "large", "fit"}

Function = Callable[..., Any]


class Peer(ABC):
    """A way to run functions in other processes."""

    title: ClassVar[str]
    package: ClassVar[str]  # what has to be installed
    cases: ClassVar[frozenset[str]] = POOLS
    chunks: ClassVar[tuple[int | None, ...]] = CHUNKS
    is_heavy: ClassVar[bool] = False

    @abstractmethod
    def start(self) -> None:
        """Start two workers."""

    @abstractmethod
    def caller(self, function: Function) -> Function:
        """What runs the function elsewhere and waits for its value."""

    def submit(self, function: Function, count: int) -> None:
        """So many calls without arguments, all under way at once; returns when all results are here."""
        raise NotImplementedError

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        """The function of each item, in chunks; returns when all results are here."""
        raise NotImplementedError

    @abstractmethod
    def stop(self) -> None:
        """End the workers."""
