"""One client connection, as a holder of leases: how its thread waits, and whether its process is stopped.

A program that Ctrl-Z has stopped would keep a worker that it is handed, and begin nothing on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Hashable
from pathlib import Path

from distribute_challenge.server.polling import await_any
from distribute_challenge.wire.access import look_up
from distribute_challenge.wire.descriptors import check_left

log = logging.getLogger(__name__)

_HANG_UP = getattr(select, "POLLRDHUP", 0)  # Where it is missing, POLLHUP (always reported) has to do.
_PROC = Path("/proc")
_SOCKET = "socket:["


class Clients:
    """Finds processes by their sockets. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the look at all processes, which takes 10 ms or more
        self._owners: dict[int, list[int]] = {}  # the processes that have a socket, by its inode

    def at_other_end(self, connection: int) -> list[int]:
        """The processes that have the other end of a connection; none if that cannot be told."""
        try:
            with socket.socket(fileno=os.dup(connection)) as sock:
                _, _, inode = look_up(sock.family, sock.getpeername()[:2], sock.getsockname()[:2])
        except OSError:  # It is on another machine, or has gone.
            return []
        with self._lock:
            if inode not in self._owners:  # Many connections may have come since; one look finds them all.
                self._owners = _owners_of_sockets()
            return self._owners.get(inode, [])


class Caller:
    """One client connection, as a holder of leases: its socket and its bell."""

    def __init__(self, name: str, connection: int, clients: Clients | None = None) -> None:
        self.name = name
        self.program: Hashable = self  # to which it belongs, as far as it has said
        self._connection = connection
        self._clients = clients
        self._pids: list[int] | None = None  # those of the client, once they have been looked for
        self._bell: list[int] = []  # the reading and the writing end of a pipe, once it is put up
        self.next_call: Callable[[], str | None] = lambda: None  # what the client says while it waits
        self._listens = True  # unless it has said something that is for later
        self.is_silent: Callable[[], bool] = bool  # whether its system does not answer

    def __str__(self) -> str:
        return self.name

    def has_hung_up(self) -> bool:
        """Whether the client's end of the connection is closed."""
        return await_any({self._connection: _HANG_UP}, 0)

    def hang_up(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection)) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def wants_no_worker(self) -> bool:
        """Whether the client has hung up, or says that it leaves the line. Only for the thread that waits."""
        if self.has_hung_up():
            return True
        try:
            call = self.next_call() if self._listens else None
        except EOFError:
            return True
        self._listens = call is None
        return call == "leave_line"

    def is_away(self) -> bool:
        """Whether the client is stopped, as by Ctrl-Z, or its system does not answer, as far as known."""
        return are_stopped(self._pids or []) or self.is_silent()

    def find_process(self) -> None:
        """Find out which is the client's process, if it is on this machine."""
        if self._pids is None and self._clients is not None:
            self._pids = self._clients.at_other_end(self._connection)
            log.debug("%s waits in line; its process is %s", self, self._pids or "not known")

    def await_bell(self, timeout_s: float | None) -> bool:
        """Wait until the bell rings, or the client hangs up or says something; False after `timeout_s`."""
        events = _HANG_UP | select.POLLIN * self._listens
        return await_any({self._connection: events, self._bell[0]: select.POLLIN}, timeout_s)

    def ring(self) -> None:
        """Wake `await_bell`."""
        os.write(self._bell[1], b"!")

    def answer_bell(self) -> None:
        """Take note of each `ring` so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell[0], 64)

    def prepare_to_wait(self) -> None:
        """Put up a bell. Raises RuntimeError if there are no descriptors left."""
        self._listens = True
        try:
            if not self._bell:
                self._bell += os.pipe()
                os.set_blocking(self._bell[0], False)
                check_left(self._bell[1])
        except OSError as error:
            self.close()
            raise RuntimeError(f"the server cannot let one more client wait ({error.strerror})") from None

    def close(self) -> None:
        """Take the bell down. Harmless to repeat."""
        while self._bell:
            os.close(self._bell.pop())


def are_stopped(pids: list[int]) -> bool:
    """Whether there are such processes, and a signal or a debugger has stopped all of them."""
    return bool(pids) and all(map(_is_stopped, pids))


def _is_stopped(pid: int) -> bool:
    try:
        status = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b") ")[2][:1] in (b"T", b"t")


def _owners_of_sockets() -> dict[int, list[int]]:
    owners: dict[int, list[int]] = {}
    pids = [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    for pid in pids:
        # A process, or its file, may be gone by now; and of others' processes nothing is told.
        with contextlib.suppress(OSError), os.scandir(_PROC / str(pid) / "fd") as files:
            for file in files:
                with contextlib.suppress(OSError):
                    target = os.readlink(file.path)  # noqa: PTH115  Of so many, a Path of each takes long.
                    if target.startswith(_SOCKET):
                        owners.setdefault(int(target[len(_SOCKET) : -1]), []).append(pid)
    return owners
