"""`PoolExecutor`: a pool of workers as an executor of `concurrent.futures`."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from distribute_challenge.address import ANY_USER_VARIABLE, Address, chosen
from distribute_challenge.calls.payload import INITIALIZER, NO_PROGRAM, PRINTS
from distribute_challenge.client import local
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Destination, Parcel, Written
from distribute_challenge.client.parcels.shipping import Shipment, shipment_of
from distribute_challenge.client.peers.connections import Connections, Facts
from distribute_challenge.client.running import lone, nesting
from distribute_challenge.client.running.driver import Driver
from distribute_challenge.client.running.mapping import Mapping
from distribute_challenge.client.running.tasks import Task, TaskFuture
from distribute_challenge.errors import PoolError
from distribute_challenge.tls import Tls
from distribute_challenge.wire.access import Trust

P = ParamSpec("P")
R = TypeVar("R")

_SHUT = "cannot schedule new futures after shutdown"


class PoolExecutor(Executor):
    """Runs functions on a pool of workers: a `concurrent.futures.Executor` in every respect.

    `server` is the pool's address, `HOST:PORT`; by default the environment's COMPUTE_SERVER, else
    `localhost:18811`. `local://4` starts a private pool of four workers, which ends with the executor, or the
    program. At most `max_workers` of its workers are used at once, by default all. `initializer` is
    called once in each worker process before the first function of this executor runs there; the global names
    that it binds are there for those functions. With `prints=False`, what functions print is not shown
    here. With `wait=10`, a server that is not there yet is waited for, at most so many seconds. With
    `tls=Tls(cert, key, ca)` server and workers are reached by mutual TLS; by default with the environment's
    COMPUTE_TLS_CERT, COMPUTE_TLS_KEY and COMPUTE_TLS_CA, if it has them. (A private pool needs none.)

    Nothing connects before the first call. Raises ValueError if `server` is no address or `max_workers` is
    not positive, TypeError if `initializer` is not callable or `tls` no Tls, PoolError if the environment
    has some of its variables for TLS, and not all.

    >>> with PoolExecutor() as pool:                          # doctest: +SKIP
    ...     print(pool.submit(pow, 2, 10).result(), list(pool.map(abs, [-1, -2])))
    1024 [1, 2]
    """

    def __init__(
        self,
        server: str | None = None,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        prints: bool = True,
        wait: float = 0,
        tls: Tls | None = None,
    ) -> None:
        if server is not None and not isinstance(server, str):
            raise TypeError(
                f"server is an address, HOST:PORT or local://WORKERS, not {server!r} "
                "(max_workers= has to be named)"
            )
        if max_workers is not None and operator.index(max_workers) <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        address = chosen() if server is None else server
        workers = local.worker_count(address)
        self._private = None if workers is None else local.PrivateServer(workers)
        self._address = Address.parse(address) if workers is None else None
        self._limit = max_workers
        self._initializer = None if initializer is None else (shipment_of(initializer), initargs)
        self._program = NO_PROGRAM if initializer is None else os.urandom(len(NO_PROGRAM))
        self._options = Options(prints=prints, tls=tls, wait_s=wait)
        self._trust = Trust()
        if workers is None:
            self._trust = Trust(Tls.choose(tls), os.environ.get(ANY_USER_VARIABLE, "") not in ("", "0"))
        self._lock = threading.Lock()  # guards all that follows
        self._known_connections: Connections | None = None
        self._driver: Driver | None = None
        self._drivers: list[Driver] = []  # at most the one, where who survives this object finds it
        self._is_shut = False
        self._mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()
        _executors.add(self)
        if self._private is not None:  # If it is dropped without a shutdown, its server goes as well.
            weakref.finalize(self, _let_go, self._private, self._drivers)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` run on a worker; its future.

        Raises RuntimeError after `shutdown`, BrokenExecutor once the initializer has failed. All else that
        goes wrong is the future's exception: what the function raised, or a `PoolError`.

        >>> PoolExecutor().submit(pow, 2, 10).result()        # doctest: +SKIP
        1024
        """
        return self.submit_call(shipment_of(fn), args, kwargs, self._options_of(fn))

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool = False,
    ) -> Iterator[R]:
        """The results of `fn` for each set of items, as they come; in the order of the items unless
        `ordered=False`.

        If the number of items is known, all of them run, whether or not anybody takes the results. Else, or
        with `buffersize`, they are taken lazily, at most so many ahead of what was consumed. Items travel in
        chunks, whose size follows how long the function takes, unless `chunksize` says it. With
        `return_exceptions=True` an exception is a result like others; else it is raised, and what has not run
        yet does not. Raises TimeoutError if a result is not there `timeout` seconds after this call.
        `progress=True` shows a bar.

        >>> list(PoolExecutor().map(abs, [-1, -2]))           # doctest: +SKIP
        [1, 2]
        """
        return self.map_calls(
            shipment_of(fn),
            iterables,
            self._options_of(fn),
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def __repr__(self) -> str:
        where = f"local://{self._private.workers}" if self._private is not None else str(self._address)
        return f"<PoolExecutor at {where}>"

    def kill(self, future: Future[Any]) -> bool:
        """Stop the function of a future of this executor, also while it runs: `TaskFuture.kill`."""
        if not isinstance(future, TaskFuture):
            raise TypeError(f"kill takes a future that this executor gave, not {future!r}")
        return future.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all have ended. `cancel_futures` drops who waits."""
        with self._lock:
            self._is_shut = True
            driver = self._driver
        if cancel_futures:
            for mapping in list(self._mappings):
                mapping.cancel()
        if driver is not None:
            driver.close(cancel=cancel_futures)
            if not wait:
                # What is under way goes on, and then all is closed.
                threading.Thread(target=self._close, args=(driver,), name="closing", daemon=True).start()
                return
        self._close(driver)

    def kill_workers(self) -> None:
        """Stop all functions of this executor at once, also those that run, and shut down.

        Their workers are killed and replaced; other programs' functions go on.

        >>> PoolExecutor().kill_workers()                     # doctest: +SKIP
        """
        if self._driver is not None:
            self._driver.kill_all()
        self.shutdown(wait=False, cancel_futures=True)

    terminate_workers = kill_workers

    @property
    def _max_workers(self) -> int:
        """How many functions run at once, as other libraries ask the standard executors."""
        return self.facts(self._options).workers

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Shut down. Ctrl-C inside the block stops what runs, too."""
        is_interrupt = kind is not None and issubclass(kind, KeyboardInterrupt)
        if is_interrupt and self._driver is not None:
            self._driver.kill_all()
        self.shutdown(cancel_futures=is_interrupt)  # Nor does a map go on.

    def _close(self, driver: Driver | None) -> None:
        if driver is not None:
            for mapping in list(self._mappings):
                mapping.wait_until_started()
            driver.join()
        if self._known_connections is not None:
            self._known_connections.close()
        if self._private is not None:
            self._private.close()

    # What `compute_this` and `Mapping` build on

    def run_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Run a call, in this thread, and return its value."""
        connections = self._connections
        to = self._destination(connections, options)
        parcel = shipment.parcel(args, kwargs, to, PRINTS * options.prints)
        run = nesting.run if connections.are_inside else lone.run
        outcome = run(connections, shipment.name, parcel, options)
        assert outcome is not None  # Who waits in line gets a worker, and who does not runs it in place.
        return outcome.load()

    def submit_call(
        self, shipment: Shipment, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> TaskFuture[Any]:
        """Have a call run; its future."""
        self._check_open()
        try:
            to = self._destination(self._connections, options)
            parcel = shipment.parcel(args, kwargs, to, PRINTS * options.prints)
        except PoolError as error:
            failed: TaskFuture[Any] = TaskFuture()
            failed.set_exception(error)
            return failed
        task = Task(shipment.name, parcel, shipment.pace, options)
        self.add(task)
        return task.future

    def map_calls(
        self, shipment: Shipment, iterables: tuple[Iterable[Any], ...], options: Options, **how: Any
    ) -> Iterator[Any]:
        """The results of the function for each set of items: what `map` does."""
        self._check_open()
        mapping = Mapping(self, shipment, iterables, options, **how)
        self._mappings.add(mapping)
        return iter(mapping)

    @property
    def _connections(self) -> Connections:
        """The connections to the pool, whose server is started now if it is a private one."""
        known = self._known_connections
        if known is not None:
            return known
        with self._lock:
            if self._known_connections is None:
                address = self._private.address() if self._private is not None else self._address
                assert address is not None
                self._known_connections = Connections(address, self._trust)
            return self._known_connections

    def leave_to_parent(self) -> None:
        """In a forked child: connections and threads belong to the process that made them."""
        self._lock = threading.Lock()  # A thread that is not here may have held the other one.
        self._known_connections = self._driver = None
        self._drivers.clear()
        self._mappings = weakref.WeakSet()

    def facts(self, options: Options) -> Facts:
        """The pool, with as many workers as may be used. Raises ServerUnavailable."""
        facts = self._connections.facts(options.wait_s)
        if self._limit is None or self._limit >= facts.workers:
            return facts
        return facts._replace(workers=self._limit)

    def add(self, task: Task) -> None:
        """Have a task run. Raises RuntimeError after `shutdown`."""
        if self._is_shut:  # All else was looked at before the call was made.
            raise RuntimeError(_SHUT)
        self.add_more(task)

    def add_more(self, task: Task) -> None:
        """Have a task run that belongs to what has begun, also after `shutdown`, which waits for it."""
        connections = self._connections
        facts = self.facts(task.options)
        prepare = None if self._initializer is None else self._make_preparation
        if connections.are_inside:
            nesting.run_task(connections, task, prepare)
            return
        with self._lock:
            if self._driver is None:
                self._driver = Driver(connections, prepare)
                self._drivers[:] = [self._driver]
            driver = self._driver
            driver.add(task, facts.workers, facts.max_tasks)

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], options: Options
    ) -> Parcel:
        """Calls of the function, given a list of values for each parameter. Raises TaskNotSendable."""
        to = self._destination(self._connections, options)
        return shipment.chunk(function, columns, to, PRINTS * options.prints)

    def _options_of(self, function: Callable[..., Any]) -> Options:
        """This executor's options; a decorated function's own go first."""
        own = getattr(function, "options", None)
        if not isinstance(own, Options):
            return self._options
        prints = own.prints and self._options.prints
        return replace(self._options, timeout_s=own.timeout_s, retries=own.retries, prints=prints)

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(_SHUT)
        if self._driver is not None and self._driver.broken is not None:
            raise self._driver.broken.with_traceback(None)
        if not threading.main_thread().is_alive():  # Nobody would wait for them.
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _destination(self, connections: Connections, options: Options) -> Destination:
        return Destination(self._program, connections.facts(options.wait_s).python, connections.may_share)

    def _make_preparation(self) -> Task:
        assert self._initializer is not None
        shipment, args = self._initializer
        to = self._destination(self._connections, self._options)
        parcel = shipment.parcel(args, {}, to, INITIALIZER | PRINTS * self._options.prints)
        return Task(shipment.name, parcel, Pace())


_executors: weakref.WeakSet[PoolExecutor] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for executor in list(_executors):
        executor.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def _let_go(server: local.PrivateServer, drivers: list[Driver]) -> None:
    """An executor was dropped: its private server goes when what is under way has ended."""
    if drivers:
        drivers[0].at_end(server.let_go)
    else:
        server.let_go()
