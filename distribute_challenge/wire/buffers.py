"""Large buffers, which travel beside the pickle that refers to them (protocol 5's out-of-band buffers).

Between two processes of one machine they go through shared memory: an anonymous file in memory, which the
other process opens through `/proc`, by the number that it has in ours. It has no name and so leaves nothing
behind, whoever dies. The receiver looks whether it is the very file that was meant before it trusts it; the
sender keeps it until it knows that it was opened. Elsewhere the buffers follow the pickle in the message.

    nothing   no bytes
    in place  `i`, count (4), size of each (8), their bytes one after another
    shared    `s`, process (4), descriptor (4), device (8), inode (8), count (4), size of each (8);
              in the file each begins at a multiple of 64
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import stat
import struct
import weakref
from collections.abc import Callable, Iterable, Sequence

LARGE_BYTES = 1 << 18  # Smaller ones stay in the pickle.
MAX_OPEN = 64  # Each takes a descriptor. What is beyond that goes the other way.

_IN_PLACE, _SHARED = b"i", b"s"
_COUNT = struct.Struct("!I")
_FILE = struct.Struct("!IIQQ")
_ALIGNMENT = 64
_SECRET_BYTES = 16

Buffer = bytes | bytearray | memoryview


class Region:
    """A file in memory that holds buffers. It is closed when nobody uses it any more."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        """Raises OSError if the system has no such files, or no memory."""
        self._sizes = [len(buffer) for buffer in buffers]
        self._descriptor = os.memfd_create("buffers", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        for offset, buffer in zip(_offsets(self._sizes), buffers, strict=True):
            _write(self._descriptor, buffer, offset)
        self._status = os.fstat(self._descriptor)
        _regions.add(self)

    def describe(self) -> bytes:
        """Where another process finds it."""
        status = self._status
        head = _FILE.pack(os.getpid(), self._descriptor, status.st_dev, status.st_ino)
        return b"".join((_SHARED, head, _pack_sizes(self._sizes)))

    def read(self) -> list[bytearray]:
        """The buffers, copied out of it."""
        return [
            _read(self._descriptor, size, offset)
            for size, offset in zip(self._sizes, _offsets(self._sizes), strict=True)
        ]


# Regions of ours, and mappings of others'. Who is forgotten here has been closed.
_regions: weakref.WeakSet[Region] = weakref.WeakSet()
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class Probe:
    """A region with a secret in it: whoever can tell the secret can open our files."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError if there are no such files here."""
        self.secret = os.urandom(_SECRET_BYTES)
        self._region = Region([self.secret])
        self.description = self._region.describe()


def tell_secret(description: bytes) -> bytes | None:
    """The secret of another process's probe; None if it cannot be opened from here."""
    try:
        (secret,) = unpack(memoryview(description))
        return bytes(secret[:_SECRET_BYTES])
    except ValueError:
        return None


class Parts:
    """The large buffers of one call or outcome, as they were when this was made: theirs may change again."""

    __slots__ = ("_copies", "region", "size")

    def __init__(self, buffers: Iterable[pickle.PickleBuffer | Buffer], *, may_share: bool) -> None:
        views = [_raw(buffer) for buffer in buffers]
        self.size = sum(map(len, views))
        self.region: Region | None = None
        self._copies: list[bytes] = []
        if views and may_share and len(_regions) < MAX_OPEN:
            with contextlib.suppress(OSError, AttributeError):  # No such files here, or no descriptors left.
                self.region = Region(views)
        if self.region is None:
            self._copies = [bytes(view) for view in views]

    def pack(self, *, can_share: bool) -> list[bytes]:
        """As bytes, one after another, for a receiver that can open our files or cannot."""
        if not self.size:
            return []
        if can_share and self.region is not None:
            return [self.region.describe()]
        copies: Sequence[Buffer] = self._copies if self.region is None else self.region.read()
        return [_IN_PLACE, _pack_sizes([len(copy) for copy in copies]), *map(bytes, copies)]

    def load(self) -> list[Buffer]:
        """The buffers, for who may write to them."""
        return [bytearray(copy) for copy in self._copies] if self.region is None else [*self.region.read()]


class Collector:
    """Takes the large buffers out of a pickle: what is to be its `buffer_callback`."""

    def __init__(self) -> None:
        self.buffers: list[pickle.PickleBuffer] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer stays in the pickle."""
        try:
            if buffer.raw().nbytes < LARGE_BYTES:
                return True
        except BufferError:  # It is in pieces.
            return True
        self.buffers.append(buffer)
        return False


class LargeBytes:
    """Stands in a pickle for a bare `bytes`, which else would stay in it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Callable[..., bytes], tuple[pickle.PickleBuffer]]:
        return bytes, (pickle.PickleBuffer(self._data),)


class BytesWrapper:
    """Wraps the large `bytes` of one pickle for its `Collector`, the same ones always in the same wrapper."""

    def __init__(self) -> None:
        self._wrappers: dict[int, LargeBytes] = {}

    def __call__(self, value: object) -> object:
        """A value as it is to be pickled."""
        if type(value) is not bytes or len(value) < LARGE_BYTES:
            return value
        return self._wrappers.setdefault(id(value), LargeBytes(value))


def unpack(section: memoryview) -> list[Buffer]:
    """The buffers, writable. Raises ValueError if that is not what `pack` made, or the file is not there."""
    if not section:
        return []
    try:
        if section[:1] == _SHARED:
            return _open(section[1:])
        sizes, rest = _unpack_sizes(section[1:])
        if section[:1] != _IN_PLACE or sum(sizes) != len(rest):
            raise ValueError("buffers of another size")
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        return [bytearray(rest[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
    except (OSError, struct.error) as error:
        raise ValueError(f"the buffers beside it cannot be read ({error})") from None


def _open(description: memoryview) -> list[Buffer]:
    process, descriptor, device, inode = _FILE.unpack_from(description)
    sizes, rest = _unpack_sizes(description[_FILE.size :])
    if rest:
        raise ValueError("more than the description of a file")
    offsets = _offsets(sizes)
    size = offsets[-1] + sizes[-1]
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    file = os.open(f"/proc/{process}/fd/{descriptor}", flags)
    try:
        status = os.fstat(file)
        if (status.st_dev, status.st_ino, status.st_size) != (device, inode, size):
            raise ValueError("the file with its buffers is another one by now")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("its buffers are in no file")
        if len(_mappings) >= MAX_OPEN:  # Python keeps a descriptor for each.
            return [_read(file, size, offset) for size, offset in zip(sizes, offsets, strict=True)]
        # What is written to a private one is copied, page by page: it is seen by nobody else.
        mapping = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(file)
    _mappings.add(mapping)
    view = memoryview(mapping)
    return [view[offset : offset + size] for size, offset in zip(sizes, offsets, strict=True)]


def _raw(buffer: pickle.PickleBuffer | Buffer) -> memoryview:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Where each buffer begins in a file."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = offsets[-1] + size
    return offsets


def _pack_sizes(sizes: Sequence[int]) -> bytes:
    return _COUNT.pack(len(sizes)) + struct.pack(f"!{len(sizes)}Q", *sizes)


def _unpack_sizes(data: memoryview) -> tuple[list[int], memoryview]:
    (count,) = _COUNT.unpack_from(data)
    start, end = _COUNT.size, _COUNT.size + 8 * count
    if not 0 < count <= len(data) // 8:
        raise ValueError("no sizes of buffers")
    return list(struct.unpack(f"!{count}Q", data[start:end])), data[end:]


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
