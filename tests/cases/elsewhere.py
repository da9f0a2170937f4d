"""A user's own module, which workers do not have."""

from __future__ import annotations

from tests.cases import further

SCALE = 10


class Point:
    """A class of the user's own."""

    def __init__(self, x: int) -> None:
        self.x = x

    def moved(self, by: int) -> Point:
        """Another point."""
        return Point(self.x + by)


def scaled(x: int) -> int:
    """Uses a constant of this module and a function of another one."""
    return further.doubled(x) * SCALE
