"""Frames: RPyC's channel, sending uncompressed and refusing what is too large.

A frame on the wire is `!LB` (length of the payload; 1 if it is zlib-compressed), the payload, and a newline,
as in plain RPyC.
"""

from __future__ import annotations

import os
import select
import socket
import time
import zlib
from collections import deque
from typing import Any

import rpyc
from rpyc.lib import Timeout

from distribute_challenge.wire.stream import KIBI, TICK_S, SocketStream

_HEADER, _END = rpyc.Channel.FRAME_HEADER, rpyc.Channel.FLUSHER
_JOIN_BELOW = 64 * KIBI  # Larger frames are not copied to be written with their header.
# As long as it takes a peer that sleeps to wake and to answer: else each would find the other one asleep.
_SPIN_S = 250e-6
_ALONE_S = 20e-6  # Who gets the processor back later than that has shared it.
_MAX_SPINS_SKIPPED = 63


class Garbled(EOFError):
    """What the peer has sent is nothing that an RPyC peer sends: the connection has ended."""


class FrameReader:
    """Bytes, as they arrive, -> frames. Knows no socket.

    The first frame may be of `first_frame_bytes` only: a peer that speaks another protocol claims anything.
    """

    __slots__ = ("_limit", "_max_frame_bytes", "_parts", "wanted")

    def __init__(self, max_frame_bytes: int, first_frame_bytes: int | None = None) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._limit = max_frame_bytes if first_frame_bytes is None else first_frame_bytes
        self.wanted = _HEADER.size  # so many bytes are missing, at least, until there may be another frame
        self._parts: list[bytes] = []  # of it, as far as they are here

    def feed(self, data: bytes, frames: deque[bytes]) -> None:
        """Take in what has arrived, and add to `frames` those that are here whole now.

        EOFError if what comes next is too large, or no frame.
        """
        self.wanted -= len(data)
        if self.wanted > 0:
            self._parts.append(data)
            return
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts.clear()
        at, there, needed = 0, len(data), _HEADER.size
        while needed <= there:
            length, is_compressed = _HEADER.unpack_from(data, at)
            if length > self._limit:
                raise Garbled(
                    f"the peer sent a frame of {length} bytes, more than the {self._limit} allowed here"
                )
            begin = at + _HEADER.size
            end = begin + length
            needed = end + len(_END)
            if needed > there:
                break
            if data[end:needed] != _END:
                raise Garbled("the peer sent a frame without its end")
            frames.append(self._decompress(data[begin:end]) if is_compressed else data[begin:end])
            self._limit = self._max_frame_bytes
            at = needed
            needed += _HEADER.size
        self.wanted = needed - there
        if at < there:
            self._parts.append(data[at:])

    def _decompress(self, data: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(data, self._limit)
        except zlib.error as error:
            raise Garbled(f"the peer sent a broken compressed frame ({error})") from None
        if not unpacker.eof:
            raise Garbled(
                f"the peer sent a compressed frame of more than the {self._limit} bytes allowed here"
            )
        return plain


class FrameChannel(rpyc.Channel):
    """RPyC's channel over a reader of frames. After the last whole frame each read raises EOFError."""

    __slots__ = ("_arrivals", "_end", "_frames", "_reader", "_spins_in_vain", "_spins_to_skip")

    def __init__(
        self, stream: SocketStream, max_frame_bytes: int, first_frame_bytes: int | None = None
    ) -> None:
        super().__init__(stream, compress=False)
        self._reader = FrameReader(max_frame_bytes, first_frame_bytes)
        self._frames: deque[bytes] = deque()  # that have arrived whole
        self._end: EOFError | None = None
        self._arrivals: select.poll | None = None  # made when something is looked for
        self._spins_in_vain = self._spins_to_skip = 0

    def send(self, data: bytes) -> None:
        """Send one frame."""
        header = _HEADER.pack(len(data), 0)
        if len(data) < _JOIN_BELOW:
            self.stream.write(header + data + _END)
        else:
            self.stream.write(header, data, _END)

    def recv(self) -> bytes:
        """The next frame, waited for. EOFError at the end of the connection."""
        while not self._frames:
            self._take_in(0)
        return self._frames.popleft()

    def recv_arrived(self) -> list[bytes]:
        """All frames that have arrived whole. Does not wait. EOFError if there is nothing but the end."""
        while self._end is None and self._take_in(socket.MSG_DONTWAIT):
            pass
        return self.taken_in()

    def taken_in(self) -> list[bytes]:
        """All frames that have been received whole. EOFError if there is nothing but the end."""
        if self._end is not None and not self._frames:
            raise type(self._end)(*self._end.args)
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def has_frame(self) -> bool:
        """Whether `recv` will not wait: a whole frame is there, or the end of the connection."""
        while not self._frames and self._end is None:
            if not self._take_in(socket.MSG_DONTWAIT):
                return False
        return True

    def put_back(self, data: bytes) -> None:
        """Have the next `recv` give this frame, which the last one gave, again."""
        self._frames.appendleft(data)

    def poll(self, timeout: Any) -> bool:
        """Whether a frame, or the end, is there within `timeout` seconds (a number, None, or RPyC's Timeout).

        Without a limit there is nothing to wait for: the `recv` that follows waits just as well.
        """
        timeout = Timeout(timeout)
        while timeout.finite and not self.has_frame():
            if not self.stream.poll(timeout):
                return False
        return True

    def tick(self, wait_s: float) -> bool:
        """Whether something arrives within a tick, if the stream waits in ticks; or `wait_s`, if less."""
        return self.spin() or (self._take_in(0) if wait_s >= TICK_S else self.poll(max(wait_s, 0)))

    def spin(self) -> bool:
        """Whether something is here, or arrives in the next moment, for which the processor is not given up.

        If that was in vain, or another one had the processor meanwhile, it is not tried again for some time,
        which grows.
        """
        if self._frames:
            return True
        if not self.stream.can_spin:
            return False
        if self._spins_to_skip:
            self._spins_to_skip -= 1
            return False
        if self._arrivals is None:
            self._arrivals = select.poll()
            self._arrivals.register(self.stream.fileno(), select.POLLIN)
        is_alone = True
        began = now = time.perf_counter()
        while not (arrived := self._arrivals.poll(0)) and is_alone and now - began < _SPIN_S:
            os.sched_yield()  # Whoever else has something to do goes first.
            before, now = now, time.perf_counter()
            is_alone = now - before < _ALONE_S
        has_come = bool(arrived) and self._take_in(socket.MSG_DONTWAIT)
        if has_come and is_alone:
            self._spins_in_vain = 0
        else:  # With a processor for two, looking costs the other one what it saves.
            self._spins_in_vain = min(2 * self._spins_in_vain + 1, _MAX_SPINS_SKIPPED)
            self._spins_to_skip = self._spins_in_vain
        return has_come

    def _take_in(self, flags: int) -> bool:
        """Receive once; False if nothing came. EOFError if there is nothing but the end of the connection."""
        if self._end is not None:
            raise type(self._end)(*self._end.args)
        reader = self._reader
        try:
            data = self.stream.receive(reader.wanted, flags)
            if data is None:
                return False
            reader.feed(data, self._frames)
        except EOFError as error:
            self.close()
            self._end = error
        return True
