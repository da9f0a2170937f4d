"""How fast a count grows."""

from __future__ import annotations

from collections import deque


class Rate:
    """The growth of a count in the last seconds. It is told the count from time to time.

    >>> rate = Rate()
    >>> rate.per_second(0, 100), rate.per_second(2, 110), rate.per_second(4, 130)
    (0.0, 5.0, 7.5)
    """

    def __init__(self, window_s: float = 5) -> None:
        self._window_s = window_s
        self._counts: deque[tuple[float, int]] = deque()

    def per_second(self, now: float, count: int) -> float:
        """The rate up to `now`, in seconds, when the count is this."""
        self._counts.append((now, count))
        while len(self._counts) > 2 and now - self._counts[1][0] >= self._window_s:
            self._counts.popleft()
        begun, before = self._counts[0]
        return (count - before) / (now - begun) if now > begun else 0.0
