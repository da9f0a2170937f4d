"""How long a function may run: its time begins when its worker has the call."""

from __future__ import annotations

import time

from distribute_challenge.wire.link import Link


class TimeLimit:
    """The limit of a function whose call is being sent; made just before that.

    The client does not see when the worker begins. But as long as some of the call leaves this system, it
    has not. Far away, the call and the outcome are under way for a round trip; for another one, a tunnel
    may still be connecting to the worker.
    """

    def __init__(self, seconds: float, link: Link, round_trip_s: float) -> None:
        self.seconds = seconds
        self._allowed_s = seconds + 2 * round_trip_s
        self._link = link
        self._unsent_bytes = 0
        self._since = time.monotonic()

    def left_s(self, now: float) -> float:
        """How many seconds are left; not more than 0: it has had its time."""
        left_s = self._since + self._allowed_s - now
        if left_s > 0:
            return left_s
        unsent_bytes = self._link.unsent_bytes
        if unsent_bytes == self._unsent_bytes:  # Nothing, or a worker that takes no more.
            return left_s
        self._unsent_bytes, self._since = unsent_bytes, now
        return self._allowed_s
