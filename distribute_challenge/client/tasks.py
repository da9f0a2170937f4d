"""Tasks: what waits for a worker."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from distribute_challenge.client.pace import Pace
from distribute_challenge.client.shipping import Parcel
from distribute_challenge.wire.payload import Outcome


class Task:
    """One call, or one chunk of them, on its way to a result.

    The result of a chunk's future is a list: for each item whether it returned, and the value or exception.
    """

    __slots__ = ("count", "future", "has_begun", "name", "pace", "parcel", "sent_at")

    def __init__(self, name: str, parcel: Parcel, pace: Pace, count: int = 1) -> None:
        self.name = name
        self.parcel = parcel
        self.pace = pace
        self.count = count  # how many functions it runs
        self.future: Future[Any] = Future()
        self.has_begun = False
        self.sent_at = 0.0

    def begin(self) -> bool:
        """Mark it as running; False if it was cancelled."""
        if not self.has_begun:
            self.has_begun = self.future.set_running_or_notify_cancel()
        self.sent_at = time.monotonic()
        return self.has_begun

    @property
    def expected_s(self) -> float | None:
        """How long it will take, if that is known."""
        return None if self.pace.seconds is None else self.pace.seconds * self.count

    def complete(self, outcome: Outcome) -> None:
        """Give the future its result."""
        try:
            value = outcome.load_each() if self.parcel.is_chunk else outcome.load()
        except BaseException as error:
            self.fail(error)
        else:
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Give the future an exception."""
        if self.has_begun or self.future.set_running_or_notify_cancel():
            self.has_begun = True
            self.future.set_exception(error)
