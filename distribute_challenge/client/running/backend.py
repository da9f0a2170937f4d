"""One executor's way to its pool: connections, and a driver, each made when it is first needed.

It knows no functions, only how they travel; whoever calls it has chosen the options of each call.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from distribute_challenge.address import ANY_USER_VARIABLE, Address
from distribute_challenge.calls.payload import INITIALIZER, NO_PROGRAM, PRINTS
from distribute_challenge.client import local
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Destination, Parcel, Written
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Connections, Facts
from distribute_challenge.client.running import lone, nesting
from distribute_challenge.client.running.driver import Driver
from distribute_challenge.client.running.mapping import Mapping
from distribute_challenge.client.running.tasks import Task, TaskFuture
from distribute_challenge.errors import PoolError
from distribute_challenge.tls import Tls
from distribute_challenge.wire.access import Trust

_SHUT = "cannot schedule new futures after shutdown"


class Backend:
    """Runs calls on the pool at `address`, on at most `limit` workers at once.

    `initializer`, with its arguments, runs first in each worker process, with `options`. A private pool
    writes a `profile`, if there is one. Raises ValueError if that is no address, PoolError if the
    environment has some of the variables for TLS, and not all.
    """

    def __init__(
        self,
        address: str,
        limit: int | None,
        initializer: tuple[Shipment, tuple[Any, ...]] | None,
        options: Options,
        profile: str | os.PathLike[str] | None = None,
    ) -> None:
        workers = local.worker_count(address)
        if profile is not None and workers is None:
            raise ValueError(
                f"profile= is for a private pool, local://N: the server at {address} has its own"
            )
        self._private = None if workers is None else local.PrivateServer(workers, profile)
        self._public = Address.parse(address) if workers is None else None
        self.address = str(self._public or address)
        self._trust = Trust()
        if workers is None:
            allows_any = os.environ.get(ANY_USER_VARIABLE, "") not in ("", "0")
            self._trust = Trust(Tls.choose(options.tls), allows_any)
        self._limit = limit
        self._initializer = initializer
        self._options = options
        self._program = NO_PROGRAM if initializer is None else os.urandom(len(NO_PROGRAM))
        self._lock = threading.Lock()  # guards all that follows
        self._known_connections: Connections | None = None
        self._drivers: list[Driver] = []  # at most one, where who survives this object finds it
        self._is_shut = False
        self._mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
        _backends.add(self)
        if self._private is not None:  # If it is dropped without a shutdown, its server goes as well.
            weakref.finalize(self, _let_go, self._private, self._drivers)

    # From calls to results

    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, in this thread, and return its value."""
        connections = self._connections
        parcel = shipment.parcel(args, kwargs, self._destination(options), PRINTS * options.prints)
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
            parcel = shipment.parcel(args, kwargs, self._destination(options), PRINTS * options.prints)
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

    # For maps

    def facts(self, options: Options) -> Facts:
        """The pool, with as many workers as may be used. Raises ServerUnavailable."""
        facts = self._connections.facts(options.wait_s)
        if self._limit is None or self._limit >= facts.workers:
            return facts
        return facts._replace(workers=self._limit)

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], options: Options
    ) -> Parcel:
        """Calls of the function, given a list of values for each parameter. Raises TaskNotSendable."""
        return shipment.chunk(function, columns, self._destination(options), PRINTS * options.prints)

    def add(self, task: Task, *, goes_on: bool = False) -> None:
        """Have a task run. Raises RuntimeError after `close`, unless it `goes_on` with what began before."""
        if self._is_shut and not goes_on:  # All else was looked at before the call was made.
            raise RuntimeError(_SHUT)
        connections = self._connections
        facts = self.facts(task.options)
        prepare = None if self._initializer is None else self._make_preparation
        if connections.are_inside:
            nesting.run_task(connections, task, prepare)
            return
        with self._lock:
            if not self._drivers:
                self._drivers.append(Driver(connections, prepare))
            self._drivers[0].add(task, facts.workers, facts.max_tasks)

    # Ending

    def kill_all(self) -> None:
        """Stop all tasks, also those that run."""
        for driver in list(self._drivers):
            driver.kill_all()

    def close(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; with `wait`, return when all have ended. With `cancel`, none begins now."""
        with self._lock:
            self._is_shut = True
            drivers = list(self._drivers)
        for mapping in list(self._mappings) if cancel else ():
            mapping.cancel()
        for driver in drivers:
            driver.close(cancel=cancel)
        if wait or not drivers:
            self._end(drivers)
        else:  # What is under way goes on, and then all is closed.
            threading.Thread(target=self._end, args=(drivers,), name="closing", daemon=True).start()

    def _end(self, drivers: list[Driver]) -> None:
        for driver in drivers:
            for mapping in list(self._mappings):
                mapping.wait_until_started()
            driver.join()
        if self._known_connections is not None:
            self._known_connections.close()
        if self._private is not None:
            self._private.close()

    def leave_to_parent(self) -> None:
        """In a forked child: connections and threads belong to the process that made them."""
        self._lock = threading.Lock()  # A thread that is not here may have held the other one.
        self._known_connections = None
        self._drivers.clear()
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
                self._known_connections = Connections(address, self._trust)
            return self._known_connections

    def _destination(self, options: Options) -> Destination:
        connections = self._known_connections or self._connections
        return Destination(self._program, connections.facts(options.wait_s).python, connections.may_share)

    def _make_preparation(self) -> Task:
        assert self._initializer is not None
        shipment, args = self._initializer
        flags = INITIALIZER | PRINTS * self._options.prints
        parcel = shipment.parcel(args, {}, self._destination(self._options), flags)
        return Task(shipment.name, parcel, Pace())

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(_SHUT)
        if self._drivers and self._drivers[0].broken is not None:
            raise self._drivers[0].broken.with_traceback(None)
        if not threading.main_thread().is_alive():  # Nobody would wait for them.
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")


_backends: weakref.WeakSet[Backend] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for backend in list(_backends):
        backend.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def _let_go(server: local.PrivateServer, drivers: list[Driver]) -> None:
    """An executor was dropped: its private server goes when what is under way has ended."""
    if drivers:
        drivers[0].at_end(server.let_go)
    else:
        server.let_go()
