"""How many items of a map travel together, what becomes of them, and what is said of one that fails.

A chunk is about 15 ms of work, unless the engine says another time: what it costs beside that is small, and
no worker sits on a long one while others have nothing to do.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

from distribute_challenge import errors
from distribute_challenge.calls.payload import MAX_BYTES, ChunkResults, RemoteTraceback
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.errors import AccessDenied, ServerUnavailable
from distribute_challenge.wire.stream import MEBI

CHUNK_S = 0.015
CHUNK_BYTES = 16 * MEBI
MAX_GROWTH = 8  # from one chunk to the next


class ChunkSizes:
    """The sizes of a map's chunks: always `given`, or what follows the `pace` of its calls, and `longest`."""

    def __init__(
        self,
        given: int | None,
        longest: int,
        pace: Pace,
        workers: int,
        total: int | None,
        chunk_s: float = CHUNK_S,
        max_frame: int = MAX_BYTES,
    ) -> None:
        self._given = given
        self._longest = longest
        self._pace = pace
        self._workers = workers
        self._total = total
        self._chunk_s = chunk_s
        self._max_bytes = min(CHUNK_BYTES, max_frame // 4)  # The next items may be somewhat larger.
        self._last = 1
        self._bytes_per_item = 0.0

    def note(self, count: int, size_bytes: int) -> None:
        """Take note of a chunk that was sent."""
        self._last = count
        self._bytes_per_item = size_bytes / count

    def next(self, taken: int) -> int:
        """How many items the next chunk takes, after so many that others have taken."""
        if self._given is not None:
            return self._given
        pace_s = self._pace.seconds
        if pace_s is None:
            return 1
        size = min(int(self._chunk_s / max(pace_s, 1e-9)), MAX_GROWTH * self._last, self._longest)
        if self._bytes_per_item:
            size = min(size, int(self._max_bytes / self._bytes_per_item))
        if self._total is not None:  # Near the end, all workers shall end together.
            size = min(size, (self._total - taken) // (2 * self._workers))
        return max(size, 1)


def tell_items(failures: dict[int, BaseException], first: int, only: str | None = None) -> None:
    """Have each exception of a chunk say which items of the map it is about; the chunk's first is `first`.

    `only` is the call of a chunk that has no other. What a function raised brings its call along.
    """
    for number, error in failures.items():
        cause = error.__cause__
        call = (cause.call if isinstance(cause, RemoteTraceback) else None) or only
        if call is not None or len(failures) == 1:
            text = f"item {first + number} of the map" + ("" if call is None else f": {call}")
        elif number == min(failures):  # One for all of a chunk.
            text = f"items {first} to {first + max(failures)} of the map"
        else:
            continue
        if isinstance(cause, RemoteTraceback):
            cause.item = first + number
        try:
            noted: Any = error
            noted.add_note(text)
        except Exception:  # Python 3.10 has no notes, and an exception may have fixed attributes.
            if isinstance(cause, RemoteTraceback):
                cause.text += f"\n{text}"


def results_of(future: Future[Any], count: int) -> ChunkResults:
    """What became of the `count` items of a chunk that has ended."""
    error = CancelledError() if future.cancelled() else future.exception()
    if error is not None:  # The whole chunk is lost.
        return ChunkResults([None] * count, dict.fromkeys(range(count), error))
    results: ChunkResults = future.result()
    return results


def may_go_on(future: Future[Any]) -> bool:
    """Whether a chunk has not ended because of something that ends all others, too."""
    if future.cancelled():
        return False
    error = future.exception()
    ends_all = (ServerUnavailable, AccessDenied, errors.InitializerFailed) if error else ()
    return not isinstance(error, ends_all)
