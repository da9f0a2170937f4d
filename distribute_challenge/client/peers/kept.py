"""Leases that are kept from one lone call to the next, on a private pool: nobody else wants its workers.

A lease is kept for a moment only. Who wants a worker otherwise has all of them given back first.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from distribute_challenge.client.peers.server import ServerConnection

KEEP_S = 0.02  # How long a lease is kept, idle or not; and calls that come further apart are lone ones.


class KeptLease:
    """The lease of a worker; when that was taken; and the functions that the server does not know of yet.

    It has one owner at a time, or none. Ctrl-C may come at any moment: who is its owner then closes it.
    """

    def __init__(
        self, server: ServerConnection, port: int, taken_at: float, counts: tuple[int, int], owner: object
    ) -> None:
        self.server, self.port, self.taken_at, self.counts = server, port, taken_at, counts
        self._owner = {"owner": owner}

    def claim(self, owner: object) -> bool:
        """Become its owner, in one step; False if somebody is."""
        return self._owner.setdefault("owner", owner) is owner

    def is_owned_by(self, owner: object) -> bool:
        """Whether that is its owner."""
        return self._owner.get("owner") is owner

    def offer(self) -> None:
        """Have no owner any more."""
        self._owner.clear()


class KeptLeases:
    """Those of one program on one pool. Safe to use from any thread.

    A thread gives back what is not used. It ends when there has been no call for a moment.
    """

    def __init__(self, put_server: Callable[[ServerConnection], None]) -> None:
        self._put_server = put_server
        self._lock = threading.Lock()  # guards all that follows
        self._kept: list[KeptLease] = []  # Those that have an owner are not kept any more.
        self._last_at = 0.0  # when one was to be kept
        self._is_watched = False
        self._watcher: threading.Thread | None = None  # the latest
        self._closing = threading.Event()

    def all(self) -> list[KeptLease]:
        """Those that are kept: who can `claim` one has it."""
        return self._kept[::-1] if self._kept else self._kept

    def put(self, lease: KeptLease) -> bool:
        """Keep a lease, whose owner is the caller, for whoever claims it; False if calls do not come fast."""
        now = time.monotonic()
        with self._lock:
            is_first, self._last_at = now - self._last_at > KEEP_S, now
            if is_first or now - lease.taken_at > KEEP_S or self._closing.is_set():
                return False
            self._kept = [kept for kept in self._kept if kept.is_owned_by(None)]
            self._kept.append(lease)
            is_watched = self._is_watched
        if not is_watched:
            try:
                threading.Thread(target=self._watch, name="kept leases", daemon=True).start()
            except RuntimeError:  # A program that is ending starts no threads, in some versions.
                return False
        lease.offer()
        if self._closing.is_set():
            self.give_back()
        return True

    def give_back(self) -> None:
        """Give back all that are kept."""
        for lease in self.all():
            self._give_back(lease)

    def close(self) -> None:
        """Give back all that are kept, now and later, and wait for the thread to end."""
        self._closing.set()
        self.give_back()
        watcher = self._watcher
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join()

    def _give_back(self, lease: KeptLease) -> None:
        owner = object()
        if lease.claim(owner):
            self.let_go(lease, owner)

    def let_go(self, lease: KeptLease, owner: object) -> None:
        """Give back a lease that `owner` has claimed."""
        try:
            finished, failed = lease.counts
            lease.server.free(lease.port, finished=finished, failed=failed)
            if self._closing.is_set():  # The server may end next, and shall have counted them.
                with contextlib.suppress(EOFError, OSError):
                    lease.server.settle()
            self._put_server(lease.server)
        except BaseException:
            if lease.is_owned_by(owner):
                lease.server.close()  # It replaces the worker.
            raise

    def _watch(self) -> None:
        with self._lock:
            if self._is_watched:  # Another thread was faster.
                return
            self._is_watched, self._watcher = True, threading.current_thread()
        is_over = False
        while not is_over:
            self._closing.wait(KEEP_S)
            old_at = time.monotonic() - KEEP_S
            with self._lock:
                is_over = self._last_at < old_at or self._closing.is_set()
                self._is_watched = not is_over
                old = [lease for lease in self._kept if is_over or lease.taken_at < old_at]
            for lease in old:
                self._give_back(lease)
