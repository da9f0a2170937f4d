"""Frames: RPyC's channel, sending uncompressed and refusing what is too large.

A frame on the wire is `!LB` (length of the payload; 1 if it is zlib-compressed), the payload, and a newline,
as in plain RPyC.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Any

import rpyc

from distribute_challenge.wire.stream import SocketStream


class FrameChannel(rpyc.Channel):
    """RPyC's channel, sending uncompressed and refusing frames over `max_frame_bytes`."""

    __slots__ = ("_ready", "max_frame_bytes")

    def __init__(self, stream: SocketStream, max_frame_bytes: int) -> None:
        super().__init__(stream, compress=False)
        self.max_frame_bytes = max_frame_bytes
        self._ready: deque[bytes] = deque()  # what comes next: taken from the stream already

    def put_back(self, data: bytes) -> None:
        """Have the next `recv` give this frame, which the last one gave, again."""
        self._ready.appendleft(data)

    def poll(self, timeout: Any) -> bool:
        """Whether there is something to receive within `timeout` seconds."""
        return bool(self._ready) or bool(self.stream.poll(timeout))

    def has_read_ahead(self) -> bool:
        """Whether something was received that `recv` has not given."""
        return bool(self._ready) or bool(self.stream.has_read_ahead())

    def send(self, data: bytes) -> None:
        """Send one frame."""
        self.stream.write_frame(self.FRAME_HEADER.pack(len(data), 0), data, self.FLUSHER)

    def recv(self) -> bytes:
        """Receive one frame. EOFError, and the end of the connection, if it is too large or malformed."""
        if self._ready:
            return self._ready.popleft()
        length, compressed = self.FRAME_HEADER.unpack(self.stream.read(self.FRAME_HEADER.size))
        if length > self.max_frame_bytes:
            self._refuse(f"a frame of {length} bytes, more than the {self.max_frame_bytes} allowed here")
        frame: bytes = self.stream.read(length + len(self.FLUSHER))
        if frame[-len(self.FLUSHER) :] != self.FLUSHER:
            self._refuse("a frame without its end")
        data = frame[: -len(self.FLUSHER)]
        return self._decompress(data) if compressed else data

    def has_frame(self) -> bool:
        """Whether `recv` will not wait: a whole frame is there, or the end of the connection."""
        if self._ready:
            return True
        size = self.FRAME_HEADER.size
        if not self.stream.fill(size):
            return False
        header = self.stream.peek(size)
        if len(header) < size:
            return True
        length, _ = self.FRAME_HEADER.unpack(header)
        if length > self.max_frame_bytes:
            return True
        if not self.stream.fill(size + length + len(self.FLUSHER)):
            return False
        self._separate()
        return True

    def recv_arrived(self) -> list[bytes]:
        """All frames that have arrived whole. Does not wait. EOFError if there is nothing but the end."""
        if self.closed:  # What is left in the buffer then is the beginning of a frame, or less.
            raise EOFError("connection closed")
        frames: list[bytes] = []
        try:
            while self.has_frame():
                frames.append(self.recv())
                frames.extend(self._ready)
                self._ready.clear()
        except EOFError:
            if not frames:
                raise
        return frames

    def _separate(self) -> None:
        """Take the plain frames that were read ahead from the stream, all at once."""
        unpack, head = self.FRAME_HEADER.unpack_from, self.FRAME_HEADER.size
        buffer, position = self.stream.ahead()
        while position + head <= len(buffer):
            length, compressed = unpack(buffer, position)
            end = position + head + length
            if compressed or length > self.max_frame_bytes or buffer[end : end + 1] != self.FLUSHER:
                break
            self._ready.append(buffer[position + head : end])
            position = end + 1
        self.stream.skip_to(position)

    def _decompress(self, data: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(data, self.max_frame_bytes)
        except zlib.error as error:
            self._refuse(f"a broken compressed frame ({error})")
        if not unpacker.eof:
            self._refuse(f"a compressed frame of more than the {self.max_frame_bytes} bytes allowed here")
        return plain

    def _refuse(self, what: str) -> None:
        self.close()
        raise EOFError(f"the peer sent {what}")
