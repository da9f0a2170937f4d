"""Memory that two processes of one machine see: anonymous files, which one writes and the other maps.

region   process (4), descriptor (4), device (8), inode (8), stamp (8), count (4), size of each (8)
file     the stamp (8), and from 64 on the buffers, each beginning at a multiple of 64
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import signal
import stat
import struct
import threading
import weakref
from collections.abc import Sequence

MAX_OPEN = 64  # Each takes one or two descriptors. What is beyond that goes the other way.
MAX_SPARE = 4  # How many files are kept,
MIN_SPARE_BYTES = 1 << 18  # how large each is at least,
MAX_SPARE_BYTES = 32 << 20  # and all together at most.

Buffer = bytes | bytearray | memoryview

_COUNT = struct.Struct("!I")
_REGION = struct.Struct("!IIQQ8s")
_ALIGNMENT = 64  # The stamp takes the first of these.
_STAMP_BYTES = 8


class _File:
    """An anonymous file of ours."""

    def __init__(self, stamp: bytes, size: int) -> None:
        """Raises OSError if the system has no such files, or no memory."""
        self.size = size
        self.process = os.getpid()
        self._has_pages = False
        self._mapping: mmap.mmap | None = None
        made = os.memfd_create("buffers", os.MFD_CLOEXEC)
        try:
            # Opened once more it counts as open for writing, which a lease takes into account.
            self.descriptor = os.open(f"/proc/self/fd/{made}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(made)
        try:
            _write(self.descriptor, stamp, 0)
            self.status = os.fstat(self.descriptor)
        except BaseException:
            os.close(self.descriptor)
            raise

    def write(self, offsets: Sequence[int], buffers: Sequence[Buffer]) -> None:
        """Put buffers in. The first time the system finds pages for them; later it is not needed any more."""
        if not self._has_pages:
            for offset, buffer in zip(offsets, buffers, strict=True):
                _write(self.descriptor, buffer, offset)
            self._has_pages = True
            return
        if self._mapping is None:
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._mapping = mmap.mmap(self.descriptor, self.size, flags=flags)
        with memoryview(self._mapping) as view:
            for offset, buffer in zip(offsets, buffers, strict=True):
                view[offset : offset + len(buffer)] = buffer

    def claim(self, stamp: bytes) -> bool:
        """Stamp it anew, unless another process has it open, or mapped; whether that was done."""
        try:
            # Who opens a leased file has the holder be sent a signal: it shall be one that harms nobody.
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except (OSError, ValueError):  # Somebody has it, or it was closed meanwhile.
            return False
        try:
            os.pwrite(self.descriptor, stamp, 0)
        finally:
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    def close(self) -> None:
        """Close it. A process that has it open keeps it."""
        if self._mapping is not None:
            self._mapping.close()
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)


class _Spares:
    """The files that are kept, those that were put here last at the end."""

    def __init__(self) -> None:
        # The collector of garbage may end a region at any time, also in a thread that is busy here.
        self._lock = threading.RLock()
        self._files: list[_File] = []
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def take(self, size: int, stamp: bytes) -> _File | None:
        """A file of `size` bytes, or some more, with that stamp."""
        with self._lock:
            for file in reversed(list(self._files)):
                is_fit = size <= file.size <= 2 * size and file in self._files
                if is_fit and file.claim(stamp) and file in self._files:
                    self._files.remove(file)
                    return file
        return None

    def put(self, file: _File) -> None:
        """Keep a file that is not needed any more, instead of those that have been here longest."""
        if not MIN_SPARE_BYTES <= file.size <= MAX_SPARE_BYTES or file.process != os.getpid():
            file.close()
            return
        with self._lock:
            self._files.append(file)
            while len(self._files) > MAX_SPARE or sum(kept.size for kept in self._files) > MAX_SPARE_BYTES:
                self._files.pop(0).close()

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            while self._files:
                self._files.pop().close()

    def _leave_to_parent(self) -> None:
        self._lock = threading.RLock()
        self.clear()


_spares = _Spares()
let_go = _spares.clear  # Give back the memory that is kept for regions to come.


class Region:
    """A file in memory that holds buffers. It may become another region when nobody uses it any more."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        """Raises OSError if the system has no such files, or no memory."""
        self._sizes = [len(buffer) for buffer in buffers]
        self._stamp = os.urandom(_STAMP_BYTES)
        self._offsets = _offsets(self._sizes)
        size = self._offsets[-1] + self._sizes[-1]
        self._file = file = _spares.take(size, self._stamp) or _File(self._stamp, size)
        keep = weakref.finalize(self, _spares.put, file)
        try:
            file.write(self._offsets, buffers)
        except BaseException:
            if keep.detach() is not None:
                file.close()
            raise
        _regions.add(self)

    def describe(self) -> bytes:
        """Where another process finds it."""
        file = self._file
        where = os.getpid(), file.descriptor, file.status.st_dev, file.status.st_ino
        return _REGION.pack(*where, self._stamp) + pack_sizes(self._sizes)

    def read(self) -> list[bytearray]:
        """The buffers, copied out of it. Raises OSError in a forked child, if it is another region by now."""
        file = self._file.descriptor
        if os.pread(file, _STAMP_BYTES, 0) != self._stamp:
            raise OSError("the file with these buffers is the parent's, which uses it for others by now")
        return list(map(_read, itertools.repeat(file), self._sizes, self._offsets))


# Regions of ours, and mappings of others'. Who is forgotten here is not in use any more.
_regions: weakref.WeakSet[Region] = weakref.WeakSet()
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def is_full() -> bool:
    """Whether there are as many regions of ours as may be."""
    return len(_regions) >= MAX_OPEN


def open_region(description: memoryview, *, is_writable: bool = True) -> list[Buffer]:
    """The buffers in another process's region. Raises ValueError, OSError or struct.error."""
    process, descriptor, device, inode, stamp = _REGION.unpack_from(description)
    sizes, rest = unpack_sizes(description[_REGION.size :])
    if rest:
        raise ValueError("more than the description of a file")
    offsets = _offsets(sizes)
    size = offsets[-1] + sizes[-1]
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    file = os.open(f"/proc/{process}/fd/{descriptor}", flags)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("its buffers are in no file")
        is_it = (status.st_dev, status.st_ino) == (device, inode) and status.st_size >= size
        if not is_it or os.pread(file, _STAMP_BYTES, 0) != stamp:
            raise ValueError("the file with its buffers is another one by now")
        if len(_mappings) >= MAX_OPEN:  # Python keeps a descriptor for each.
            copies = list(map(_read, itertools.repeat(file), sizes, offsets))
            return [copy if is_writable else memoryview(copy).toreadonly() for copy in copies]
        # What is written to a private one is copied, page by page: it is seen by nobody else.
        protection = mmap.PROT_READ | mmap.PROT_WRITE * is_writable
        mapping = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=protection)
    finally:
        os.close(file)
    _mappings.add(mapping)
    view = memoryview(mapping)
    return [view[offset : offset + size] for size, offset in zip(sizes, offsets, strict=True)]


def pack_sizes(sizes: Sequence[int]) -> bytes:
    """The sizes of buffers: how many there are, and each."""
    return _COUNT.pack(len(sizes)) + struct.pack(f"!{len(sizes)}Q", *sizes)


def unpack_sizes(data: memoryview) -> tuple[list[int], memoryview]:
    """Read the output of `pack_sizes`, and return the rest, too. Raises ValueError or struct.error."""
    (count,) = _COUNT.unpack_from(data)
    start, end = _COUNT.size, _COUNT.size + 8 * count
    if not 0 < count <= len(data) // 8:
        raise ValueError("no sizes of buffers")
    return list(struct.unpack(f"!{count}Q", data[start:end])), data[end:]


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Where each buffer begins in a file."""
    offsets, end = [], _STAMP_BYTES
    for size in sizes:
        offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = offsets[-1] + size
    return offsets


def _write(descriptor: int, buffer: Buffer, offset: int) -> None:
    view = memoryview(buffer)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read(descriptor: int, size: int, offset: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise OSError("the file has become shorter")
        view, offset = view[count:], offset + count
    return buffer
