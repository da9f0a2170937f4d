"""The files that a server writes: a profile, and its tasks beside it. Those of an earlier run are renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from io import FileIO
from pathlib import Path

from distribute_challenge.record import profile, tasks
from distribute_challenge.record.tasks import tasks_path

log = logging.getLogger(__name__)

_LONGEST_ROW = 1 << 20


class RecordFile:
    """A file to which rows are appended, each time with one system call, locked for as long as it is open.

    It has no buffer: after a full disk, nothing is left in it that could fail again. A failure is logged
    once, and the record ends there. If somebody cuts it, it goes on after the last whole row. Making it
    raises OSError.
    """

    def __init__(self, path: Path, header: str) -> None:
        self._path = path
        self._header = header.encode()
        self._size = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._file: FileIO | None = FileIO(descriptor, "a")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._append(self._header)

    def write(self, text: str) -> None:
        """Append rows."""
        if self._file is None or not text:
            return
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size < self._size:
                self._mend(size)
            self._append(text.encode())
        except OSError as error:
            log.error("the record %s ends here (%s); the pool works on", self._path, error.strerror)
            self.close()

    def _mend(self, size: int) -> None:
        """Leave whole rows of a file that was cut to `size` bytes, and the header."""
        assert self._file is not None
        looked_at = min(size, _LONGEST_ROW)
        end = os.pread(self._file.fileno(), looked_at, size - looked_at)
        self._size = size - looked_at + end.rfind(b"\n") + 1
        if self._size < size:
            os.ftruncate(self._file.fileno(), self._size)
        if not self._size:
            self._append(self._header)

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        written = self._file.write(data)
        self._size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, "no space left for the rest of a row")

    def close(self) -> None:
        """End the record. Harmless to repeat."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # A remote file system tells only now; it was said before.
                file.close()


def open_record(path: Path) -> tuple[RecordFile, RecordFile]:
    """A new profile and the file of its tasks. Those that are there already are renamed first.

    Raises OSError; also if what is there is no plain file, or another server writes it.
    """
    if path.exists():
        _check_unused(path)  # First: `/` has no name after which its tasks could be named.
    places = (path, tasks_path(path))
    there = [place for place in places if place.exists()]
    if places[1] in there:
        _check_unused(places[1])
    if there:
        older = name_for_older(path, there[0].stat().st_mtime)
        for place, new in zip(places, (older, tasks_path(older)), strict=True):
            if place in there:
                place.rename(new)
    record = RecordFile(path, profile.HEADER)
    try:
        return record, RecordFile(tasks_path(path), tasks.HEADER)
    except BaseException:
        record.close()
        raise


def name_for_older(path: Path, changed_at: float) -> Path:
    """`NAME.<time>.csv`, the time being that of the last change; neither it nor its tasks exist."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(changed_at))
    older = path.with_name(f"{path.stem}.{stamp}{path.suffix}")
    number = 1
    while older.exists() or tasks_path(older).exists():
        number += 1
        older = path.with_name(f"{path.stem}.{stamp}-{number}{path.suffix}")
    return older


def _check_unused(path: Path) -> None:
    if not path.is_file():
        raise OSError(errno.EEXIST, "what is there is not a plain file")
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another server writes it") from None
