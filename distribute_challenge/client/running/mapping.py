"""`map`: items into chunks, chunks into tasks, and their results one by one as they come.

At every moment only a bounded number of chunks is under way. The size of a chunk follows how long the
function takes: about 15 ms of work, so that what a chunk costs beside it is small, and no worker sits on a
long one while others have nothing to do.

Where the number of items is known, all of them run, whether or not anybody takes the results: whoever takes
results starts the next chunks, and if nobody does, the thread in which a chunk ends. Else, and with a
`buffersize`, only a bounded number of items waits to be taken, and nothing starts while nobody takes any.
"""

from __future__ import annotations

import itertools
import operator
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from typing import Any, Protocol

from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.payload import ChunkResults, RemoteTraceback
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import Parcel, Written
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Facts
from distribute_challenge.client.running.tasks import Task, TaskFuture
from distribute_challenge.errors import AccessDenied, ServerUnavailable, TaskNotSendable
from distribute_challenge.wire.stream import MEBI

CHUNK_S = 0.015
CHUNK_BYTES = 16 * MEBI
MAX_CHUNK = 2000
MAX_GROWTH = 8  # from one chunk to the next
BUFFER_SIZE = 10_000

_PLAIN = (
    list,
    tuple,
    range,
    str,
    bytes,
    bytearray,
    dict,
    set,
    frozenset,
)  # to iterate over them runs no code


class TaskExecutor(Protocol):
    """The part of an executor that `map` uses."""

    def facts(self, options: Options) -> Facts:
        """The facts about the pool."""

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], options: Options
    ) -> Parcel:
        """Calls of the function, given a list of values for each parameter. Raises TaskNotSendable."""

    def add(self, task: Task) -> None:
        """Have a task run. Raises RuntimeError after `shutdown`."""

    def add_more(self, task: Task) -> None:
        """Have a task run that belongs to what has begun, also after `shutdown`."""


