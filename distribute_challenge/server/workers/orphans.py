"""Children that this process has not started: it waits for their ends, so that none stays as a zombie.

A server adopts for a moment, to have a worker that its template forks as its child. What functions have left
running, and what is left of workers that die in that moment, comes with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path

_TASKS = Path("/proc/self/task")


class Orphans:
    """Buries what is adopted: all children but those that are `known`, which somebody else waits for."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self._lock = threading.Lock()  # guards the two below
        self._waited_for: dict[int, int] = {}  # by a descriptor of each
        self._thread: threading.Thread | None = None

    def bury(self) -> None:
        """See who has been adopted, and wait for their ends in a thread of its own."""
        with self._lock:
            strangers = _children() - self.known - set(self._waited_for.values())
            for pid in strangers:
                with contextlib.suppress(OSError):  # There are no descriptors left, say: the next time.
                    self._waited_for[os.pidfd_open(pid)] = pid
            if self._waited_for and self._thread is None:
                thread = threading.Thread(target=self._wait, name="orphans", daemon=True)
                with contextlib.suppress(RuntimeError):  # There are too many threads: the next time.
                    thread.start()
                    self._thread = thread

    def _wait(self) -> None:
        while True:
            with self._lock:
                if not self._waited_for:
                    self._thread = None
                    return
                waited_for = dict(self._waited_for)
            poller = select.poll()
            for descriptor in waited_for:
                poller.register(descriptor, select.POLLIN)
            # What is adopted meanwhile has its turn after a second.
            for descriptor, _ in poller.poll(1000):
                with contextlib.suppress(ChildProcessError):  # Somebody waited for it, after all.
                    os.waitpid(waited_for[descriptor], 0)
                with self._lock:
                    del self._waited_for[descriptor]
                os.close(descriptor)


def _children() -> set[int]:
    """This process's children, zombies included; none where the system does not tell."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # There are no descriptors left: the next time.
        for task in list(_TASKS.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # A thread that has just ended.
                found.update(map(int, (task / "children").read_text().split()))
    return found
