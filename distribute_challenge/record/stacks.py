"""Where the function of a worker is: its Python stack, which the worker's fault handler writes when asked.

The server asks with a signal, and reads the answer from a pipe. That takes no step of the interpreter, so it
works also while a function holds that. It is the stack of the main thread, where functions run: those of
other threads could change while they are read.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One that functions do not use.
SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
_READ_BYTES = 1 << 16
_REPEATED = 3
_CUT = "  ..."  # instead of frames further out than the hundredth
_PACKAGE = str(Path(__file__).parents[1])
_MAIN = f"{_PACKAGE}/worker/app.py"  # in the frame from which a worker's main thread runs functions


def tell_when_asked(pipe: int) -> None:
    """In a worker: write the stack of the main thread to `pipe` whenever the signal comes."""
    os.set_inheritable(pipe, False)
    faulthandler.register(SIGNAL, file=pipe, all_threads=False)


class StackReader:
    """The reading end of a pipe, in the server, which it closes."""

    def __init__(self, readable: int) -> None:
        self._readable = readable
        self._lock = threading.Lock()  # held by who asks

    def close(self) -> None:
        """Close the reading end, once nobody reads."""
        with self._lock:
            os.close(self._readable)
            self._readable = -1

    def read(self, ask: Callable[[], None], wait_s: float) -> list[str]:
        """The frames of the function that runs, the innermost first, as lines of text.

        `ask` sends the signal, or raises ProcessLookupError. Empty if there is no answer, within `wait_s`
        seconds.
        """
        deadline = time.monotonic() + wait_s
        if not self._lock.acquire(timeout=wait_s):
            return []
        try:
            return [] if self._readable == -1 else _frames(self._answer(ask, deadline))
        finally:
            self._lock.release()

    def _answer(self, ask: Callable[[], None], deadline: float) -> str:
        answer = b""
        with contextlib.suppress(ProcessLookupError):
            self._drain()  # What an earlier question got too late.
            ask()
            poller = select.poll()
            poller.register(self._readable, select.POLLIN)
            while not _is_whole(answer) and poller.poll(max(deadline - time.monotonic(), 0) * 1000):
                more = self._drain()
                if not more:  # It has died.
                    break
                answer += more
        return answer.decode(errors="backslashreplace")

    def _drain(self) -> bytes:
        try:
            return os.read(self._readable, _READ_BYTES)
        except BlockingIOError:
            return b""


def stack_pipe() -> tuple[StackReader, int]:
    """A reader, and the descriptor to which its worker shall write. Raises OSError."""
    readable, writable = os.pipe()
    for end in (readable, writable):  # A worker does not wait for its reader.
        os.set_blocking(end, False)
    return StackReader(readable), writable


def ask(pid: int) -> None:
    """Send the signal.

    Raises ProcessLookupError if the process would not answer: it has ended, or was stopped, or the handler is
    gone. The signal would then do something else, or come at another time.
    """
    try:
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        raise ProcessLookupError("it has ended; or the system does not tell") from None
    if fields["State"][0] in "TtZX" or not int(fields["SigCgt"], 16) >> (SIGNAL - 1) & 1:
        raise ProcessLookupError("it does not take the signal")
    import ctypes  # Late: most workers and servers need it never.

    # The main thread, and no other that takes signals in a moment in which that one does not.
    ctypes.CDLL(None).tgkill(pid, pid, SIGNAL)


def _is_whole(text: bytes) -> bool:
    """Whether the frame of the worker itself has been written, or where frames were left out."""
    *lines, _ = text.decode(errors="backslashreplace").split("\n")
    return any(line == _CUT or _MAIN in line for line in lines)


def _frames(text: str) -> list[str]:
    """The frames of a function in what the fault handler wrote, without those of the worker around it.

    >>> _frames(f'''  File "late.py", line 1 in answer
    ... Stack (most recent call first):
    ...   File "mine.py", line 7 in func
    ...   File "{_PACKAGE}/calls/runner.py", line 9 in run
    ...   File "{_MAIN}", line 11 in main
    ...   File "server.py", line 8 in <module>
    ... ''')
    ['File "mine.py", line 7 in func']
    """
    for answer in text.split("(most recent call first):\n")[1:]:
        frames: list[str] = []
        for line in answer.splitlines():
            if line != _CUT and _MAIN not in line:
                frames.append(line)
                continue
            inner = [*frames, _CUT] if line == _CUT else list(frames)
            while inner and _PACKAGE in inner[-1]:
                inner.pop()
            return list(_shortened([frame.strip() for frame in inner or frames]))
    return []


def _shortened(frames: list[str]) -> Iterator[str]:
    """The frames; a function that calls itself is shown a few times only.

    >>> list(_shortened(["here", *9 * ["there"]]))
    ['here', 'there', 'there', 'there', '[repeated 6 more times]']
    """
    for frame, group in itertools.groupby(frames):
        count = len(list(group))
        yield from [frame] * min(count, _REPEATED)
        if count > _REPEATED:
            yield f"[repeated {count - _REPEATED} more times]"
