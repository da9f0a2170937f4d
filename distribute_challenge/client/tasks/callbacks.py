"""The callbacks of futures: a thread of their own calls them, one after another.

It is started by the first one, and ends when there has been none for a moment. Another one shows what
functions print: a terminal may be stopped, and the handlers of log records are the program's.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

log = logging.getLogger(__name__)

LINGER_S = 0.05  # How long a thread waits for another callback, or task, before it ends.

_Callback = tuple[Callable[[Any], object], Any]


class Callbacks:
    """Calls functions with their futures, in a thread of their own."""

    def __init__(self, name: str = "callbacks") -> None:
        self._name = name
        self._is_settled = True  # Nothing has been given to it since `settle` looked.
        self._late: threading.Event | None = None  # that has been waited for in vain
        self._lock = threading.Lock()  # guards the thread's coming and going
        self._thread: threading.Thread | None = None
        self._waiting: queue.SimpleQueue[_Callback] = queue.SimpleQueue()

    def call(self, function: Callable[[Any], object], future: Any) -> None:
        """Have `function(future)` called."""
        self._put(function, future)
        self._is_settled = False

    def _put(self, function: Callable[[Any], object], future: Any) -> None:
        with self._lock:
            self._waiting.put((function, future))
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=False)
            try:
                thread.start()
                self._thread = thread
                return
            except RuntimeError as error:  # A program that is ending starts no threads, in some versions.
                log.debug("callbacks are called in the driver's thread: %s", error)
        self._call_all(0)

    def settle(self, step_s: float, most_s: float) -> None:
        """Wait until all so far have been called, as long as one ends in each step; at most so long.

        Who has waited in vain waits not again before they have been.
        """
        if self._is_settled or (self._late is not None and not self._late.is_set()):
            return
        self._is_settled = True
        called = threading.Event()
        self._put(lambda _: called.set(), None)
        deadline, left = time.monotonic() + most_s, self._waiting.qsize() + 1
        while not called.wait(step_s):
            if self._waiting.qsize() >= left or time.monotonic() > deadline:
                self._late = called
                return
            left = self._waiting.qsize()

    def join(self) -> None:
        """Wait until all have been called. Not in one of them."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            self._call_all(LINGER_S)
            with self._lock:
                if self._waiting.empty():
                    self._thread = None
                    return

    def _call_all(self, wait_s: float) -> None:
        while True:
            try:
                function, future = self._waiting.get(timeout=wait_s) if wait_s else self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                function(future)
            except BaseException:  # As by `sys.exit()`: it is the user's, and ends nothing here.
                log.exception("a callback of a future raised")
            del function, future


here = threading.local()  # `callbacks` and `output`: in a driver's thread, those of its executor


def output() -> Callbacks | None:
    """In a driver's thread, where output is shown; None in others, which show theirs themselves."""
    return getattr(here, "output", None)


def call_soon(function: Callable[[Any], object], future: Any) -> None:
    """Call `function(future)`: in the thread for that if this is a driver's, else here and now."""
    callbacks: Callbacks | None = getattr(here, "callbacks", None)
    if callbacks is None:
        function(future)
    else:
        callbacks.call(function, future)


def nothing() -> None:
    """Wakes a thread to which it is posted: that looks what there is to do."""


class Threaded:
    """Runs tasks in a thread, which comes and goes; beside it are one for callbacks and one for output."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock  # guards the thread's coming and going
        self._thread: threading.Thread | None = None
        self._callbacks, self._output = Callbacks(), Callbacks("output")

    def join(self) -> None:
        """Wait until all tasks have ended, and their callbacks have returned."""
        while True:
            with self._lock:
                thread = self._thread
            if thread is None:
                self._output.join()
                self._callbacks.join()
                return
            if thread is threading.current_thread():
                return
            thread.join()
