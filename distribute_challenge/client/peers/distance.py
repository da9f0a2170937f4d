"""How far away a pool is: how long a question and its answer are under way."""

from __future__ import annotations

import math

NEAR_S = 0.005  # What takes less is as good as nothing.
_SHARE = 1 / 16  # that a longer time counts; a shorter one counts at once


class Distance:
    """The round trip to a pool, as measured. Any thread may ask, and note what it has measured."""

    def __init__(self) -> None:
        self._shortest_s = math.inf

    def note(self, seconds: float, *, is_at_most: bool = False) -> None:
        """Take in how long an answer took, which the peer, or we, may have kept waiting a little.

        With `is_at_most` it may have been any longer than the round trip: it waited in line, say.
        """
        if seconds <= self._shortest_s:
            self._shortest_s = seconds
        elif not is_at_most:
            self._shortest_s += _SHARE * (seconds - self._shortest_s)

    @property
    def round_trip_s(self) -> float:
        """The round trip; 0 if that is near, or not known yet."""
        return self._shortest_s if NEAR_S < self._shortest_s < math.inf else 0.0
