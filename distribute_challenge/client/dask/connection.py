"""A Dask client as this package uses it: tasks go there as bytes, and reports come back.

Whatever Dask raises becomes an error of ours here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distribute_challenge.address import Address
from distribute_challenge.client.dask import cluster
from distribute_challenge.client.dask.freight import (
    FORMAT,
    MAKE_VALUE,
    RUN_PARCEL,
    Freight,
    Packed,
    Value,
    call_there,
    encodable,
    pack,
)
from distribute_challenge.client.peers.printing import show
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.errors import PoolError, ServerUnavailable, WorkerLost
from distribute_challenge.tls import Tls

if TYPE_CHECKING:
    from distribute_challenge.client.dask.closing import Client

log = logging.getLogger(__name__)

WARNED_BYTES = 8 << 20  # Above this Dask warns, and tells to do something else.

_attempts = itertools.count()  # to run a task

Told = Callable[[Any, BaseException | None], None]  # a report, or the error in its stead


class Connection:
    """The client of one executor, made when it is first needed. Safe to use from any thread.

    `initializer` makes the call that has to run first in each worker's process.
    """

    def __init__(
        self,
        place: Callable[[], Address],
        tls: Tls | None,
        limit: int | None,
        initializer: Callable[[], Packed] | None,
    ) -> None:
        self._place = place
        self.show: Callable[[int, bytes], None] = show  # what functions print while they run
        self._tls = tls
        self.limit = limit  # how many workers the executor may use, if not all
        self._initializer = initializer
        self._packed_initializer: Packed | None = None
        self._lock = threading.RLock()  # guards all that follows
        self._client: Client | None = None
        self._address: Address | None = None  # of its scheduler
        self._is_closed = False
        self._workers = 0
        self._looked_at = 0.0
        self._values: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @property
    def client(self) -> Client:
        """The client. Raises ServerUnavailable or PoolError."""
        return self.connect(0)

    def connect(self, wait_s: float) -> Client:
        """The client; a scheduler that is not there is waited for, at most so long."""
        known = self._client
        if wait_s and (known is None or known.status in ("closed", "closing")):
            cluster.await_listener(self._place(), wait_s)  # Without the lock: `close` does not wait for that.
        with self._lock:
            if self._client is not None and self._client.status in ("closed", "closing"):
                self._client = None
                self._values.clear()
            if self._client is None:
                if self._is_closed:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                self._address = self._place()
                self._client = cluster.connect(self._address, self._tls)
                self._client.subscribe_topic(_topic(self._client), self._show)
                self._looked_at = 0.0
            return self._client

    def workers(self, age_s: float = 0.0, wait_s: float = 0.0) -> int:
        """How many functions run at once, as known for at most so long, within the limit.

        Raises ServerUnavailable.
        """
        client = self.connect(wait_s)
        with self._lock:
            if time.monotonic() - self._looked_at > age_s:
                try:
                    self._workers = sum(client.nthreads().values())
                except (OSError, TimeoutError, RuntimeError) as error:  # It is just being closed, say.
                    raise self._gone(error) from None
                self._looked_at = time.monotonic()
            return self._workers if self.limit is None else min(self._workers, self.limit)

    def submit(self, task: Task) -> Any:
        """Give a task to Dask; its future there. Raises TaskNotSendable or ServerUnavailable."""
        import dask

        client = self.connect(task.patience_s)
        if self._initializer is not None and self._packed_initializer is None:
            self._packed_initializer = self._initializer()
        parcel, options = task.parcel, task.options
        tokens = tuple(value.token for value in parcel.values)
        freight = Freight(
            pack(task.name, parcel),
            self._packed_initializer,
            options.timeout_s,
            _topic(client),
            tokens,
        ).dump()
        values = [self._scattered(client, value) for value in parcel.values]
        # Another attempt is another key: Dask forgets the last one only when it likes.
        key = f"{encodable(task.name)}-{parcel.id.hex()}-{next(_attempts)}"
        how: dict[str, Any] = {"key": key, "pure": False, "retries": 0}
        names = {"format_": FORMAT, "freight": freight, "values": values}
        if len(freight) < WARNED_BYTES:
            return client.submit(eval, RUN_PARCEL, names, **how)
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "2GiB"}):
            return client.submit(eval, RUN_PARCEL, names, **how)

    def watch(self, future: Any, tell: Told) -> None:
        """Have `tell` called, in another thread, when a future of Dask's has ended."""

        async def follow() -> None:
            try:
                report = await future
            except BaseException as error:  # Of any kind: somebody waits for the task.
                tell(None, error)
            else:
                tell(report, None)

        self.client.loop.add_callback(follow)

    def explained(self, name: str, error: BaseException) -> Exception:
        """An error of Dask's, as ours."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            return WorkerLost(
                f"the Dask workers that were to run {name} died: Dask has given it to "
                f"{error.allowed_failures + 1} of them, at last to {error.last_worker.address}: its log may "
                "say more (the function runs in a process of its own: its end alone is not that of a worker)"
            )
        if isinstance(error, ImportError):  # What functions raise is in their outcomes.
            return PoolError(
                f"a Dask worker that was to run {name} lacks this package ({error}): install it on all "
                "workers, in the same version as here, with pip install 'distribute-challenge[dask]'"
            )
        client = self._client
        if client is None or client.status != "running":
            return self._gone(error)
        if type(error).__name__ == "FutureCancelledError":
            return WorkerLost(
                f"{name} was cancelled by the Dask cluster ({error}): it was restarted, perhaps"
            )
        return PoolError(f"the Dask cluster could not run {name}: {type(error).__name__}: {error}")

    def forget(self, program: bytes) -> None:
        """Tell the workers that the executor of an initializer has ended."""
        with self._lock:
            client = self._client
        if client is not None and self._packed_initializer is not None and client.status == "running":
            try:
                client.ask_workers(call_there, "forget", program)
            except Exception as error:
                log.debug("the Dask workers forget an executor by themselves: %s", error)

    def close(self) -> None:
        """End the client. Harmless to repeat."""
        with self._lock:
            client, self._client = self._client, None
            self._is_closed = True
            self._values.clear()
        if client is not None:
            if client.status == "running":
                client.unsubscribe_topic(_topic(client))
            client.end()

    def has_lost_value(self, task: Task, error: BaseException) -> bool:
        """Whether a task has ended because a scattered value had gone with the Dask workers that had it."""
        is_cancelled = type(error).__name__ == "FutureCancelledError" and "lost dependencies" in str(error)
        return is_cancelled and bool(task.parcel.values)

    def _scattered(self, client: Client, value: Any) -> Any:
        """A scattered value at Dask, which goes to each worker once."""
        with self._lock:
            future = self._values.get(value)
            if future is None or future.status in ("lost", "cancelled", "error"):
                packed = Value(value.pack(can_share=False))
                try:
                    if client.nthreads():
                        future = client.scatter(packed, hash=False, direct=False)
                    else:  # It waits for a worker, at the scheduler.
                        future = client.submit(eval, MAKE_VALUE, {"data": packed.data}, pure=False)
                except (OSError, TimeoutError, asyncio.TimeoutError, RuntimeError) as error:
                    raise self._gone(error) from None
                self._values[value] = future
            return future

    def _show(self, event: tuple[float, Any]) -> None:
        """Show what a function has printed."""
        _, (number, data) = event
        self.show(number, data)

    def _gone(self, error: BaseException) -> ServerUnavailable:
        return cluster.gone(self._address or self._place(), error)


def _topic(client: Client) -> str:
    """Under which workers tell this client, and no other, what its functions print."""
    return f"{client.id}-output"