class Mapping:
    """One `map`. It begins at once; iterating gives the results."""

    def __init__(
        self,
        pool: TaskExecutor,
        shipment: Shipment,
        iterables: tuple[Iterable[Any], ...],
        options: Options,
        *,
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        return_exceptions: bool,
        progress: bool,
    ) -> None:
        for name, size in (("chunksize", chunksize), ("buffersize", buffersize)):
            if size is not None and operator.index(size) < 1:
                raise ValueError(f"{name} must be 1 or more")
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._pool = pool
        self._shipment = shipment
        self._options = options
        self._chunk_size = chunksize
        self._buffer_size = buffersize or max(BUFFER_SIZE, 2 * (chunksize or 1))
        self._is_ordered = ordered
        self._returns_exceptions = return_exceptions
        self._shows_progress = progress
        self._total = _length(iterables)
        self._runs_all = self._total is not None and buffersize is None
        if self._runs_all:  # Then items may be taken in another thread.
            iterables = tuple(part if type(part) in _PLAIN else list(part) for part in iterables)
        self._pace = Pace()  # of these calls: with others, the function may have been quicker.
        self._has_one = len(iterables) == 1
        self._items: Iterator[Any] = iter(iterables[0]) if self._has_one else zip(*iterables)  # noqa: B905  As `map`.
        self._taken = 0
        self._last_size = 1
        self._bytes_per_item = 0.0
        self._buffered = 0  # items whose results have not been consumed
        self._chunks: deque[Future[Any]] = deque()  # in the order of their items
        self._places: dict[Future[Any], tuple[int, int]] = {}  # of each: its first item, and how many
        self._filling = threading.Lock()  # held while chunks are started
        self._counting = threading.Lock()  # guards the next one
        self._running = 0
        # One for each chunk that has ended: in order, it says no more than that one has.
        self._ended: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._is_exhausted = False
        self._is_over = False  # Its results are not wanted any more.
        self._all_started = threading.Event()
        self._failure: Exception | None = None  # of the iterables, or of an item that cannot be sent
        self._is_full = False  # The buffer is: nothing starts before some of it is consumed.
        facts = pool.facts(options)
        self._workers = facts.workers
        self._max_chunk = facts.max_tasks or MAX_CHUNK
        function = shipment.dump_function(facts.python)
        # Each chunk takes it along as it is now.
        self._function = function._replace(buffers=Parts(function.buffers, may_share=False).load())
        self._fill()
        if self._failure is not None and not isinstance(self._failure, TaskNotSendable):
            self.cancel()
            raise self._failure

    def __iter__(self) -> Iterator[Any]:
        results = self._results()
        if not self._shows_progress:
            return results
        from tqdm import tqdm  # Late: only a bar needs it.

        return iter(tqdm(results, total=self._total, desc=self._shipment.name))

    def _results(self) -> Iterator[Any]:
        try:
            while self._has_chunks():
                first, (values, failures) = self._next_results()
                count = len(values)
                _tell_items(failures, first)
                self._fill()
                values.reverse()
                for number in sorted(failures):
                    while count - len(values) < number:
                        yield values.pop()
                    if not self._returns_exceptions:
                        raise failures[number]
                    values[-1] = failures.pop(number)
                while values:  # What has been consumed is not held any longer.
                    yield values.pop()
                self._buffered -= count
                if self._is_full:
                    self._fill()
            if self._failure is not None:
                raise self._failure
        except KeyboardInterrupt:
            self._kill()
            raise
        finally:
            self.cancel()

    def _has_chunks(self) -> bool:
        """Whether there is another chunk: started already, or now, perhaps by another thread."""
        if not self._chunks:
            self._fill(wait=True)
        return bool(self._chunks)

    def _next_results(self) -> tuple[int, ChunkResults]:
        """The number of the next chunk's first item, and its results."""
        future = self._next_chunk()
        first, count = self._places.pop(future)
        try:
            results: ChunkResults = future.result()
        except BaseException as error:  # The whole chunk is lost.
            return first, ChunkResults([None] * count, dict.fromkeys(range(count), error))
        return first, results

    def _next_chunk(self) -> Future[Any]:
        """The next chunk whose results are there. Raises TimeoutError."""
        while not (self._is_ordered and self._chunks[0].done()):
            try:
                left_s = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
                future = self._ended.get(timeout=left_s)
            except queue.Empty:
                raise TimeoutError("the results were not there in time") from None
            if future is not None:
                self._chunks.remove(future)
                return future
            self._fill()
        return self._chunks.popleft()

    def _kill(self) -> None:
        """Stop the functions that run, as Ctrl-C does everywhere else."""
        for future in list(self._chunks):
            if isinstance(future, TaskFuture):
                future.kill()

    def cancel(self) -> None:
        """Cancel the chunks that have not begun, and start no more."""
        self._is_over = True
        self._all_started.set()
        for future in list(self._chunks):
            future.cancel()

    def _fill(self, *, wait: bool = False) -> None:
        """Start chunks, as many as are good to have under way, unless another thread is at it (or `wait`)."""
        while self._filling.acquire(blocking=wait):
            try:
                self._start_chunks()
            finally:
                self._filling.release()
            if not self._runs_low():  # Chunks that ended in the last moment have found this thread at it.
                return
            wait = False

    def _runs_low(self) -> bool:
        """Whether more must be started although nobody takes results, or not as fast as they come."""
        return self._runs_all and self._running <= self._workers and not self._all_started.is_set()

    def wait_until_started(self) -> None:
        """If all items are to run, wait until the last chunk has been started, or no more will be."""
        if self._runs_all:
            self._all_started.wait()

    def _start_chunks(self) -> None:
        while not (self._is_exhausted or self._is_over) and self._running < 2 * self._workers + 2:
            size = self._next_size()
            has_limit = not self._runs_all and self._buffered > 0
            self._is_full = has_limit and self._buffered + size > self._buffer_size
            if self._is_full:
                return
            try:
                items = list(itertools.islice(self._items, size))
                self._is_exhausted = len(items) < size
                if items:
                    self._start([items] if self._has_one else list(map(list, zip(*items, strict=True))))
            except Exception as error:  # Raised in its turn: what came before has results.
                self._failure, self._is_exhausted = error, True
        if self._is_exhausted:
            self._all_started.set()

    def _start(self, columns: list[list[Any]]) -> None:
        """Start a chunk: for each parameter, a list of its values."""
        count = len(columns[0])
        try:
            parcel = self._pool.parcel_chunk(self._shipment, self._function, columns, self._options)
        except TaskNotSendable as error:
            if count > 1:  # That one fails, the others are sent.
                for number in range(count):
                    self._start([[column[number]] for column in columns])
                return
            _tell_items({0: error}, self._taken)
            if not self._returns_exceptions:
                raise
            refused: Future[Any] = Future()
            self._note(refused, 1)
            refused.set_exception(error)
            return
        size = len(parcel.arguments) + (0 if parcel.large is None else parcel.large.size)
        self._bytes_per_item = size / count
        self._last_size = count
        task = Task(self._shipment.name, parcel, self._pace, self._options, count)
        self._note(task.future, count)
        try:
            (self._pool.add_more if self._runs_all else self._pool.add)(task)
        except BaseException as error:
            task.fail(error)
            raise

    def _note(self, future: Future[Any], count: int) -> None:
        """Take a chunk in that is under way."""
        self._places[future] = self._taken, count
        self._taken += count
        self._buffered += count
        with self._counting:
            self._running += 1
        self._chunks.append(future)
        Future.add_done_callback(future, self._end)  # In the very thread in which it ends.

    def _end(self, future: Future[Any]) -> None:
        """Called when a chunk has ended, in the thread in which it did."""
        with self._counting:
            self._running -= 1
        self._ended.put(None if self._is_ordered else future)
        if not _may_go_on(future):
            self._all_started.set()  # Whoever takes results may still go on.
        if self._runs_low():
            self._fill()

    def _next_size(self) -> int:
        """How many items the next chunk takes."""
        if self._chunk_size is not None:
            return min(self._chunk_size, self._buffer_size)
        if self._options.timeout_s is not None:
            return 1  # Each has that time for itself.
        pace_s = self._pace.seconds
        if pace_s is None:
            return 1
        size = min(int(CHUNK_S / max(pace_s, 1e-9)), MAX_CHUNK, MAX_GROWTH * self._last_size)
        if self._bytes_per_item:
            size = min(size, int(CHUNK_BYTES / self._bytes_per_item))
        if self._total is not None:  # Near the end, all workers shall end together.
            size = min(size, (self._total - self._taken) // (2 * self._workers))
        return max(min(size, self._buffer_size // 4, self._max_chunk), 1)


def _may_go_on(future: Future[Any]) -> bool:
    """Whether a chunk has not ended because of something that ends all others, too."""
    if future.cancelled():
        return False
    error = future.exception()
    return not isinstance(error, ServerUnavailable | AccessDenied) and type(error) is not BrokenExecutor


def _tell_items(failures: dict[int, BaseException], first: int) -> None:
    """Have each exception say which items of the map it is about."""
    for number, error in failures.items():
        cause = error.__cause__
        call = cause.call if isinstance(cause, RemoteTraceback) else None
        if call is not None or len(failures) == 1:
            text = f"item {first + number} of the map" + ("" if call is None else f": {call}")
        elif number == min(failures):  # One for all of a chunk.
            text = f"items {first} to {first + max(failures)} of the map"
        else:
            continue
        if isinstance(cause, RemoteTraceback):
            cause.item = first + number
        try:
            error.add_note(text)  # type: ignore[attr-defined]
        except Exception:  # Python 3.10 has no notes, and an exception may have fixed attributes.
            if isinstance(cause, RemoteTraceback):
                cause.text += f"\n{text}"


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, if that is known."""
    try:
        return min(map(len, iterables))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
