"""One executor's way to its pool: connections, and a driver, each made when it is first needed.

It knows no functions, only how they travel; whoever calls it has chosen the options of each call.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from distribute_challenge.address import Address
from distribute_challenge.calls.payload import INITIALIZER, NO_PROGRAM
from distribute_challenge.client import local
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.owned import Owned
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Destination, Parcel, Written
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.client.parcels.shipping import Shipment, scatter
from distribute_challenge.client.patched import check_nothing_is_patched
from distribute_challenge.client.peers.connections import Connections, Facts
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.running import lone, nesting
from distribute_challenge.client.running.driver import AT_EXIT, Driver
from distribute_challenge.client.running.mapping import Mapping
from distribute_challenge.client.running.tasks import Task, TaskFuture
from distribute_challenge.errors import PoolError
from distribute_challenge.wire.access import Trust

_SHUT = "cannot schedule new futures after shutdown"


class Backend:
    """Runs calls on the pool at `address`, on at most `limit` workers at once.

    `initializer`, with its arguments, runs first in each worker process, with `options`. A private pool
    writes a `profile`, if there is one. Raises ValueError if that is no address, PoolError if the
    environment has some of the variables for TLS, and not all, or another library has patched sockets.
    """

    def __init__(
        self,
        address: str,
        limit: int | None,
        initializer: tuple[Shipment, tuple[Any, ...]] | None,
        options: Options,
        profile: str | os.PathLike[str] | None = None,
    ) -> None:
        check_nothing_is_patched()
        workers = local.worker_count(address)
        if profile is not None and workers is None:
            raise ValueError(
                f"profile= is for a private pool, local://N: the server at {address} has its own"
            )
        self._private = None if workers is None else local.PrivateServer(workers, profile)
        self._owned = Owned()
        if self._private is not None:
            self._owned.add(self._private.close)
        self._public = Address.parse(address) if workers is None else None
        self.address = str(self._public or address)
        self._trust = Trust()
        if workers is None:
            self._trust = Trust.choose(options.tls)
        self._limit = limit
        self._initializer = initializer
        self._options = options
        self._program = NO_PROGRAM if initializer is None else os.urandom(len(NO_PROGRAM))
        self._lock = threading.Lock()  # guards all that follows
        self._known_connections: Connections | None = None
        self._driver: Driver | None = None
        self._is_shut = False
        self._mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
        _backends.add(self)
        weakref.finalize(self, self._owned.end_soon).atexit = False  # `_close_all` is for that.

    # From calls to results

    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, in this thread, and return its value."""
        connections = self._connections
        parcel = shipment.parcel(args, kwargs, self._destination(options), options.flags)
        run = nesting.run if connections.are_inside else lone.run
        outcome = run(connections, shipment.name, parcel, options)
        assert outcome is not None  # Who waits in line gets a worker, and who does not runs it in place.
        return outcome.load()

    def submit_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> TaskFuture[Any]:
        """Have a call run; its future. Raises RuntimeError after `close`, or why no task can be run."""
        self._check_open()
        try:
            parcel = shipment.parcel(args, kwargs, self._destination(options), options.flags)
        except PoolError as error:
            failed: TaskFuture[Any] = TaskFuture()
            failed.set_exception(error)
            return failed
        task = Task(shipment.name, parcel, shipment.pace, options)
        self.add(task)
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

    # For maps

    def facts(self, options: Options) -> Facts:
        """The pool, with as many workers as may be used. Raises ServerUnavailable."""
        facts = self._connections.facts(options.wait_s)
        if self._limit is None or self._limit >= facts.workers:
            return facts
        return facts._replace(workers=self._limit)

    @property
    def distance(self) -> Distance:
        """How far away the pool is."""
        return self._connections.distance

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], options: Options
    ) -> Parcel:
        """Calls of the function, given a list of values for each parameter. Raises TaskNotSendable."""
        return shipment.chunk(function, columns, self._destination(options), options.flags)

    def add(self, task: Task, *, goes_on: bool = False) -> None:
        """Have a task run. Raises RuntimeError after `close`, unless it `goes_on` with what began before."""
        if self._is_shut and not goes_on:  # All else was looked at before the call was made.
            raise RuntimeError(_SHUT)
        connections = self._connections
        facts = self.facts(task.options)
        prepare = None
        if self._initializer is not None:  # It must not hold on to this object, which the driver survives.
            prepare = partial(_preparation, *self._initializer, connections, self._program, self._options)
        if connections.are_inside:
            nesting.run_task(connections, task, prepare)
            return
        with self._lock:
            if self._driver is None:
                self._driver = Driver(connections, prepare)
                self._owned.add(self._driver.join)
            self._driver.add(task, facts.workers, facts.max_tasks)

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
        self._known_connections = self._driver = None
        self._owned.forget()
        if self._private is not None:
            self._owned.add(self._private.close)
        self._mappings = weakref.WeakSet()

    # What is made when it is first needed

    @property
    def _connections(self) -> Connections:
        """The connections to the pool, whose server is started now if it is a private one."""
        known = self._known_connections
        if known is not None:
            return known
        with self._lock:
            if self._known_connections is None:
                address = self._public if self._private is None else self._private.address()
                assert address is not None
                self._known_connections = Connections(address, self._trust, self._program)
                self._owned.add(self._known_connections.close)
            return self._known_connections

    def _destination(self, options: Options) -> Destination:
        return _destination(self._known_connections or self._connections, self._program, options)

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(_SHUT)
        if self._driver is not None and self._driver.broken is not None:
            raise self._driver.broken.with_traceback(None)
        main = threading.main_thread()  # It must not ask for itself: Ctrl-C in there would end it, to others.
        if threading.get_ident() != main.ident and not main.is_alive():
            raise RuntimeError(AT_EXIT)


def _destination(connections: Connections, program: bytes, options: Options) -> Destination:
    return Destination(program, connections.facts(options.wait_s).python, connections.may_share)


def _preparation(
    shipment: Shipment, args: tuple[Any, ...], connections: Connections, program: bytes, options: Options
) -> Task:
    """The task that runs the initializer on a worker."""
    to = _destination(connections, program, options)
    parcel = shipment.parcel(args, {}, to, INITIALIZER | options.flags)
    return Task(shipment.name, parcel, Pace())


_backends: weakref.WeakSet[Backend] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for backend in list(_backends):
        backend.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


@atexit.register
def _close_all() -> None:
    """The program ends, and all that was submitted has."""
    for backend in list(_backends):
        backend.close(wait=True, cancel=False)
