"""The processes of clients on this machine: which one is at the other end of a connection, and is it stopped?

A program that Ctrl-Z has stopped would keep a worker that it is handed, and begin nothing on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from distribute_challenge.wire.access import look_up

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
