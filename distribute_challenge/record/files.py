"""The files that a server writes: a profile, and its tasks beside it. Those of an earlier run are renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
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
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            raise _in_use() from None
        self._file: FileIO | None = FileIO(descriptor, "a")
        try:
            _lock(descriptor, path)  # Another server may have taken it for one of an earlier run.
            self._append(self._header)
        except BaseException:
            self.close()
            raise

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
    with contextlib.ExitStack() as held:
        old_profile = held.enter_context(_held(path))  # First: `/` has no name to name its tasks after.
        old_tasks = held.enter_context(_held(tasks_path(path)))
        if old := old_profile or old_tasks:
            older = name_for_older(path, old.st_mtime)
            if old_profile:
                path.rename(older)
            if old_tasks:
                tasks_path(path).rename(tasks_path(older))
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


@contextlib.contextmanager
def _held(path: Path) -> Iterator[os.stat_result | None]:
    """Keep what is there of an earlier run from other servers. None: nothing is there."""
    try:
        is_plain = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        if not path.is_symlink():
            yield None
            return
        is_plain = False
    if not is_plain:
        raise OSError(errno.EEXIST, "what is there is not a plain file")
    access = "rb+" if os.access(path, os.W_OK) else "rb"  # Some file systems lock only what may be written.
    try:
        file = path.open(access)
    except FileNotFoundError:
        raise _in_use() from None
    with file:
        _lock(file.fileno(), path)
        yield os.fstat(file.fileno())


def _lock(descriptor: int, path: Path) -> None:
    """Lock what was opened at that path. Raises OSError if another server has, or has renamed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:
        raise _in_use()


def _in_use() -> OSError:
    return OSError(errno.EBUSY, "another server writes it")
