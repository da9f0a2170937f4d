"""Tasks: what waits for a worker."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from distribute_challenge import errors
from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import CHUNK, Outcome
from distribute_challenge.client.options import RESTART_S, Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Parcel
from distribute_challenge.client.peers.failures import Broken, Killed, lost
from distribute_challenge.client.peers.printing import Printer, show
from distribute_challenge.client.tasks.callbacks import call_soon, output
from distribute_challenge.errors import ServerUnavailable

if TYPE_CHECKING:  # They run these.
    from distribute_challenge.client.tasks.engine import TaskDriver

log = logging.getLogger(__name__)

SHOWN_S = 0.1  # So long a result waits for each piece of what its function has printed to be shown,
MOST_SHOWN_S = 2.0  # and so long for all.
UNKNOWN_S = 1e6  # It is not infinite, so that it can be taken off a sum again.
_PLAIN = Options()
T = TypeVar("T")


_Lock: Any = type(threading.RLock())


class _Condition(_Lock):  # type: ignore[misc]
    """A `threading.Condition` of one object instead of nine, all of which garbage collection looks at.

    While many futures wait, a client sends 6 % more short tasks in the same time. It is a lock, entered and
    left in one step each: Ctrl-C inside the standard one's `__enter__` would leave it locked for ever.
    """

    __slots__ = ("_waited_for",)

    def __init__(self) -> None:
        self._waited_for: threading.Condition | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for `notify_all`, with the lock held; False if it did not come in `timeout` seconds."""
        if self._waited_for is None:
            self._waited_for = threading.Condition(self)
        return self._waited_for.wait(timeout)

    def notify_all(self) -> None:
        """Wake all who wait, with the lock held."""
        if self._waited_for is not None:
            self._waited_for.notify_all()


class Latch:
    """Is set once, and can be waited for. Unlike an `Event`, Ctrl-C in the middle of it does no harm."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Whether it is set."""
        return not self._lock.locked()

    def set(self) -> None:
        """Set it. Harmless to repeat."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def wait(self) -> None:
        """Wait until it is set."""
        with contextlib.suppress(RuntimeError), self._lock:  # Another thread may set it just now.
            pass


class TaskFuture(Future[T]):
    """A future of `concurrent.futures` whose function can be stopped also while it runs."""

    def __init__(self) -> None:
        # Not by the base class, which would build a full condition first.
        self._condition: Any = _Condition()
        self._state, self._result, self._exception = "PENDING", None, None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.task: Task | None = None  # until it has ended
        self.was_killed = False

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have `fn(future)` called when the function has ended, as in the standard library.

        It may take any time, and wait for other tasks: no thread that runs tasks waits for it.
        """
        super().add_done_callback(functools.partial(call_soon, fn))

    def cancelled(self) -> bool:
        """Whether it was cancelled before it ran, or killed while it ran."""
        return self.was_killed or super().cancelled()

    def kill(self) -> bool:
        """Stop the function: its worker is killed and replaced, and the result is a CancelledError.

        One that waits is cancelled. False if it has ended, or cannot be stopped: a task of a task.

        >>> func(3).submit().kill()                           # doctest: +SKIP
        True
        """
        if self.cancel():
            return True
        task = self.task
        if self.done() or task is None or task.driver is None:
            return False
        task.driver.kill(task)
        return True


class Task:
    """One call, or one chunk of them, on its way to a result.

    The result of a chunk's future is a `ChunkResults`.
    """

    __slots__ = (
        *("count", "driver", "future", "has_begun", "is_unwanted", "name"),
        *("options", "pace", "parcel", "retries", "sent_at", "__weakref__"),
    )

    def __init__(
        self, name: str, parcel: Parcel, pace: Pace, options: Options = _PLAIN, count: int = 1
    ) -> None:
        self.name = name
        self.parcel = parcel
        self.pace = pace
        self.count = count  # how many functions it runs
        self.options = options
        self.retries = options.retries  # that are left
        self.future: TaskFuture[Any] = TaskFuture()
        self.driver: TaskDriver | None = None
        self.is_unwanted = False  # Its caller has had it killed.
        self.has_begun = False
        self.sent_at = 0.0

    def begin(self, now: float) -> bool:
        """Mark it as running; False if it was cancelled."""
        if not self.has_begun:
            self.has_begun = self.future.set_running_or_notify_cancel()
            if not self.has_begun:
                self.future.task = None
        self.sent_at = now
        return self.has_begun

    @property
    def expected_s(self) -> float:
        """How long it will take; UNKNOWN_S if that is not known."""
        seconds = self.pace.seconds
        return UNKNOWN_S if seconds is None else seconds * self.count

    def printer(self) -> Printer:
        """Where what it prints goes: to this program's streams, and what it logs to its loggers."""
        return AsidePrinter()

    def drop(self) -> None:
        """Have it not run: it is cancelled, or ends so if it has run before, on a worker that was lost."""
        self.future.cancel()
        if self.begin(0):
            self.fail(CancelledError())

    def complete(self, outcome: Outcome) -> None:
        """Give the future its result."""
        give: Callable[[Any], None] = self.future.set_result
        try:
            what: Any = outcome.load_each() if self.parcel.flags & CHUNK else outcome.load()
        except BaseException as error:  # Its own, which may be of any type.
            give, what = self.future.set_exception, error
        self.future.task = None
        _tell(give, what)

    def fail(self, error: BaseException) -> None:
        """Give the future an exception."""
        self.future.task = None  # Nothing of the task shall live as long as its future.
        if self.has_begun or self.future.set_running_or_notify_cancel():
            self.has_begun = True
            self.future.was_killed = isinstance(error, CancelledError)
            _tell(self.future.set_exception, error)

    def is_run_again(self, error: Exception) -> bool:
        """End it with an error; or whether it is run again, since that is a loss, and it has retries left."""
        if self.retries and not self.is_unwanted and isinstance(error, ServerUnavailable | errors.WorkerLost):
            log.info("%s is run again: %s", self.name, error)
            self.retries -= 1
            return True
        self.fail(error)
        return False

    @property
    def patience_s(self) -> float:
        """How long it waits for a server that has gone."""
        return max(self.options.wait_s, RESTART_S * bool(self.options.retries))


def _tell(give: Callable[[Any], None], what: Any) -> None:
    """Give a future its end. A callback of its user's may raise anything, as by `sys.exit()`."""
    try:
        give(what)
    except BaseException:
        log.exception("a callback of a future raised")


def end_lost(stopped: list[Task], begun: list[Task], broken: Broken, ending: Ending) -> list[Task]:
    """End tasks that broke their worker, and others that it had begun. Those to be run again."""
    again = []
    for task in (*stopped, *begun):
        name = task.name
        if task.count > 1:
            name = f"{task.count} calls of {name} together (chunksize=1, or a time limit, keeps them apart)"
        if task.is_unwanted:
            error = Killed().error(name, ending)
        else:
            error = broken.error(name, ending) if task in stopped else lost(name, ending)
        if task.is_run_again(error):
            again.append(task)
    return again


class AsidePrinter(Printer):
    """Shows output in a thread for that: no terminal, and no handler of log records, stops a driver."""

    def __init__(self) -> None:
        self._output = output()
        self._has_shown = False
        super().__init__(None if self._output is None else self._show_aside)

    def _show_aside(self, number: int, data: bytes) -> None:
        assert self._output is not None
        self._has_shown = True
        self._output.call(functools.partial(show, number), data)

    def finish(self) -> None:
        """The result comes after all that, unless that takes long."""
        super().finish()
        if self._output is not None and self._has_shown:
            self._output.settle(SHOWN_S, MOST_SHOWN_S)
