"""The output of functions on workers: to this program's own standard streams, and to its loggers."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from distribute_challenge.calls import logs
from distribute_challenge.calls.payload import LOG, Piece

log = logging.getLogger(__name__)

_LONGEST_LINE = 1 << 16  # What is longer is shown without waiting for its end.
_lock = threading.Lock()  # guards the standard streams: lines of different functions do not mix
_is_child = False


def _renew_lock() -> None:
    """In a forked child: a thread that does not exist there may have held it, or that of tqdm's bars."""
    global _lock, _is_child
    _lock, _is_child = threading.Lock(), True


os.register_at_fork(after_in_child=_renew_lock)


class Printer:
    """The output of one call: written line by line, each byte once."""

    def __init__(self, show_at: Callable[[int, bytes], None] | None = None) -> None:
        """Whole lines, and log records, go to `show_at` with the number of their stream; else to `show`."""
        self.seen = 0
        self._show = show_at or show
        self._lines = {1: b"", 2: b""}  # begun, and without an end yet

    def write(self, offset: int, pieces: Iterable[Piece]) -> None:
        """Write what is new in `pieces`, the first byte of which has the number `offset`."""
        for number, data in pieces:
            new = data[max(self.seen - offset, 0) :]
            offset += len(data)
            self.seen = max(self.seen, offset)
            if new and number == LOG:
                self._show(number, new)
            elif new:
                whole, newline, rest = new.rpartition(b"\n")
                if newline or len(self._lines[number]) > _LONGEST_LINE:
                    self._show(number, self._lines[number] + whole + newline)
                    self._lines[number] = b""
                self._lines[number] += rest

    def finish(self) -> None:
        """Write what has no end of line."""
        for number, rest in self._lines.items():
            if rest:
                self._show(number, rest)
        self._lines = {1: b"", 2: b""}


@contextmanager
def _without_bars(stream: Any) -> Iterator[None]:
    """Take the bars of tqdm, if the program uses it, off the terminal meanwhile: they end no line."""
    bar = None if _is_child else getattr(sys.modules.get("tqdm"), "tqdm", None)
    with ExitStack() as stack:
        if bar is not None:
            try:
                stack.enter_context(bar.external_write_mode(stream))
            except Exception as error:  # It may be any module of that name, and any bar of the program's.
                log.debug("no bar of tqdm's is moved aside: %r", error)
        yield


def show(number: int, data: bytes) -> None:
    """Show output here: of streams 1 and 2 at this program's own, of LOG at its loggers."""
    if number == LOG:
        try:
            logs.handle(data)
        except (
            Exception,
            SystemExit,
            GeneratorExit,
        ) as error:  # A filter or handler of the program's raised.
            log.debug("cannot log what a function logged: %r", error)
        return
    stream = sys.stdout if number == 1 else sys.stderr
    if stream is None:  # A program without streams, as on Windows without a console.
        return
    text = data.decode(errors="backslashreplace")
    with _lock:
        try:
            encoding = getattr(stream, "encoding", None) or "utf-8"
            with _without_bars(stream):
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                stream.flush()
        except Exception as error:  # The stream is the program's; the result must not be lost for it.
            log.debug("cannot show what a function printed: %r", error)
