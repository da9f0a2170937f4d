"""Messages to the main thread, from other threads and from signal handlers, none of which can be missed."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from distribute_challenge.server.polling import await_any

Mail = TypeVar("Mail")


class Mailbox(Generic[Mail]):
    """A queue that only the main thread reads. Made once in a process, and never closed."""

    def __init__(self) -> None:
        self._mail: deque[Mail] = deque()
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)

    def post(self, mail: Mail) -> None:
        """Add a message. From any thread, also from a signal handler."""
        self._mail.append(mail)
        try:
            os.write(self._writable, b"!")
        except BlockingIOError:  # The pipe is full of such marks already: the reader will wake.
            return

    def post_signals(self, numbers: Iterable[int], mail: Callable[[signal.Signals], Mail]) -> None:
        """Turn these signals into messages. From the main thread."""
        for number in numbers:
            signal.signal(number, lambda number, _frame: self.post(mail(signal.Signals(number))))
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)

    def post_end_of(self, pipe: int, mail: Mail) -> None:
        """Have `mail` posted once the other end of `pipe` is closed."""
        os.set_inheritable(pipe, False)

        def wait() -> None:
            await_any({pipe: select.POLLHUP}, None)
            self.post(mail)

        threading.Thread(target=wait, name="owner", daemon=True).start()

    def read(self, timeout_s: float | None = None) -> Mail | None:
        """The oldest message; waits for it. None after `timeout_s` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._mail:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not await_any({self._readable: select.POLLIN}, left):
                return None
            os.read(self._readable, 4096)
        return self._mail.popleft()
