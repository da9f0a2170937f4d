"""`PoolExecutor`: a pool of workers as an executor of `concurrent.futures`.

What runs its calls is imported late: the server of a private pool starts meanwhile.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from distribute_challenge.address import DASK, INSIDE_VARIABLE, chosen, dask_scheduler, worker_count
from distribute_challenge.client.importing import importing
from distribute_challenge.client.local import PrivateServer
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.patched import check_nothing_is_patched
from distribute_challenge.errors import ServerUnavailable
from distribute_challenge.tls import Tls
from distribute_challenge.values.functions import Wrapper

if TYPE_CHECKING:
    from distribute_challenge.client.parcels.scattered import Scattered
    from distribute_challenge.client.tasks.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


class PoolExecutor(Executor):
    """Runs functions on a pool of workers: a `concurrent.futures.Executor` in every respect.

    `server` is the pool's address, `HOST:PORT`; by default the environment's COMPUTE_SERVER, else
    `localhost:18811`. `local://4` starts a private pool of four workers, which ends with the executor, or
    the program; with `profile=FILE`, or the environment's COMPUTE_PROFILE, it writes what the workers do to
    that file, and the tasks beside it. At most `max_workers` of its workers are used at once, by default
    all. `initializer` is called once in each worker process before the first function of this executor runs
    there; the global names that it binds are there for those functions. With `prints=False`, what functions
    print is not shown here. `timeout` and `retries` are those of all its calls, as `compute_this` has them;
    what a decorated function has of its own goes first. With `wait=10`, a server that is not there is
    waited for, at most so many seconds. With `tls=Tls(cert, key, ca)` server and workers are reached by
    mutual TLS; by default with the environment's COMPUTE_TLS_CERT, COMPUTE_TLS_KEY and COMPUTE_TLS_CA, if
    it has them. (A private pool needs none.)

    Nothing connects, or starts, before the first call. Raises ValueError if `server` is no address,
    `max_workers` is not positive, or there is a `profile` and no private pool, TypeError if `initializer` is
    not callable, `initargs` no tuple or `tls` no Tls, PoolError if the environment has some of its variables
    for TLS, and not all, or another library has patched sockets.

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
        timeout: float | None = None,
        retries: int = 0,
        prints: bool = True,
        wait: float = 0,
        tls: Tls | None = None,
        profile: str | os.PathLike[str] | None = None,
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
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs is a tuple of arguments, not {initargs!r}: write ({initargs!r},)")
        self._options = Options(timeout, retries, prints, wait, tls)
        address = chosen() if server is None else server
        workers = worker_count(address)
        if profile is not None and workers is None:
            what = "is a Dask cluster" if address.startswith(DASK) else "has a server of its own"
            raise ValueError(f"profile= is for a private pool, local://N: {address} {what}")
        check_nothing_is_patched()
        first = None if initializer is None else (initializer, tuple(initargs))
        self._parts = address, max_workers, first, self._options
        self._private = None if workers is None else (workers, profile)
        self._engine: Engine | None = None
        if self._private is None:
            self._made()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` run on a worker; its future.

        Raises RuntimeError after `shutdown`, BrokenProcessPool once the initializer has failed. All else that
        goes wrong is the future's exception: what the function raised, or a `PoolError`.

        >>> PoolExecutor().submit(pow, 2, 10).result()        # doctest: +SKIP
        1024
        """
        engine = self.engine
        return engine.submit_call(engine.shipment_of(fn), args, kwargs, self._options_of(fn))

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
        how = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions, progress)
        engine = self.engine
        return engine.map_calls(engine.shipment_of(fn), iterables, self._options_of(fn), how)

    def scatter(self, value: Any) -> Scattered:
        """Send a value to each worker once, for all calls that use it; what stands for it in those.

        It is pickled now. What is returned can stand wherever the value could: as an argument, also inside
        lists, tuples and dicts, and in what a function uses. There it is the value, whose arrays are
        read-only: on one machine, all workers see the same memory. It should not be changed, since the
        calls on a worker share it. When what is returned goes, so does the value: on a worker with the next
        call, or with the executor. Raises TaskNotSendable.

        >>> pool = PoolExecutor()                             # doctest: +SKIP
        >>> table = pool.scatter(numpy.zeros(10**8))          # doctest: +SKIP
        >>> pool.submit(numpy.sum, table).result()            # doctest: +SKIP
        0.0
        """
        return self.engine.scatter(value)

    def __repr__(self) -> str:
        return f"<PoolExecutor at {self._made().address}>"

    @property
    def engine(self) -> Engine:
        """What runs the calls."""
        return self._engine or self._made(starts=True)

    def _made(self, *, starts: bool = False) -> Engine:
        """What runs the calls, made now if need be; with `starts`, after the start of a private server."""
        with importing:
            if self._engine is None:
                private = None if self._private is None else PrivateServer(*self._private)
                try:
                    if starts and private is not None:
                        with contextlib.suppress(ServerUnavailable):  # The call tries again, and says so.
                            private.start()
                    self._engine = _engine(*self._parts, private)
                except BaseException:
                    if private is not None:
                        private.close()
                    raise
            return self._engine

    def kill(self, future: Future[Any]) -> bool:
        """Stop the function of a future of this executor, also while it runs: `TaskFuture.kill`."""
        from distribute_challenge.client.tasks.task import TaskFuture

        if not isinstance(future, TaskFuture):
            raise TypeError(f"kill takes a future that this executor gave, not {future!r}")
        return future.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all have ended. `cancel_futures` drops who waits."""
        self._made().close(wait=wait, cancel=cancel_futures)

    def kill_workers(self) -> None:
        """Stop all functions of this executor at once, also those that run, and shut down.

        Their workers are killed and replaced; other programs' functions go on, and so do tasks of tasks.

        >>> PoolExecutor().kill_workers()                     # doctest: +SKIP
        """
        self._made().kill_all()
        self.shutdown(wait=False, cancel_futures=True)

    terminate_workers = kill_workers

    @property
    def _max_workers(self) -> int:
        """How many functions run at once, as other libraries ask the standard executors."""
        return self.engine.facts(self._options).workers

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Shut down. Ctrl-C inside the block stops what runs, too."""
        is_interrupt = kind is not None and issubclass(kind, KeyboardInterrupt)
        if is_interrupt:
            self._made().kill_all()
        self.shutdown(cancel_futures=is_interrupt)  # Nor does a map go on.

    def _options_of(self, function: Callable[..., Any]) -> Options:
        """This executor's options; a decorated function's own go first."""
        if not isinstance(function, Wrapper):  # It may have the attributes of one: `wraps` copies them.
            return self._options
        own: Options = function.options.within(self._options)
        return own


def _engine(
    address: str,
    limit: int | None,
    initializer: tuple[Callable[..., object], tuple[Any, ...]] | None,
    options: Options,
    private: PrivateServer | None,
) -> Engine:
    """The engine for an address."""
    from distribute_challenge.client.parcels.shipping import shipment_of
    from distribute_challenge.client.running.engine import PoolEngine

    first = None if initializer is None else (shipment_of(initializer[0]), initializer[1])
    if not address.startswith(DASK):
        return PoolEngine(address, limit, first, options, private)
    from distribute_challenge.client.dask import cluster  # Most programs have no Dask.

    # The pool beside the Dask worker: it has no TLS, and its nested calls never wait.
    if cluster.is_inside(dask_scheduler(address)):
        return PoolEngine(os.environ[INSIDE_VARIABLE], limit, first, replace(options, tls=None))
    from distribute_challenge.client.dask.engine import DaskEngine

    return DaskEngine(address, limit, first, options)
