"""What the running function prints: kept for its caller, and passed on to the worker's own streams.

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
from collections.abc import Iterator
from typing import Any

from distribute_challenge.wire.payload import Piece

MAX_KEPT_BYTES = 16 << 20


class Output:
    """The output of one call."""

    def __init__(self, call_id: bytes) -> None:
        self.call_id = call_id
        self._changed = threading.Condition()  # guards all that follows
        self._pieces: list[Piece] = []
        self._offset = 0  # of the first piece that is kept, in bytes
        self._kept = 0
        self._is_over = False

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        """Within the block, what is written to the standard streams is kept."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._stream(1), self._stream(2)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError, OSError, AttributeError):  # It was closed, or replaced.
                    stream.flush()
            sys.stdout, sys.stderr = before
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def add(self, number: int, data: bytes) -> None:
        """Keep what was written to a stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept < MAX_KEPT_BYTES or self._is_over)
            if self._is_over:
                return
            if self._pieces and self._pieces[-1][0] == number and len(self._pieces[-1][1]) < 4096:
                self._pieces[-1] = (number, self._pieces[-1][1] + data)
            else:
                self._pieces.append((number, data))
            self._kept += len(data)

    def read(self, seen: int) -> tuple[int, tuple[Piece, ...]]:
        """What was printed after the first `seen` bytes, and from which byte that begins.

        What has been seen is dropped.
        """
        with self._changed:
            drop = min(max(seen - self._offset, 0), self._kept)
            self._offset += drop
            self._kept -= drop
            while drop:
                number, data = self._pieces.pop(0)
                if len(data) > drop:
                    self._pieces.insert(0, (number, data[drop:]))
                drop -= min(drop, len(data))
            self._changed.notify_all()
            return self._offset, tuple(self._pieces)

    def _stream(self, number: int) -> io.TextIOWrapper:
        raw: Any = _Raw(self, number)
        return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True, write_through=True)


class _Raw(io.RawIOBase):
    """A stream's bytes on their way: to the caller, and to the descriptor of that number."""

    def __init__(self, output: Output, number: int) -> None:
        self._output = output
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        self._output.add(self._number, content)
        rest = memoryview(content)
        with contextlib.suppress(OSError):  # The function has closed the descriptor: its caller still reads.
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return len(content)
