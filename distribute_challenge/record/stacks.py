"""Where the function of a worker is: its Python stack, that of the main thread.

The server asks over a socket, and a thread of the worker answers. If that does not get the interpreter, since
a function holds it in C, the server asks with a signal, and the fault handler writes what it finds. Not
before: it may come while Python is just making a frame, and then it kills the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

# One that functions do not use.
SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
_READ_BYTES = 1 << 16
_HOLDS_S = 0.5  # Who has not answered for so long has not had the interpreter.
_MAX_FRAMES = 100
_REPEATED = 3
_CUT = "  ..."  # instead of frames further out, also by the fault handler
_PACKAGE = str(Path(__file__).parents[1])
_MAIN = f"{_PACKAGE}/worker/app.py"  # in the frame from which a worker's main thread runs functions


def tell_when_asked(end: int) -> None:
    """In a worker: write the stack of the main thread to its `end` whenever the server asks."""
    os.set_inheritable(end, False)
    faulthandler.register(SIGNAL, file=end, all_threads=False)
    threading.Thread(target=_tell, args=(end,), name="stacks", daemon=True).start()


def _tell(end: int) -> None:
    main = threading.main_thread().ident
    questions = select.poll()
    questions.register(end, select.POLLIN)
    with contextlib.suppress(OSError):  # A function has closed it.
        while questions.poll() and os.read(end, _READ_BYTES):
            frames = traceback.walk_stack(sys._current_frames()[main])  # type: ignore[index]
            lines = [
                f'  File "{frame.f_code.co_filename}", line {number} in {frame.f_code.co_name}'
                for frame, number in itertools.islice(frames, _MAX_FRAMES)
            ]
            if len(lines) == _MAX_FRAMES:
                lines.append(_CUT)
            text = "\n".join(["Stack (most recent call first):", *lines, ""])
            with contextlib.suppress(BlockingIOError):  # Nobody reads.
                os.write(end, text.encode(errors="backslashreplace"))


class StackReader:
    """The server's end of a socket, which it closes."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()  # held by who asks

    def close(self) -> None:
        """Close the end, once nobody reads."""
        with self._lock:
            self._end.close()

    def read(self, ask: Callable[[], None], wait_s: float) -> list[str]:
        """The frames of the function that runs, the innermost first, as lines of text.

        `ask` sends the signal, or raises ProcessLookupError. Empty if there is no answer, within `wait_s`
        seconds.
        """
        now = time.monotonic()
        if not self._lock.acquire(timeout=wait_s):
            return []
        try:
            self._drain()  # What an earlier question got too late.
            with contextlib.suppress(BlockingIOError):  # Earlier questions wait there: one is enough.
                self._end.send(b"?")
            answer = self._answer(now + min(wait_s / 2, _HOLDS_S))
            if not _is_whole(answer):
                ask()
                answer += self._answer(now + wait_s)
            return frames(answer.decode(errors="backslashreplace"))
        except OSError:  # It has died, or been closed, or reads nothing.
            return []
        finally:
            self._lock.release()

    def _answer(self, deadline: float) -> bytes:
        answer = b""
        poller = select.poll()
        poller.register(self._end, select.POLLIN)
        while not _is_whole(answer) and poller.poll(max(deadline - time.monotonic(), 0) * 1000):
            more = self._drain()
            if not more:  # It has died.
                break
            answer += more
        return answer

    def _drain(self) -> bytes:
        try:
            return self._end.recv(_READ_BYTES)
        except BlockingIOError:
            return b""


def stack_sockets() -> tuple[StackReader, socket.socket]:
    """A reader, and the end with which its worker shall answer. Raises OSError."""
    ours, its = socket.socketpair()
    for end in (ours, its):  # A worker does not wait for its reader.
        end.setblocking(False)
    return StackReader(ours), its


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

    try:  # The main thread, and no other that takes signals in a moment in which that one does not.
        ctypes.CDLL(None).tgkill(pid, pid, SIGNAL)
    except AttributeError:
        raise ProcessLookupError("this system's C library is too old") from None


def _is_whole(answer: bytes) -> bool:
    """Whether the frame of the worker itself has been written, or where frames were left out."""
    *lines, _ = answer.decode(errors="backslashreplace").split("\n")
    return any(line == _CUT or _MAIN in line for line in lines)


def frames(text: str) -> list[str]:
    """The frames of a function in what its worker or the fault handler wrote, without those of the worker.

    >>> frames(f'''  File "late.py", line 1 in answer
    ... Stack (most recent call first):
    ...   File "mine.py", line 7 in func
    ...   File "{_PACKAGE}/calls/runner.py", line 9 in run
    ...   File "{_MAIN}", line 11 in main
    ...   File "server.py", line 8 in <module>
    ... ''')
    ['File "mine.py", line 7 in func']
    """
    for answer in text.split("(most recent call first):\n")[1:]:
        found: list[str] = []
        for line in answer.splitlines():
            if line != _CUT and _MAIN not in line:
                found.append(line)
                continue
            inner = [*found, _CUT] if line == _CUT else list(found)
            while inner and _PACKAGE in inner[-1]:
                inner.pop()
            return list(_shortened([frame.strip() for frame in inner or found]))
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
