"""`map`: items into chunks, chunks into tasks, and their results one by one as they come.

At every moment only a bounded number of chunks is under way.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.replies import call_text
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.tasks.chunks import ChunkSizes, may_go_on, results_of, tell_items
from distribute_challenge.client.tasks.progress import Bar
from distribute_challenge.client.tasks.task import Latch, Task, TaskFuture
from distribute_challenge.errors import PoolError, TaskNotSendable

if TYPE_CHECKING:  # It makes these.
    from distribute_challenge.client.tasks.engine import Engine

LOOK_S = 1.0
MAX_CHUNK = 2000
BUFFER_SIZE = 10_000

# They do not change, and to iterate over them runs no code.
_PLAIN = (tuple, range, str, bytes, frozenset)


class Mapping:
    """One `map`. It begins at once; iterating gives the results."""

    def __init__(
        self,
        engine: Engine,
        shipment: Shipment,
        iterables: tuple[Iterable[Any], ...],
        options: Options,
        how: MapOptions,
    ) -> None:
        self._deadline = None if how.timeout is None else time.monotonic() + how.timeout
        self._engine = engine
        self._shipment = shipment
        self._options = options
        self._how = how
        self._buffer_size = how.buffersize or max(BUFFER_SIZE, 2 * (how.chunksize or 1))
        self._total = _length(iterables)
        self._runs_all = self._total is not None and how.buffersize is None
        if self._runs_all:  # Then items may be taken in another thread, and are those of now.
            iterables = tuple(part if type(part) in _PLAIN else list(part) for part in iterables)
        self._has_one = len(iterables) == 1
        self._items: Iterator[Any] = iter(iterables[0]) if self._has_one else zip(*iterables)  # noqa: B905  As `map`.
        self._taken = 0
        self._buffered = 0  # items whose results have not been consumed
        self._chunks: deque[TaskFuture[Any]] = deque()  # in the order of their items
        # Of each: its first item, how many, and of a single one the arguments, to tell which failed.
        self._places: dict[Future[Any], tuple[int, int, list[Any] | None]] = {}
        self._filling = threading.Lock()  # held while chunks are started
        self._counting = threading.Lock()  # guards the next one
        self._running = 0
        # One for each chunk that has ended: in order, it says no more than that one has.
        self._ended: queue.SimpleQueue[TaskFuture[Any] | None] = queue.SimpleQueue()
        self._is_exhausted = False
        self._is_over = False  # Its results are not wanted any more.
        self._all_started = Latch()
        self._failure: Exception | None = None  # of an item that cannot be sent, say
        self._raised_at_end: Exception | None = None  # by the items, in its turn
        facts = engine.facts(options)
        self._workers, self._looked_at = facts.workers, time.monotonic()
        self._pace = Pace()  # of these calls: with others, the function may have been quicker.
        size = how.chunksize and min(how.chunksize, self._buffer_size)
        if size is None and options.timeout_s is not None:
            size = 1  # Each has that time for itself.
        longest = min(MAX_CHUNK, self._buffer_size // 4, facts.max_tasks or MAX_CHUNK)
        known = facts.workers, self._total, engine.chunk_s, facts.max_frame
        self._sizes = ChunkSizes(size, longest, self._pace, *known)
        function = shipment.dump_function(facts.python)
        # Each chunk takes it along as it is now.
        self._function = function._replace(buffers=Parts(function.buffers, may_share=False).load())
        self._bar = Bar(self._total, shipment.name) if how.progress else None
        try:
            self._fill()
            if self._failure is not None and not isinstance(self._failure, TaskNotSendable):
                raise self._failure
        except BaseException as error:
            self._stop(error)
            raise

    def cancel(self) -> None:
        """Cancel the chunks that have not begun, and start no more."""
        self._is_over = True
        if self._bar is not None:
            self._bar.close()
        self._all_started.set()
        for future in list(self._chunks):
            future.cancel()

    def _stop(self, error: BaseException) -> None:
        """Start no more, since its user got an error, or will take no more. Ctrl-C stops what runs, too."""
        try:
            self.cancel()
            if isinstance(error, KeyboardInterrupt):
                for future in list(self._chunks):
                    future.kill()
        except BaseException:  # Ctrl-C came only now.
            self.cancel()
            raise

    def wait_until_started(self) -> None:
        """If all items are to run, wait until the last chunk has been started, or no more will be."""
        if self._runs_all:
            self._all_started.wait()

    # Taking results

    def __iter__(self) -> Iterator[Any]:
        try:
            while self._chunks or self._fill(wait=True):
                future = self._next_chunk()
                first, count, arguments = self._places.pop(future)
                values, failures = results_of(future, count)
                if failures:
                    tell_items(failures, first, self._call(arguments))
                del arguments
                self._fill()
                values.reverse()
                for number in sorted(failures):
                    while count - len(values) < number:
                        yield values.pop()
                    if not self._how.return_exceptions:
                        raise failures[number]
                    values[-1] = failures.pop(number)
                while values:  # What has been consumed is not held any longer.
                    yield values.pop()
                self._buffered -= count
                self._fill()  # If the buffer was full, it is not any more.
            if self._bar is not None:
                self._bar.end_at(self._taken)
            if (error := self._failure or self._raised_at_end) is not None:
                raise error
        except BaseException as error:
            self._stop(error)
            raise

    def _next_chunk(self) -> TaskFuture[Any]:
        """The next chunk whose results are there. Raises TimeoutError."""
        while not (self._how.ordered and self._chunks[0].done()):
            try:
                left_s = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
                future = self._ended.get(timeout=left_s)
            except queue.Empty:
                raise TimeoutError(
                    "the results were not there in time; what has begun goes on. To have functions stopped, "
                    "give them a time limit: @compute_this(timeout=...) or PoolExecutor(timeout=...)"
                ) from None
            if future is not None:
                self._chunks.remove(future)
                return future
            self._fill()
        return self._chunks.popleft()

    # Starting chunks

    def _fill(self, *, wait: bool = False) -> bool:
        """Start chunks, as many as are good to have under way, unless another thread is at it (or `wait`).

        Whether there are any.
        """
        while self._filling.acquire(blocking=wait):
            try:
                self._start_chunks()
            finally:
                self._filling.release()
            if not self._runs_low():  # Chunks that ended in the last moment have found this thread at it.
                break
            wait = False
        return bool(self._chunks)

    def _runs_low(self) -> bool:
        """Whether more must be started although nobody takes results, or not as fast as they come."""
        return self._runs_all and self._running < self._at_once // 2 and not self._all_started.is_set()

    @property
    def _at_once(self) -> int:
        """How many chunks may be under way: two for each worker, and those that are on the network."""
        on_network = self._engine.distance.round_trip_s / self._engine.chunk_s
        return 2 + int(self._workers * (2 + on_network))

    def _start_chunks(self) -> None:
        while not (self._is_exhausted or self._is_over) and self._running < self._at_once:
            if not self._runs_all and self._chunks and self._chunks[0].done():
                return  # It ran in place, say: whoever takes results has some, and may want no more.
            size = self._sizes.next(self._taken)
            if not self._runs_all and self._buffered and self._buffered + size > self._buffer_size:
                return
            items: list[Any] = []
            try:
                items.extend(itertools.islice(self._items, size))
            except Exception as error:  # What came before, and is in there, has results.
                self._raised_at_end = error
            self._is_exhausted = len(items) < size
            try:
                self._look()
                if items:
                    self._start([items] if self._has_one else list(map(list, zip(*items, strict=True))))
            except Exception as error:
                self._failure, self._is_exhausted = error, True
        if self._is_exhausted:
            self._all_started.set()

    def _look(self) -> None:
        """A Dask cluster may have grown."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_S:
            self._looked_at = now
            with contextlib.suppress(PoolError):  # It goes on with what is known.
                self._workers = self._engine.facts(self._options).workers

    def _start(self, columns: list[list[Any]]) -> None:
        """Start a chunk: for each parameter, a list of its values."""
        count = len(columns[0])
        try:
            parcel = self._engine.parcel_chunk(self._shipment, self._function, columns, self._options)
        except TaskNotSendable as error:
            if count > 1:  # That one fails, the others are sent.
                for number in range(count):
                    self._start([[column[number]] for column in columns])
                return
            tell_items({0: error}, self._taken, self._call([column[0] for column in columns]))
            if not self._how.return_exceptions:
                raise
            refused: TaskFuture[Any] = TaskFuture()
            self._note(refused, columns)
            refused.set_exception(error)
            return
        self._sizes.note(count, len(parcel.arguments) + (0 if parcel.large is None else parcel.large.size))
        task = Task(self._shipment.name, parcel, self._pace, self._options, count)
        self._note(task.future, columns)
        if self._is_over:  # It was cancelled meanwhile, and this one was not among those that there were.
            task.future.cancel()
        try:
            self._engine.add(task, goes_on=self._runs_all)
        except Exception as error:
            task.fail(error)
            raise
        except BaseException:  # Ctrl-C: it may have been posted.
            task.future.cancel()
            raise

    def _call(self, arguments: list[Any] | None) -> str | None:
        return None if arguments is None else call_text(self._shipment.name, arguments)

    def _note(self, future: TaskFuture[Any], columns: list[list[Any]]) -> None:
        """Take a chunk in that is under way."""
        count = len(columns[0])
        arguments = [column[0] for column in columns] if count == 1 else None
        self._places[future] = self._taken, count, arguments
        self._taken += count
        self._buffered += count
        with self._counting:
            self._running += 1
        self._chunks.append(future)
        if (bar := self._bar) is not None:
            future.add_done_callback(lambda _: bar.add(count))
        Future.add_done_callback(future, self._end)  # In the very thread in which it ends.

    def _end(self, future: Any) -> None:
        """Called when a chunk has ended, in the thread in which it did."""
        with self._counting:
            self._running -= 1
        self._ended.put(None if self._how.ordered else future)
        if not may_go_on(future):
            self._all_started.set()  # Whoever takes results may still go on.
        if self._runs_low():
            self._fill()


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, if that is known."""
    try:
        return min(map(len, iterables))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
