"""One line at the end of a terminal: what the pool does while it serves. Log records go above it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

EVERY_S = 1.0
CLEARED = "\r\x1b[K"

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:  # Python 3.10 has it without the brackets only.
    _StreamHandler = logging.StreamHandler

State = Callable[[], Mapping[str, Any]]


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


class StatusLine(_StreamHandler):
    """The handler of a program's log, which also keeps the line, in a thread of its own.

    Only on a terminal, and while that is ours: a server in the background does not write over what its user
    types there. `is_wanted` is False where the user wants no line.
    """

    def __init__(self, stream: TextIO, *, is_wanted: bool = True) -> None:
        super().__init__(stream)
        self._is_wanted = is_wanted and stream.isatty()
        self._shown = ""  # guarded by the handler's own lock
        self._has_ended = threading.Event()
        self._rate = Rate()

    @classmethod
    def set_up_log(cls, *, is_wanted: bool, is_verbose: bool, is_private: bool = False) -> StatusLine:
        """Log to standard error, above such a line.

        What a private pool would warn of, its program learns from its calls.
        """
        line = cls(sys.stderr, is_wanted=is_wanted)
        level = logging.DEBUG if is_verbose else logging.ERROR if is_private else logging.WARNING
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", handlers=[line])
        return line

    def start(self, state: State) -> None:
        """Show the line from now on. `state` gives busy, waiting, finished and failed, as in `status()`."""
        if self._is_wanted:
            threading.Thread(target=self._keep, args=(state,), name="status line", daemon=True).start()

    def end(self) -> None:
        """Take the line away."""
        self._has_ended.set()
        self._show("")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, in place of the line, and the line below. Called with the handler's lock held."""
        line = self._shown
        if line:
            self._write("")
        super().emit(record)
        if line:
            self._write(line)

    def _keep(self, state: State) -> None:
        while not self._has_ended.is_set():
            self._show(words(state(), self._rate))
            self._has_ended.wait(EVERY_S)

    def _show(self, line: str) -> None:
        with self.lock or threading.RLock():
            if self._has_ended.is_set():
                line = ""
            if line != self._shown and _is_in_foreground(self.stream):
                self._write(line)

    def _write(self, line: str) -> None:
        self._shown = line
        columns = shutil.get_terminal_size().columns
        try:
            self.stream.write(CLEARED + line[: columns - 1])
            self.stream.flush()
        except OSError:  # The terminal has gone. The pool works on.
            self._shown = ""
            self._has_ended.set()


def words(state: Mapping[str, Any], rate: Rate) -> str:
    """The line.

    >>> words({"busy": [1, 1, 0], "waiting": 2, "finished": 1204, "failed": 0}, Rate())
    'busy 2/3, waiting 2, 0.0 tasks/s, finished 1,204'
    """
    busy, failed = state["busy"], state["failed"]
    speed = rate.per_second(time.monotonic(), state["finished"] + failed)
    return (
        f"busy {sum(busy)}/{len(busy)}, waiting {state['waiting']:,}, {speed:,.1f} tasks/s, "
        f"finished {state['finished']:,}" + (f", failed {failed:,}" if failed else "")
    )


def _is_in_foreground(stream: TextIO) -> bool:
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # It is not the terminal of this session.
        return False
