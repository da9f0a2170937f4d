"""Runs functions one at a time, in the main thread, and leaves the process clean after each.

It owns the main thread. Work is a callable; what it does, and for whom, is unknown here.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, TextIO, TypeVar

from distribute_challenge.calls.payload import BUSY
from distribute_challenge.wire.serving import Served
from distribute_challenge.worker.surroundings import Surroundings, Timers

T = TypeVar("T")


class _Handover:
    """Work of a connection's thread that the main thread does, while the other waits; and its end."""

    __slots__ = ("_ended", "_error")

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._ended.release()

    def wait(self) -> None:
        self._ended.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # Else the traceback, which holds this frame, would hold the error.


class _Job(_Handover):
    """A callable, and its value."""

    __slots__ = ("_work", "value")

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self.value: Any = None

    def run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:
            self.end(error)
        else:
            self.end()


class _Guest(_Handover):
    """A connection that the main thread serves for a while.

    It waits for no peer: neither what has arrived in part, nor what is not taken, may hold up the functions
    of others. `events` are those of the descriptor after which `serve` can do something.
    """

    __slots__ = ("_channel", "descriptor", "events", "served")

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.served = served
        self.events = select.POLLIN
        self._channel = served.channel
        self._channel.stream.never_wait()
        self.descriptor: int = served.channel.fileno()

    def has_message_soon(self) -> bool:
        """Whether a message is there, or comes in the next moment: the answer to what we have just sent."""
        try:
            return self.events == select.POLLIN and self._channel.spin() and self._channel.has_frame()
        except EOFError:  # Serving it will tell.
            return True

    def serve(self) -> bool:
        """Take in a message, if one has arrived whole; whether the connection goes on."""
        stream = self._channel.stream
        try:
            # Of what was answered before, nothing may be lost with the next function.
            if is_sent := stream.flush() and stream.is_sent():
                if self._channel.has_frame():
                    self.served.serve()
                is_sent = stream.flush()
            self.events = select.POLLIN if is_sent else select.POLLOUT
        except Exception as error:
            self.end(error)
            return False
        if self.served.closed:
            self.end()
        return not self.served.closed


class Execution:
    """The one place in a worker where functions run."""

    def __init__(self, make_stream: Callable[[int], TextIO]) -> None:
        self._make_stream = make_stream
        self._timers = Timers()
        self._process = os.getpid()
        self._main = threading.get_ident()
        self._turn = threading.Lock()  # held while a function runs
        self._last_caller = 0  # the thread whose function ran last
        self._has_run = False  # since the surroundings were put back
        self._tidy: Callable[[], object] | None = None
        self._tasks: deque[_Job | _Guest] = deque()
        self._bell = os.pipe()
        os.set_blocking(self._bell[1], False)

    def run(self, work: Callable[[], T], tidy: Callable[[], object] | None = None) -> T:
        """Run `work` in the main thread; its value, or what it raised (anything, `SystemExit` included).

        `tidy` is called when that is on its way. Raises RuntimeError at once if a function is running.
        """
        if not self._turn.acquire(blocking=False):
            raise RuntimeError(BUSY)
        try:
            if threading.get_ident() == self._main:
                return self._run_here(work, tidy)
            self._last_caller = threading.get_ident()
            job = _Job(lambda: self._run_here(work, tidy))
            self._post(job)
            job.wait()
            return job.value  # type: ignore[no-any-return]
        finally:
            self._turn.release()

    def serve(self, served: Served) -> None:
        """Serve a connection, in its own thread or in the main one, until it ends."""
        if self._last_caller == threading.get_ident():  # Of a thread that had the same number before.
            self._last_caller = 0
        while not served.closed:
            served.channel.stream.is_sent(None)
            served.serve()
            if self._last_caller == threading.get_ident():
                self._last_caller = 0
                guest = _Guest(served)
                self._post(guest)
                guest.wait()
                served.channel.stream.wait_again()

    def serve_forever(self) -> NoReturn:
        """The main thread's work: run what comes, one after another."""
        surroundings = Surroundings(self._make_stream)
        guest: _Guest | None = None
        events = 0  # of it, for which the poller waits
        poller = select.poll()
        poller.register(self._bell[0], select.POLLIN)
        while True:
            if self._has_run:  # While the outcome travels; the next function begins only after this.
                self._has_run = False
                surroundings.restore()
                tidy, self._tidy = self._tidy, None
                if tidy is not None:
                    tidy()
            if self._tasks:
                task = self._tasks.popleft()
                if guest is not None:  # Its own thread tells it that we are busy, meanwhile.
                    poller.unregister(guest.descriptor)
                    guest.end()
                    guest = None
                if isinstance(task, _Job):
                    task.run()
                else:
                    guest = task
                    events = guest.events
                    poller.register(guest.descriptor, events)
                del task  # While the worker is idle, nothing may hold on to the last call and its result.
            elif (guest is not None and guest.has_message_soon()) or self._await(poller):
                assert guest is not None
                if not guest.serve():
                    poller.unregister(guest.descriptor)
                    guest = None
                elif guest.events != events:
                    events = guest.events
                    poller.modify(guest.descriptor, events)

    def _await(self, poller: select.poll) -> bool:
        """Wait until there is something to do; whether that is a message of the guest's."""
        if self._bell[0] not in dict(poller.poll()):
            return True
        os.read(self._bell[0], 4096)
        return False

    def _run_here(self, work: Callable[[], T], tidy: Callable[[], object] | None) -> T:
        self._has_run, self._tidy = True, tidy
        try:
            return contextvars.Context().run(work)  # What it sets (decimal's precision) ends with it.
        finally:
            self._timers.stop()  # An alarm that was set would ring in what follows.
            if os.getpid() != self._process:
                os._exit(0)  # The function forked and returned twice. This is the child: it has no caller.

    def _post(self, task: _Job | _Guest) -> None:
        self._tasks.append(task)
        with contextlib.suppress(BlockingIOError):  # It is full of such marks already.
            os.write(self._bell[1], b"!")
