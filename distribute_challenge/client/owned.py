"""What an executor owns, and how that ends, also when the executor is simply dropped."""

from __future__ import annotations

import _thread
import contextlib
from collections.abc import Callable


class Owned:
    """Calls `end` of what was added, last first. Each may be called more than once, by several threads."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []

    def add(self, end: Callable[[], None]) -> None:
        """Have `end()` called before those that were added so far."""
        self._ends.append(end)

    def forget(self) -> None:
        """Call none of them: in a forked child they are the parent's."""
        self._ends.clear()

    def end(self) -> None:
        """End it all, and wait for that."""
        with contextlib.ExitStack() as stack:  # What one raises keeps no other from ending.
            for end in self._ends:
                stack.callback(end)

    def end_soon(self) -> None:
        """End it all in another thread: this one collects garbage, and may hold any lock meanwhile."""
        if self._ends:
            try:
                _thread.start_new_thread(self.end, ())
            except RuntimeError:  # The program is ending.
                self.end()
