"""The engine for a Dask cluster: the same parcels, which Dask takes to its workers, and the same outcomes."""

from __future__ import annotations

from typing import Any

from distribute_challenge.address import DASK, Address, dask_scheduler
from distribute_challenge.calls.payload import INITIALIZER
from distribute_challenge.client.dask import cluster, freight
from distribute_challenge.client.dask.connection import Connection
from distribute_challenge.client.dask.dispatcher import Dispatcher
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.parcel import Destination, flags_of
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Facts
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.tasks.engine import Engine, Initializer
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.tls import Tls

# Of a map's chunk: a task costs Dask milliseconds.
CHUNK_S = 0.1


class DaskEngine(Engine):
    """Runs calls on the cluster at `dask://HOST:PORT`, or, at `dask://`, on one of this program's own.

    Raises ValueError if that is no address, PoolError if there is no Dask here.
    """

    chunk_s = CHUNK_S
    distance = Distance()  # Not measured: the dispatcher keeps enough on the way.

    def __init__(
        self, address: str, limit: int | None, initializer: Initializer | None, options: Options
    ) -> None:
        cluster.check_installed()
        public = dask_scheduler(address)
        self._public = public
        self._own = cluster.LocalCluster() if public is None else None
        self._tls = None if public is None else Tls.choose(options.tls)
        super().__init__(address if public is None else f"{DASK}{public}", limit, initializer, options)
        self._connection = self._made()

    def _made(self) -> Connection:
        """A new connection, and whatever is to end with this engine."""
        if self._own is not None:
            self._owned.add(self._own.close)
        pack = None
        if self._initializer is not None:
            shipment, args = self._initializer
            program, options = self._program, self._options

            def pack() -> freight.Packed:
                to = Destination(program, cluster.HERE, may_share=False)
                return freight.pack(
                    shipment.name, shipment.parcel(args, {}, to, INITIALIZER | flags_of(options))
                )

        connection = Connection(self._place, self._tls, self._limit, pack)
        self._owned.add(connection.close)
        program = self._program
        self._owned.add(lambda: connection.forget(program))
        return connection

    def _place(self) -> Address:
        if self._public is not None:
            return self._public
        assert self._own is not None
        return self._own.address()  # It is started by the first call.

    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, and return its value."""
        self._check_open()
        task = Task(shipment.name, self._parcel(shipment, args, kwargs, options), shipment.pace, options)
        self.add(task)
        try:
            return task.future.result()
        except KeyboardInterrupt:
            task.future.kill()
            raise

    def facts(self, options: Options) -> Facts:
        """The cluster as it is now: it may grow. Raises ServerUnavailable."""
        return Facts(cluster.HERE, max(self._connection.workers(wait_s=options.wait_s), 1), None)

    def add(self, task: Task, *, goes_on: bool = False) -> None:
        """Have a task run. Raises RuntimeError after `close`, unless it `goes_on` with what began before."""
        self._check_not_shut(goes_on=goes_on)
        self._connection.connect(task.options.wait_s)
        with self._lock:
            if self._driver is None:
                self._driver = Dispatcher(self._connection)
                self._owned.add(self._driver.join)
            dispatcher = self._driver
        assert isinstance(dispatcher, Dispatcher)
        dispatcher.add(task)

    def leave_to_parent(self) -> None:
        """In a forked child: the client and its threads belong to the process that made them."""
        super().leave_to_parent()
        self._connection = self._made()

    def _destination(self, options: Options) -> Destination:
        self._connection.connect(options.wait_s)
        return Destination(self._program, cluster.HERE, may_share=False)
