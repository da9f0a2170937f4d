"""Whether another library has replaced what connections and threads are made of, as gevent can."""

from __future__ import annotations

import _socket
import _thread
import queue
import select
import socket
from types import BuiltinFunctionType

from distribute_challenge.errors import PoolError


def check_nothing_is_patched() -> None:
    """Raise PoolError if sockets, threads, queues or `poll` are not Python's own: calls would hang."""
    parts = {
        "socket": (socket.socket, issubclass(socket.socket, _socket.socket)),
        "thread": (_thread.start_new_thread, isinstance(_thread.start_new_thread, BuiltinFunctionType)),
        "select": (select.poll, isinstance(select.poll, BuiltinFunctionType)),
        "queue": (queue.SimpleQueue, queue.SimpleQueue.__module__ in ("_queue", "queue")),
    }
    patched = {part: replacement for part, (replacement, is_own) in parts.items() if not is_own}
    if patched:
        library = str(next(iter(patched.values())).__module__).partition(".")[0]
        kept = ", ".join(f"{part}=False" for part in parts)
        raise PoolError(
            f"{library} has replaced Python's own {', '.join(patched)} in this program, and calls on the "
            f"pool would hang: have it leave them alone, as with monkey.patch_all({kept}), or call the pool "
            "from a process of its own"
        )
