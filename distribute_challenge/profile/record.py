"""The profile's format, and its writer.

One row for each change of the busy list. The columns, the first without a name:

    (none)      the row's number, from 0
    Timestamp   Unix seconds; never falls
    Busy        JSON list, one 0 or 1 for each worker: 1 while it cannot be handed out
    Finished    how many tasks have finished
    Failed      how many have failed
    Waiting     how many clients are in line
    CPU         JSON list, percent for each worker; empty but on samples
    Memory      JSON list, resident bytes of each worker; empty but on samples
    Event       what the row records: start, sample, acquire, free, lost, replaced or stop

Rows are appended and flushed, never rewritten, so that a row costs the same whatever came before and a
killed server leaves a readable file. Whoever has something to record only appends to a queue; one thread
formats and writes.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import logging
import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple, TextIO

log = logging.getLogger(__name__)

COLUMNS = ("", "Timestamp", "Busy", "Finished", "Failed", "Waiting", "CPU", "Memory", "Event")


class Change(NamedTuple):
    """What one row records. `worker` is the one concerned, None if none is."""

    event: str
    worker: int | None
    busy: int
    finished: int
    failed: int
    waiting: int


class Clock:
    """Unix time that never goes back, whatever happens to the system's clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._offset + time.monotonic()


class Recorder:
    """Writes a profile in a thread of its own.

    `path` is None where nothing is to be recorded. Opening raises OSError; a failure later, a full disk say,
    is logged once and the record ends there.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> recorder = Recorder(Path(folder.name) / "results_2.csv", workers=2)
    >>> recorder.record(Change("acquire", 0, 1, 0, 0, 0))
    >>> recorder.close()
    >>> print((Path(folder.name) / "results_2.csv").read_text().splitlines()[1].split(",", 2)[2])
    "[1, 0]",0,0,0,,,acquire
    """

    def __init__(self, path: Path | None, workers: int) -> None:
        self.path = path
        self._clock = Clock()
        self._busy = [0] * workers
        self._rows = 0
        self._changes: queue.SimpleQueue[tuple[float, Change] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if path is None:
            return
        self._file = open_profile(path)
        self._thread = threading.Thread(target=self._write_all, name="profile", daemon=True)
        self._thread.start()

    def record(self, change: Change) -> None:
        """Note a change, now. Cheap; the caller's lock keeps changes in order."""
        if self._thread is not None:
            self._changes.put((self._clock.now(), change))

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._thread is not None:
            self._changes.put(None)
            self._thread.join()

    def _write_all(self) -> None:
        with self._file:
            for_ever = True
            while for_ever:
                batch = [self._changes.get()]
                while not self._changes.empty():
                    batch.append(self._changes.get())
                for_ever = batch[-1] is not None
                try:
                    self._file.write("".join(self._row(*item) for item in batch if item is not None))
                    self._file.flush()
                except OSError as error:
                    log.error("the profile %s ends here (%s); the pool works on", self._file.name, error)
                    self._thread = None
                    return

    def _row(self, timestamp: float, change: Change) -> str:
        if change.worker is not None:
            self._busy[change.worker] = change.busy
        number, self._rows = self._rows, self._rows + 1
        counts = (change.finished, change.failed, change.waiting)
        return _line((number, f"{timestamp:.6f}", json.dumps(self._busy), *counts, "", "", change.event))


def open_profile(path: Path) -> TextIO:
    """A new profile, locked for as long as it is open. One that is there already is renamed first.

    Raises OSError; also if what is there is no plain file, or another server writes it.
    """
    if path.exists():
        if not path.is_file():
            raise OSError(errno.EEXIST, "what is there is not a plain file")
        with path.open() as older:
            try:
                fcntl.flock(older, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EBUSY, "another server writes it") from None
            path.rename(name_for_older(path))
    file = path.open("x", encoding="utf-8", newline="")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(_line(COLUMNS))
    file.flush()
    return file


def name_for_older(path: Path) -> Path:
    """`NAME.<time>.csv`, the time being that of the last change."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    older = path.with_name(f"{path.stem}.{stamp}{path.suffix}")
    number = 1
    while older.exists():
        number += 1
        older = path.with_name(f"{path.stem}.{stamp}-{number}{path.suffix}")
    return older


def _line(values: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
