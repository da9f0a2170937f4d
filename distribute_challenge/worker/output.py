"""The output of the running function: kept for its caller, and passed on to the worker's own descriptors."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import weakref
from collections import deque
from typing import Any, TextIO

from distribute_challenge.calls.payload import LOG, Piece

MAX_KEPT_BYTES = 16 << 20
_PIECE_BYTES = 4096  # Smaller ones of one stream are joined.


class Output:
    """The output of one call."""

    def __init__(self, call_id: bytes) -> None:
        self.call_id = call_id
        self._changed = threading.Condition()  # guards all that follows
        self._pieces: deque[Piece] = deque()
        self._offset = 0  # of the first piece that is kept, in bytes
        self._kept = 0
        self._is_over = False

    def add(self, number: int, data: bytes) -> None:
        """Keep what was written to a stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._kept < MAX_KEPT_BYTES or self._is_over)
            if self._is_over:
                return
            self._kept += len(data)
            if (
                self._pieces
                and self._pieces[-1][0] == number != LOG
                and len(self._pieces[-1][1]) < _PIECE_BYTES
            ):
                data = self._pieces.pop()[1] + data
            self._pieces.append((number, data))

    def end(self) -> None:
        """The call is over: nothing is added any more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def read(self, seen: int) -> tuple[int, tuple[Piece, ...]]:
        """The output after the first `seen` bytes, and from which byte it begins.

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
    """The standard streams of a worker, and what the call that runs has printed, if that is wanted."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()  # Two threads of a function may be the first to print.
        self._call_id: bytes | None = None
        self._prints = False  # whether what it prints is wanted, or only what it logs
        self._output: Output | None = None  # Most calls print nothing.
        # Threads that have outlived their function: what they print is nobody's.
        self._left: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._made: list[TextIO] = []  # A function may drop them, and others may still use what is below.
        sys.stdout, sys.stderr = self.make(1), self.make(2)

    def make(self, number: int) -> TextIO:
        """A text stream for standard output (1) or standard error (2)."""
        raw: Any = _Raw(self, number)
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
        self._made.append(stream)
        return stream

    def begin(self, call_id: bytes, *, prints: bool) -> None:
        """Keep what is logged from now on, for the caller, and what is printed if it `prints`."""
        self._prints = prints
        self._output, self._call_id = None, call_id

    def end(self, *, has_left_threads: bool) -> tuple[int, tuple[Piece, ...]]:
        """The call is over: what it has printed and nobody has read, and from which byte that begins.

        `has_left_threads` says that threads which it started go on.
        """
        for stream in self._made:
            _flush(stream)
        for own in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
            if own not in self._made:  # Something that the function put there.
                _flush(own)
        if has_left_threads:
            self._left.update(threading.enumerate())
            self._left.discard(threading.main_thread())
        with self._lock:
            output, self._output, self._call_id = self._output, None, None
        if output is None:
            return 0, ()
        output.end()
        return output.read(0)

    def read(self, seen: int, call_id: bytes | None, *, flush: bool) -> tuple[int, tuple[Piece, ...]]:
        """The output of the running call after the first `seen` bytes: `Output.read`.

        With `call_id`, only if that is the call that runs. With `flush`, also what the streams still keep.
        """
        if flush and self._call_id is not None and call_id in (None, self._call_id):
            for stream in self._made:
                _flush(stream)
        output = self._output
        if output is None or (call_id is not None and output.call_id != call_id):
            return seen, ()
        return output.read(seen)

    def add_record(self, record: bytes) -> None:
        """Keep what was logged, after what was printed before."""
        if self._prints:
            for stream in self._made:
                _flush(stream)
        self.add(LOG, record)

    def add(self, number: int, data: bytes) -> None:
        """Keep what was written to a stream, if somebody wants it."""
        output = self._output
        if number != LOG and not self._prints:
            return
        if os.getpid() != self._process:
            return  # A child that the function forked: nobody reads this copy.
        if self._left and threading.current_thread() in self._left:
            return
        if output is None:
            call_id = self._call_id
            if call_id is None:
                return
            with self._lock:
                output = self._output
                if output is None:
                    if self._call_id is not call_id:  # It has ended, and this thread with it should have.
                        return
                    output = self._output = Output(call_id)
        output.add(number, data)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except Exception as error:  # Closed, or something that the function put there.
        del error


class _Raw(io.RawIOBase):
    """A stream's bytes on their way: to the caller, and to the descriptor of that number."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._number = number
        self.name = "<stdout>" if number == 1 else "<stderr>"  # A text stream takes it over.

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        """Stays open: another text stream may be put around it."""

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        self._streams.add(self._number, content)
        rest = memoryview(content)
        with contextlib.suppress(OSError):  # The function has closed the descriptor: its caller still reads.
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return len(content)
