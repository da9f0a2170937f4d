"""What the running function prints: kept for its caller, and passed on to the worker's own descriptors.

Output is pulled, never pushed: a callback in the middle of a function would let the next call run inside the
first. The caller asks, from a second connection, for what it has not seen; what is left then comes with the
outcome. A function that prints faster than its caller reads is held up, as it would be by a pipe.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections import deque
from typing import Any, TextIO

from distribute_challenge.wire.payload import Piece

MAX_KEPT_BYTES = 16 << 20
_PIECE_BYTES = 4096  # Smaller ones of one stream are joined.


class Output:
    """The output of one call."""

    def __init__(self, call_id: bytes) -> None:
        self.call_id = call_id
        self._process = os.getpid()
        self._changed = threading.Condition()  # guards all that follows
        self._pieces: deque[Piece] = deque()
        self._offset = 0  # of the first piece that is kept, in bytes
        self._kept = 0
        self._is_over = False

    def add(self, number: int, data: bytes) -> None:
        """Keep what was written to a stream."""
        if os.getpid() != self._process:
            return  # A child that the function forked: nobody reads this copy.
        with self._changed:
            self._changed.wait_for(lambda: self._kept < MAX_KEPT_BYTES or self._is_over)
            if self._is_over:
                return
            if self._pieces and self._pieces[-1][0] == number and len(self._pieces[-1][1]) < _PIECE_BYTES:
                data_before = self._pieces.pop()[1]
                self._pieces.append((number, data_before + data))
            else:
                self._pieces.append((number, data))
            self._kept += len(data)

    def end(self) -> None:
        """The call is over: nothing is added any more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def read(self, seen: int) -> tuple[int, tuple[Piece, ...]]:
        """What was printed after the first `seen` bytes, and from which byte that begins.

        What has been seen is dropped.
        """
        with self._changed:
            drop = min(max(seen - self._offset, 0), self._kept)
            self._offset += drop
            self._kept -= drop
            while drop:
                number, data = self._pieces.popleft()
                if len(data) > drop:
                    self._pieces.appendleft((number, data[drop:]))
                drop -= min(drop, len(data))
            self._changed.notify_all()
            return self._offset, tuple(self._pieces)


class Streams:
    """The standard streams of a worker. `output` is that of the running call, if it is wanted."""

    def __init__(self) -> None:
        self.output: Output | None = None
        self._made: list[TextIO] = []  # A function may drop them, and others may still use what is below.
        sys.stdout, sys.stderr = self.make(1), self.make(2)

    def make(self, number: int) -> TextIO:
        """A text stream for standard output (1) or standard error (2)."""
        raw: Any = _Raw(self, number)
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
        self._made.append(stream)
        return stream

    def flush(self) -> None:
        """See to it that all that was printed has arrived."""
        for stream in (sys.stdout, sys.stderr, *self._made):
            with contextlib.suppress(Exception):  # Closed, or something that the function put there.
                stream.flush()


class _Raw(io.RawIOBase):
    """A stream's bytes on their way: to the caller, and to the descriptor of that number."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._number = number

    @property
    def name(self) -> str:
        """What a text stream calls itself after."""
        return "<stdout>" if self._number == 1 else "<stderr>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        """Stays open: another text stream may be put around it."""

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        output = self._streams.output
        if output is not None:
            output.add(self._number, content)
        rest = memoryview(content)
        with contextlib.suppress(OSError):  # The function has closed the descriptor: its caller still reads.
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return len(content)
