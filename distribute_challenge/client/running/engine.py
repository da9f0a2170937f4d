"""The engine for a pool of workers: its connections, and a driver, each made when it is first needed.

It knows no functions, only how they travel; whoever calls it has chosen the options of each call.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from distribute_challenge.address import Address
from distribute_challenge.calls.payload import INITIALIZER
from distribute_challenge.client.local import PrivateServer
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Destination, flags_of
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Connections, Facts
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.running import lone, nesting
from distribute_challenge.client.running.driver import Driver
from distribute_challenge.client.tasks.engine import Engine, Initializer
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.wire.access import Trust


class PoolEngine(Engine):
    """Runs calls on the pool at `address`, or on that of a `private` server, which ends with it.

    Raises ValueError if that is no address, PoolError if the environment has some of the variables for TLS,
    and not all.
    """

    def __init__(
        self,
        address: str,
        limit: int | None,
        initializer: Initializer | None,
        options: Options,
        private: PrivateServer | None = None,
    ) -> None:
        self._private = private
        self._public = Address.parse(address) if private is None else None
        self._trust = Trust.choose(options.tls) if private is None else Trust()
        self._known_connections: Connections | None = None
        super().__init__(str(self._public or address), limit, initializer, options)
        if self._private is not None:
            self._owned.add(self._private.close)

    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, in this thread, and return its value."""
        connections = self._connections
        parcel = self._parcel(shipment, args, kwargs, options)
        run = nesting.run if connections.are_inside else lone.run
        outcome = run(connections, shipment.name, parcel, options)
        assert outcome is not None  # Who waits in line gets a worker, and who does not runs it in place.
        return outcome.load()

    def facts(self, options: Options) -> Facts:
        """The pool, with as many workers as may be used. Raises ServerUnavailable."""
        facts = self._connections.facts(options.wait_s)
        if self._limit is None or self._limit >= facts.workers:
            return facts
        return facts._replace(workers=self._limit)

    @property
    def has_answered(self) -> bool:
        """Whether the server has let this program in, and has not gone since."""
        known = self._known_connections
        return known is not None and known.has_answered

    @property
    def distance(self) -> Distance:
        """How far away the pool is."""
        return self._connections.distance

    def add(self, task: Task, *, goes_on: bool = False) -> None:
        """Have a task run. Raises RuntimeError after `close`, unless it `goes_on` with what began before."""
        self._check_not_shut(goes_on=goes_on)  # All else was looked at before the call was made.
        connections = self._connections
        facts = self.facts(task.options)
        prepare = None
        if self._initializer is not None:  # It must not hold on to this object, which the driver survives.
            prepare = partial(_preparation, *self._initializer, connections, self._program, self._options)
        if connections.leases is not None:
            connections.leases.give_back()
        with self._lock:
            if self._driver is None:
                self._driver = (nesting.Nested if connections.are_inside else Driver)(connections, prepare)
                self._owned.add(self._driver.join)
            driver = self._driver
        assert isinstance(driver, Driver | nesting.Nested)
        driver.add(task, facts.workers, facts.max_tasks)

    def leave_to_parent(self) -> None:
        """In a forked child: connections and threads belong to the process that made them."""
        super().leave_to_parent()
        self._known_connections = None
        if self._private is not None:
            self._owned.add(self._private.close)

    # What is made when it is first needed

    @property
    def _connections(self) -> Connections:
        """The connections to the pool, whose server is awaited if it is a private one."""
        known = self._known_connections
        if known is not None:
            return known
        with self._lock:
            if self._known_connections is None:
                address = self._public if self._private is None else self._private.address()
                assert address is not None
                self._known_connections = Connections(address, self._trust, self._program, self._private)
                self._owned.add(self._known_connections.close)
            return self._known_connections

    def _destination(self, options: Options) -> Destination:
        return _destination(self._known_connections or self._connections, self._program, options)


def _destination(connections: Connections, program: bytes, options: Options) -> Destination:
    return Destination(program, connections.facts(options.wait_s).python, connections.may_share)


def _preparation(
    shipment: Shipment, args: tuple[Any, ...], connections: Connections, program: bytes, options: Options
) -> Task:
    """The task that runs the initializer on a worker."""
    to = _destination(connections, program, options)
    parcel = shipment.parcel(args, {}, to, INITIALIZER | flags_of(options))
    return Task(shipment.name, parcel, Pace())
