"""`map`: items into chunks, chunks into tasks, and their results one by one as they come.

At every moment only a bounded number of items is under way or waits to be consumed. The size of a chunk
follows how long the function takes: about 10 ms of work, so that what a chunk costs beside it is small, and
no worker sits on a long one while others have nothing to do.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from distribute_challenge.client.options import Options
from distribute_challenge.client.shipping import Shipment
from distribute_challenge.client.tasks import Task
from distribute_challenge.wire.transport import MEBI

if TYPE_CHECKING:
    from distribute_challenge.client.pool import PoolExecutor

CHUNK_S = 0.01
MAX_CHUNK = 2000
MAX_GROWTH = 8  # from one chunk to the next
BUFFER_SIZE = 10_000


class Mapping:
    """One `map`. It begins at once; iterating gives the results."""

    def __init__(
        self,
        pool: PoolExecutor,
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
        self._items: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905  As `map` has it.
        self._taken = 0
        self._last_size = 1
        self._bytes_per_item = 0.0
        self._buffered = 0  # items whose results have not been consumed
        self._chunks: deque[Task] = deque()  # in the order of their items
        self._running = 0
        self._ended: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._is_exhausted = False
        self._is_full = False  # The buffer is: nothing starts before some of it is consumed.
        self._workers = pool.workers()
        self._max_chunk = pool.max_chunk() or MAX_CHUNK
        self._function = shipment.dump_function(pool.python)
        self._fill()

    def __iter__(self) -> Iterator[Any]:
        results = self._results()
        if not self._shows_progress:
            return results
        from tqdm import tqdm  # Late: only a bar needs it.

        return iter(tqdm(results, total=self._total, desc=self._shipment.name))

    def _results(self) -> Iterator[Any]:
        try:
            while self._chunks:
                task = self._next_chunk()
                pairs = task.future.result()
                del task  # While its results are consumed, nothing else holds them.
                self._fill()
                for number, (has_returned, value) in enumerate(pairs):
                    pairs[number] = None
                    self._buffered -= 1
                    if self._is_full and 2 * self._buffered <= self._buffer_size:
                        self._fill()
                    if not has_returned and not self._returns_exceptions:
                        raise value
                    yield value
                    del value
        finally:
            for task in self._chunks:
                task.future.cancel()

    def _next_chunk(self) -> Task:
        """The next chunk whose results are there. Raises TimeoutError."""
        while True:
            if self._is_ordered and self._chunks[0].future.done():
                return self._chunks.popleft()
            try:
                left_s = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
                task = self._ended.get(timeout=left_s)
            except queue.Empty:
                raise TimeoutError("the results were not there in time") from None
            self._running -= 1
            if not self._is_ordered:
                self._chunks.remove(task)
                return task
            self._fill()

    def _fill(self) -> None:
        """Start chunks, as many as are good to have under way."""
        with contextlib.suppress(queue.Empty):
            while self._is_ordered:
                self._ended.get_nowait()
                self._running -= 1
        while not self._is_exhausted and self._running < 2 * self._workers + 2:
            size = self._next_size()
            self._is_full = self._buffered > 0 and self._buffered + size > self._buffer_size
            if self._is_full:
                return
            items = list(itertools.islice(self._items, size))
            self._is_exhausted = len(items) < size
            if items:
                self._start(items)

    def _start(self, items: list[tuple[Any, ...]]) -> None:
        parcel = self._pool.parcel_chunk(self._shipment, self._function, items, self._options.prints)
        self._bytes_per_item = len(parcel.call.arguments) / len(items)
        self._last_size = len(items)
        self._taken += len(items)
        self._buffered += len(items)
        self._running += 1
        task = Task(self._shipment.name, parcel, self._shipment.pace, self._options, len(items))
        self._chunks.append(task)
        ended = self._ended

        def end(_: Future[Any]) -> None:
            ended.put(task)

        task.future.add_done_callback(end)
        self._pool.add(task)

    def _next_size(self) -> int:
        """How many items the next chunk takes."""
        if self._chunk_size is not None:
            return self._chunk_size
        pace_s = self._shipment.pace.seconds
        if pace_s is None:
            return 1
        size = min(int(CHUNK_S / max(pace_s, 1e-9)), MAX_CHUNK, MAX_GROWTH * self._last_size)
        if self._bytes_per_item:
            size = min(size, int(MEBI / self._bytes_per_item))
        if self._total is not None:  # Near the end, all workers shall end together.
            size = min(size, (self._total - self._taken) // (2 * self._workers))
        return max(min(size, self._buffer_size // 4, self._max_chunk), 1)


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many items there will be, if that is known."""
    try:
        return min(map(len, iterables))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
