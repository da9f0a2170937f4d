"""The pool as a backend of joblib, and so of scikit-learn. This file alone knows joblib.

`register_joblib` makes it known by the name `compute`. Batches of calls travel as the argument of one
function, which workers find by its name, and so are pickled once.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from distribute_challenge.client.executors import executor_at
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.shipping import Shipment, shipment_of
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.client.tasks.task import TaskFuture
from distribute_challenge.tls import Tls

try:
    from joblib import Parallel, register_parallel_backend
    from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend
except ImportError as error:  # pragma: no cover  The tests have it.
    raise ImportError(
        f"joblib is not installed for {sys.executable} ({error}): pip install joblib there"
    ) from None

NAME = "compute"
# What joblib gives to every backend, for other kinds of workers.
_JOBLIBS = {*inspect.signature(Parallel).parameters, "context"}
MAX_NESTING = 2  # Calls within calls within calls run where they are.


def register_joblib() -> None:
    """Make the pool known to joblib, as the backend `compute`. Harmless to repeat.

    >>> from distribute_challenge import register_joblib
    >>> register_joblib()
    >>> with joblib.parallel_config(backend="compute", server="local://4"):   # doctest: +SKIP
    ...     cross_val_score(model, X, y, n_jobs=-1)

    Options of the backend: `server`, `tls`, `initializer` and `initargs`, as those of `PoolExecutor`.
    `n_jobs` batches run at once, at most; -1 means as many as there are workers.
    Raises ImportError without joblib.
    """
    register_parallel_backend(NAME, ComputeBackend)


class ComputeBackend(AutoBatchingMixin, ParallelBackendBase):
    """Runs joblib's batches on a pool. Its options are as those of `PoolExecutor`.

    Calls of joblib within a function on the pool run on workers that are free, else in place: they cannot
    wait for each other for ever.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        server: str | None = None,
        tls: Tls | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        _refuse(options)
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.parallel: Any = None  # the latest that was configured
        self._defaults = (server, tls, initializer, initargs)
        # Several `Parallel` may use this at once: each has its options, its executor if it has an
        # initializer, its batches that wait, and those that were sent, which are perhaps done.
        self._lock = threading.RLock()  # guards the next four; to collect garbage may abort a call, too
        self._chosen: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()
        self._own: weakref.WeakKeyDictionary[Any, PoolExecutor] = weakref.WeakKeyDictionary()
        self._waiting: weakref.WeakKeyDictionary[Any, _Waiting] = weakref.WeakKeyDictionary()
        self._futures: weakref.WeakKeyDictionary[TaskFuture[Any], Any] = weakref.WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels with each batch, for calls within calls: there, the pool is that of the worker."""
        return type(self), (self.nesting_level,)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at once, if the pool has nothing else to do. Raises ValueError for 0."""
        if n_jobs == 0:
            raise ValueError(
                "n_jobs == 0 in Parallel has no meaning: give a number of jobs, or -1 for all workers"
            )
        return self._jobs(n_jobs, self.parallel)

    def _jobs(self, n_jobs: int | None, owner: Any) -> int:
        if n_jobs is not None and n_jobs > 0:
            return n_jobs
        workers = self._executor(owner)._max_workers  # As dask and others ask an executor.
        return max(workers + 1 + (-1 if n_jobs is None else n_jobs), 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: Any = None,  # noqa: ARG002  joblib's signature, as are others' options.
        require: Any = None,  # noqa: ARG002
        server: str | None = None,
        tls: Tls | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **others: Any,
    ) -> int:
        """Take the options of one `Parallel`, which go first; how many batches run at once.

        Raises TypeError for one that is neither joblib's nor this backend's.
        """
        _refuse({name for name in others if name not in _JOBLIBS})
        before = self._defaults
        prepare = (initializer, initargs) if initializer is not None else before[2:]
        self.parallel = parallel
        if parallel is not None:
            with self._lock:
                self._chosen[parallel] = (server or before[0], tls or before[1], *prepare)
                self._waiting.pop(parallel, None)
        return self.effective_n_jobs(n_jobs)

    def terminate(self) -> None:
        """A `Parallel` has ended. The next may have shorter functions, or longer ones."""
        self.reset_batch_stats()
        with self._lock:  # Which one has, joblib does not say: those that it has marked so.
            executors = [self._own.pop(owner) for owner in list(self._own) if not _goes_on(owner)]
        for own in executors:
            own.shutdown()

    def submit(self, func: Callable[[], Any], callback: Any = None) -> None:
        """Run a batch as soon as fewer than `n_jobs` of its `Parallel` run; then `callback(future)`."""
        owner = callback.parallel
        executor = self._executor(owner)
        with self._lock:
            waiting = self._waiting.get(owner)
        if waiting is None:
            # Where all workers may run them, none waits here: the pool has the next ready for each worker.
            limit = sys.maxsize if owner.n_jobs in (None, -1) else self._jobs(owner.n_jobs, owner)
            with self._lock:
                waiting = self._waiting[owner] = _Waiting(limit)

        def send() -> None:
            if owner._aborting:
                return
            future: TaskFuture[Any]
            try:
                future = executor.engine.submit_call(_shipment(_name_of(func)), (func,), {}, Options())
            except Exception as error:  # It cannot be sent. joblib wants to hear of that as of any other end.
                future = TaskFuture()
                future.set_exception(error)
            with self._lock:
                self._futures[future] = owner
                is_over = self._waiting.get(owner) is not waiting
            if is_over:  # It was aborted meanwhile.
                future.kill()
            future.add_done_callback(callback)
            future.add_done_callback(waiting.note_end)

        waiting.add(send)

    def retrieve_result_callback(self, out: TaskFuture[Any]) -> Any:
        """The results of a batch that has ended. Raises what one of its calls raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002  joblib's signature.
        """Stop what runs of a `Parallel`, and cancel what waits. The pool goes on working.

        Which one asks, joblib does not say; but by then it has marked that as one that ends.
        """
        with self._lock:
            futures = [future for future, owner in self._futures.items() if getattr(owner, "_aborting", True)]
            for future in futures:
                del self._futures[future]
            for owner in [owner for owner in self._waiting if getattr(owner, "_aborting", True)]:
                self._waiting.pop(owner).drop()
        for future in futures:
            future.kill()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """The backend of calls within a batch."""
        level = (self.nesting_level or 0) + 1
        if level >= MAX_NESTING:
            return SequentialBackend(nesting_level=level), None
        return ComputeBackend(nesting_level=level), None

    def _executor(self, owner: Any) -> PoolExecutor:
        """That of a `Parallel`. Connections are kept for the next call of joblib, until the program ends."""
        with self._lock:
            chosen = self._defaults if owner is None else self._chosen.get(owner, self._defaults)
            server, tls, initializer, initargs = chosen
            if initializer is None:
                return executor_at(server, tls)
            owner = self if owner is None else owner
            if owner not in self._own:
                self._own[owner] = PoolExecutor(server, tls=tls, initializer=initializer, initargs=initargs)
            return self._own[owner]


class _Waiting:
    """The batches of one `Parallel` that wait, since `limit` of them run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()  # guards what follows
        self._running = 0
        self._is_sending = False
        self._batches: deque[Callable[[], object]] = deque()  # what sends each

    def add(self, send: Callable[[], object]) -> None:
        """Have a batch sent in its turn."""
        with self._lock:
            self._batches.append(send)
        self._send_on()

    def note_end(self, _: object) -> None:
        """One has ended."""
        with self._lock:
            self._running -= 1
        self._send_on()

    def drop(self) -> None:
        """Send none of those that wait."""
        with self._lock:
            self._batches = deque()

    def _send_on(self) -> None:
        """Send those that may be, one after another: one that runs in place, and so ends at once, adds the
        next from within, and many would be too deep in each other."""
        while True:
            with self._lock:
                batches = self._batches
                if self._is_sending or not batches or self._running >= self._limit:
                    return
                send = batches.popleft()
                self._running += 1
                self._is_sending = True
            try:
                send()
            finally:
                with self._lock:
                    self._is_sending = False


def _goes_on(owner: Any) -> bool:
    """Whether a `Parallel` is in a call, or in a `with` block and may call again."""
    return getattr(owner, "_calling", True) or getattr(owner, "_managed_backend", True)


def _refuse(options: Iterable[str]) -> None:
    for name in options:
        raise TypeError(
            f"the backend {NAME!r} has no option {name!r}: it takes server, tls, initializer and initargs"
        )


def _name_of(batch: Callable[[], Any]) -> str:
    """The name of the function that a batch calls, for the record and for messages."""
    calls = getattr(batch, "items", None) or [(batch,)]
    return str(getattr(calls[0][0], "__qualname__", run_batch.__name__))


@functools.lru_cache
def _shipment(name: str) -> Shipment:
    return shipment_of(run_batch).called(name, by_file=True)


def run_batch(batch: Callable[[], Any]) -> Any:
    """On a worker: run the calls of a batch; their results."""
    return batch()
