"""Ctrl-C at a chosen moment: the k-th at which Python lets a signal's handler raise in this thread.

Python looks for signals when a function begins, and after each call of one, unless that raised: an exception
at the begin of an `except` would stay in its thread for ever. Each of these is a moment, in the package's
code and in what it calls of the standard library's threads, futures and queues.
"""

from __future__ import annotations

import dis
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import distribute_challenge

_FILES = (
    str(Path(distribute_challenge.__file__).parent),
    threading.__file__,
    str(Path(sys.modules["concurrent.futures"].__file__ or "").parent),
)


class Moments:
    """Counts the moments of a call, and raises KeyboardInterrupt at the one numbered `at`, from 1."""

    def __init__(self, at: int | None = None) -> None:
        self.count = 0
        self.where = ""
        self._at = at
        self._last: dict[FrameType, str] = {}

    def of(self, action: Callable[[], Any]) -> Any:
        """Do it; what it returns. Raises KeyboardInterrupt if it has so many moments."""
        gc.disable()  # What an earlier test has left has no moments here.
        sys.settrace(self._enter)
        try:
            return action()
        finally:
            sys.settrace(None)
            gc.enable()
            self._last.clear()

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        if event != "call" or not frame.f_code.co_filename.startswith(_FILES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._pass(frame)
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if self._last.get(frame, "").startswith("CALL"):
                self._pass(frame)
            self._last[frame] = name
        elif event in ("return", "exception"):
            self._last.pop(frame, None)
        return self._step

    def _pass(self, frame: FrameType) -> None:
        self.count += 1
        if self.count == self._at:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            raise KeyboardInterrupt
