"""Runs functions one at a time, in the main thread, and leaves the process clean after each.

It owns the main thread and the process's surroundings (directory, environment, `sys.path`, standard
streams). Work is a callable; what it does, and for whom, is unknown here.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TextIO, TypeVar

from distribute_challenge.wire.payload import BUSY

T = TypeVar("T")


class _Task(Generic[T]):
    """A callable on its way through the main thread, and then what became of it."""

    __slots__ = ("_ended", "_error", "_value", "_work", "tidy")

    def __init__(self, work: Callable[[], T], tidy: Callable[[], object] | None) -> None:
        self._work = work
        self.tidy = tidy
        self._value: Any = None
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def report(self) -> None:
        self._ended.release()

    def wait(self) -> T:
        self._ended.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # Else the traceback, which holds this frame, would hold the error.
        return self._value  # type: ignore[no-any-return]


class Execution:
    """The one place in a worker where functions run."""

    def __init__(self, make_stream: Callable[[int], TextIO]) -> None:
        self._make_stream = make_stream
        self._turn = threading.Lock()  # held while a function runs
        self._tasks: queue.SimpleQueue[_Task[Any]] = queue.SimpleQueue()

    def run(self, work: Callable[[], T], tidy: Callable[[], object] | None = None) -> T:
        """Run `work` in the main thread; its value, or what it raised (anything, `SystemExit` included).

        `tidy` is called when that is on its way.

        Called from a connection's thread. Raises RuntimeError at once if a function is running.
        """
        if not self._turn.acquire(blocking=False):
            raise RuntimeError(BUSY)
        try:
            task = _Task(work, tidy)
            self._tasks.put(task)
            return task.wait()
        finally:
            self._turn.release()

    def serve_forever(self) -> NoReturn:
        """The main thread's work: run what comes, one after another."""
        surroundings = Surroundings(self._make_stream)
        worker = os.getpid()
        while True:
            task = self._tasks.get()
            task.run()
            if os.getpid() != worker:
                os._exit(0)  # The function forked and returned twice. This is the child: it has no caller.
            task.report()
            surroundings.restore()  # While the outcome travels; the next function begins only after this.
            tidy = task.tidy
            del task  # While the worker is idle, nothing may hold on to the last call and its result.
            if tidy is not None:
                tidy()


class Surroundings:
    """What a function may change and the next one must find as it was."""

    def __init__(self, make_stream: Callable[[int], TextIO]) -> None:
        self._make_stream = make_stream
        # A descriptor finds the directory again even if it is renamed or removed.
        self._directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        self._environ = os.environ
        self._environment = dict(os.environ)
        self._path = sys.path
        self._path_entries = list(sys.path)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        # Copies of descriptors 0 to 2, for a function that closes or redirects those.
        self._descriptors = [os.dup(number) for number in range(3)]

    def restore(self) -> None:
        """Put everything back."""
        for stream in self._streams[1:]:
            # Closed, or its descriptor is: what the function printed last is lost, and nothing else.
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        for number, copy in enumerate(self._descriptors):
            os.dup2(copy, number)
        sys.stdin, sys.stdout, sys.stderr = self._streams = self._usable_streams()
        os.fchdir(self._directory)
        signal.setitimer(signal.ITIMER_REAL, 0)  # An alarm that was set would ring in the next function.
        os.environ = self._environ  # noqa: B003  A function may have put another object there.
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.path = self._path
        sys.path[:] = self._path_entries

    def _usable_streams(self) -> Any:
        stdin, stdout, stderr = self._streams
        return (
            stdin if _is_usable(stdin) else open(0, closefd=False),
            stdout if _is_usable(stdout) else self._make_stream(1),
            stderr if _is_usable(stderr) else self._make_stream(2),
        )


def _is_usable(stream: Any) -> bool:
    try:
        return not stream.closed
    except ValueError:  # It was detached from its descriptor.
        return False
