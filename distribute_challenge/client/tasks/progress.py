"""Bars: how much has finished, whoever reads the results, and when."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, as_completed
from typing import Any

LATE_S = 1.0  # So long the end of a map waits for its bar: callbacks of futures may take long.


class Bar:
    """A bar of tqdm's, in a terminal or a notebook. It ends when all has finished. Any thread may add."""

    def __init__(self, total: int | None, name: str | None) -> None:
        from tqdm.auto import tqdm  # Late: only a bar needs it.

        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._tqdm: Any = tqdm(total=total, desc=name)
        if total == 0:
            self.close()

    def add(self, count: int) -> None:
        """So many more have finished."""
        with self._lock:
            if not self._tqdm.disable:  # It is over.
                self._tqdm.update(count)
                self._look()

    def end_at(self, total: int) -> None:
        """So many are all, and have finished: those who add may be about to."""
        with self._lock:
            self._tqdm.total = total
            self._look()
        self._is_over.wait(LATE_S)

    def close(self) -> None:
        """It ends here, since no more will finish. Harmless to repeat."""
        with self._lock:
            self._tqdm.close()
            self._is_over.set()

    def _look(self) -> None:
        if self._tqdm.total is not None and self._tqdm.n >= self._tqdm.total:
            self._tqdm.close()
            self._is_over.set()


def progress(futures: Iterable[Future[Any]], desc: str | None = None) -> None:
    """Show a bar of these futures, called `desc`, until all have ended, however that is.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as pool:
    ...     futures = [pool.submit(pow, 2, n) for n in range(3)]
    ...     progress(futures, "powers")
    >>> [future.result() for future in futures]
    [1, 2, 4]
    """
    every = list(dict.fromkeys(futures))
    for future in every:
        if not isinstance(future, Future):
            raise TypeError(f"progress takes futures, as `submit` gives them, not {future!r}")
    bar = Bar(len(every), desc)
    try:
        for future in as_completed(every):
            del future
            bar.add(1)
    finally:
        bar.close()
