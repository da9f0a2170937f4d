"""Large buffers, which travel beside the pickle that refers to them (protocol 5's out-of-band buffers).

Between two processes of one machine they go through shared memory; elsewhere they follow the pickle.

    nothing   no bytes
    in place  `i`, count (4), size of each (8), their bytes one after another
    shared    `s`, and where the region with them is: `regions.py` has the format
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pickle
import struct
from collections.abc import Iterable, Sequence

from distribute_challenge.calls.regions import Buffer, Region, is_full, open_region, pack_sizes, unpack_sizes
from distribute_challenge.values.making import StandIn

LARGE_BYTES = 1 << 18  # Smaller ones stay in the pickle.

_IN_PLACE, _SHARED = b"i", b"s"
_SECRET_BYTES = 16


class Unreadable(ValueError):
    """Buffers cannot be read from here: there are no descriptors left, say, or who had them is gone."""

    def __init__(self, message: str, *, is_gone: bool) -> None:
        super().__init__(message)
        self.is_gone = is_gone


class Probe:
    """A region with a secret in it: whoever can tell the secret can open our files."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError if there are no such files here."""
        self.secret = os.urandom(_SECRET_BYTES)
        self._region = Region([self.secret])
        self.description = _SHARED + self._region.describe()


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
        views = [it.raw() if isinstance(it, pickle.PickleBuffer) else memoryview(it) for it in buffers]
        self.size = sum(map(len, views))
        self.region: Region | None = None
        self._copies: list[bytes] = []
        if views and may_share and not is_full():
            with contextlib.suppress(OSError, AttributeError):  # No such files here, or no descriptors left.
                self.region = Region(views)
        if self.region is None:
            self._copies = [bytes(view) for view in views]

    def pack(self, *, can_share: bool) -> list[Buffer]:
        """As bytes, one after another, for a receiver that can open our files or cannot."""
        if not self.size:
            return []
        if can_share and self.region is not None:
            return [_SHARED, self.region.describe()]
        copies: Sequence[Buffer] = self._copies if self.region is None else self.region.read()
        return [_IN_PLACE, pack_sizes([len(copy) for copy in copies]), *copies]

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
            is_large = buffer.raw().nbytes >= LARGE_BYTES
        except BufferError:  # It is in pieces.
            is_large = False
        if is_large:
            self.buffers.append(buffer)
        return not is_large


class BytesWrapper:
    """Wraps the large `bytes` of one pickle for its `Collector`, the same ones always in the same wrapper."""

    def __init__(self) -> None:
        self._wrappers: dict[int, StandIn] = {}

    def __call__(self, value: object) -> object:
        """A value as it is to be pickled."""
        if type(value) is not bytes or len(value) < LARGE_BYTES:
            return value
        return self._wrappers.setdefault(id(value), StandIn(bytes, (pickle.PickleBuffer(value),)))


def unpack(section: memoryview, *, is_writable: bool = True) -> list[Buffer]:
    """The buffers. Raises ValueError if that is not what `pack` made, or the file is not there."""
    if not section:
        return []
    try:
        if section[:1] == _SHARED:
            return open_region(section[1:], is_writable=is_writable)
        sizes, rest = unpack_sizes(section[1:])
        if section[:1] != _IN_PLACE or sum(sizes) != len(rest):
            raise ValueError("buffers of another size")
        ends = itertools.accumulate(sizes)
        parts = [rest[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        # Copies are aligned, as numbers have to be, and slices are not.
        return [bytearray(part) if is_writable else bytes(part) for part in parts]
    except OSError as error:
        is_gone = error.errno in (errno.ENOENT, errno.ESRCH)
        raise Unreadable(f"the buffers beside it cannot be read ({error})", is_gone=is_gone) from None
    except struct.error as error:
        raise ValueError(f"not buffers ({error})") from None
