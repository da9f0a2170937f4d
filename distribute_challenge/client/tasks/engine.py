"""What runs the calls of an executor, whatever is behind it: a pool, or a Dask cluster.

Here is what all engines share. What they differ in is how a task gets to where it runs, and that is theirs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from distribute_challenge.calls.payload import NO_PROGRAM
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.owned import Owned
from distribute_challenge.client.parcels.parcel import Destination, Parcel, Written, flags_of
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.client.parcels.shipping import Shipment, scatter, shipment_of
from distribute_challenge.client.peers.connections import Facts
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.tasks.chunks import CHUNK_S
from distribute_challenge.client.tasks.mapping import Mapping
from distribute_challenge.client.tasks.task import Task, TaskFuture
from distribute_challenge.errors import PoolError

Initializer = tuple[Shipment, tuple[Any, ...]]  # and its arguments
AT_EXIT = "cannot schedule new futures after interpreter shutdown"
_SHUT = "cannot schedule new futures after shutdown"


class TaskDriver(Protocol):
    """The thread of an engine that runs its tasks; safe to use from any thread."""

    @property
    def broken(self) -> Exception | None:
        """Why no task can be run any more; None if they can."""

    def kill(self, task: Task) -> None:
        """Stop a task that runs."""

    def kill_all(self) -> None:
        """Stop all tasks: those that wait never run."""

    def close(self, *, cancel: bool) -> None:
        """End once all tasks have; with `cancel`, those that wait never run."""

    def join(self) -> None:
        """Wait until all tasks have ended, and their callbacks have returned."""


class Engine(ABC):
    """Runs calls at `address`, on at most `limit` workers at once.

    `initializer`, with its arguments, runs first in each worker process, with `options`.
    """

    chunk_s = CHUNK_S  # how much work a chunk of a map is
    shipment_of = staticmethod(shipment_of)

    def __init__(
        self, address: str, limit: int | None, initializer: Initializer | None, options: Options
    ) -> None:
        self.address = address
        self._limit = limit
        self._initializer = initializer
        self._options = options
        self._program = NO_PROGRAM if initializer is None else os.urandom(len(NO_PROGRAM))
        self._owned = Owned()
        self._lock = threading.Lock()  # guards all that follows
        self._driver: TaskDriver | None = None
        self._is_shut = False
        self._mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
        _engines.add(self)
        weakref.finalize(self, self._owned.end_soon).atexit = False  # `_close_all` is for that.

    # What each engine does in its own way

    @abstractmethod
    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, and return its value when it has ended."""

    @abstractmethod
    def add(self, task: Task, *, goes_on: bool = False) -> None:
        """Have a task run. Raises RuntimeError after `close`, unless it `goes_on` with what began before."""

    @abstractmethod
    def facts(self, options: Options) -> Facts:
        """What has to be known of the workers, with as many as may be used. Raises ServerUnavailable."""

    @property
    def has_answered(self) -> bool:
        """Whether the pool is known to let this program in, as far as an engine keeps that in mind."""
        return False

    @property
    @abstractmethod
    def distance(self) -> Distance:
        """How far away the workers are."""

    @abstractmethod
    def _destination(self, options: Options) -> Destination:
        """Where calls go. Raises ServerUnavailable."""

    # From calls to tasks

    def submit_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> TaskFuture[Any]:
        """Have a call run; its future. Raises RuntimeError after `close`, or why no task can be run."""
        self._check_open()
        try:
            parcel = self._parcel(shipment, args, kwargs, options)
            task = Task(shipment.name, parcel, shipment.pace, options)
            self.add(task)
        except PoolError as error:
            failed: TaskFuture[Any] = TaskFuture()
            failed.set_exception(error)
            return failed
        return task.future

    def map_calls(
        self, shipment: Shipment, iterables: tuple[Iterable[Any], ...], options: Options, how: MapOptions
    ) -> Iterator[Any]:
        """The results of the function for each set of items."""
        self._check_open()
        mapping = Mapping(self, shipment, iterables, options, how)
        self._mappings.add(mapping)
        return iter(mapping)

    def scatter(self, value: Any) -> Scattered:
        """A value that is sent to each worker once. Raises TaskNotSendable."""
        self._check_open()
        return scatter(value, self._destination(self._options))

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], options: Options
    ) -> Parcel:
        """Calls of the function, given a list of values for each parameter. Raises TaskNotSendable."""
        return shipment.chunk(function, columns, self._destination(options), flags_of(options))

    def _parcel(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Parcel:
        return shipment.parcel(args, kwargs, self._destination(options), flags_of(options))

    def _check_not_shut(self, *, goes_on: bool = False) -> None:
        if self._is_shut and not goes_on:
            raise RuntimeError(_SHUT)

    def _check_open(self) -> None:
        self._check_not_shut()
        if self._driver is not None and self._driver.broken is not None:
            raise self._driver.broken.with_traceback(None)
        main = threading.main_thread()  # It must not ask for itself: Ctrl-C in there would end it, to others.
        if threading.get_ident() != main.ident and not main.is_alive():
            raise RuntimeError(AT_EXIT)

    # Ending

    def kill_all(self) -> None:
        """Stop all tasks, also those that run."""
        if self._driver is not None:
            self._driver.kill_all()

    def close(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; with `wait`, return when all have ended. With `cancel`, none begins now."""
        with self._lock:
            self._is_shut = True
            driver = self._driver
        for mapping in list(self._mappings) if cancel else ():
            mapping.cancel()
        if driver is not None:
            driver.close(cancel=cancel)
        if wait or driver is None:
            self._end()
        else:  # What is under way goes on, and then all is closed.
            threading.Thread(target=self._end, name="closing", daemon=True).start()

    def _end(self) -> None:
        for mapping in list(self._mappings):
            mapping.wait_until_started()
        self._owned.end()

    def leave_to_parent(self) -> None:
        """In a forked child: connections and threads belong to the process that made them."""
        self._lock = threading.Lock()  # A thread that is not here may have held the other one.
        self._driver = None
        self._owned.forget()
        self._mappings = weakref.WeakSet()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for engine in list(_engines):
        engine.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _close_all() -> None:
    """The program ends, and all that was submitted has."""
    with contextlib.ExitStack() as stack:  # What one raises keeps no other from ending.
        for engine in list(_engines):
            stack.callback(engine.close, wait=True, cancel=False)
