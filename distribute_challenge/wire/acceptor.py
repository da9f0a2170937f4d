"""The loop that accepts connections, asks who is there, and serves each in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge.address import PEER_THREAD
from distribute_challenge.wire.access import Authenticator, PeerGone, check_owner
from distribute_challenge.wire.descriptors import NONE_LEFT, check_left
from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.serving import SERVER_CONFIG, Served, refuse
from distribute_challenge.wire.stream import not_for_children
from distribute_challenge.wire.tls import stream_over

log = logging.getLogger(__name__)

# Others must give descriptors back; nothing tells when they do.
_NO_DESCRIPTORS_PAUSE_S, _NO_DESCRIPTORS_S = 0.1, 5.0
_MAX_SOURCES = 1000


class OnceAMinute:
    """Which of what may be said as often as somebody likes is to be said: once a minute from each source.

    Safe to use from any thread. Of too many sources it forgets all.

    >>> once = OnceAMinute()
    >>> once.is_news("ann", 0), once.is_news("ann", 59), once.is_news("bob", 59), once.is_news("ann", 60)
    (True, False, True, True)
    """

    def __init__(self, most: int = _MAX_SOURCES) -> None:
        self._most = most
        self._lock = threading.Lock()  # guards the one below
        self._said_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._said_at)

    def is_news(self, source: str, now: float) -> bool:
        """Whether a source has said nothing for a minute; if so, it has now."""
        with self._lock:
            if now - self._said_at.get(source, -math.inf) < 60:
                return False
            if len(self._said_at) >= self._most:
                self._said_at.clear()
            self._said_at[source] = now
            return True


class Acceptor:
    """Accepts connections on a listening socket and serves each in a thread of its own."""

    def __init__(
        self,
        listener: socket.socket,
        service: Callable[[], rpyc.Service],
        *,
        max_frame_bytes: int,
        admit: Authenticator = check_owner,
        config: dict[str, Any] = SERVER_CONFIG,
        serve: Callable[[Served], None] = Served.serve_all,
    ) -> None:
        self._listener = listener
        self._service = service
        self._max_frame_bytes = max_frame_bytes
        self._admit = admit
        self._config = config
        self._serve_all = serve
        self._refusals = OnceAMinute()
        self._is_closed = threading.Event()
        not_for_children(listener)

    def start(self, name: str) -> None:
        """Accept in a thread called `name`, until `close`."""
        threading.Thread(target=self._accept_all, name=name, daemon=True).start()

    def close(self) -> None:
        """Accept no more. Connections that are open stay open."""
        self._is_closed.set()
        with contextlib.suppress(OSError):  # It may have been shut already.
            self._listener.shutdown(socket.SHUT_RDWR)

    def _accept_all(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while not self._is_closed.is_set():
            # Accepting takes a descriptor before there is a caller: without one it would not even wait.
            poller.poll()
            if self._is_closed.is_set():
                return
            try:
                sock, peer = self._listener.accept()
            except OSError as error:  # Descriptors, most likely: callers wait until there are some again.
                self._log_once_a_minute("accepting", "cannot accept connections yet: %s", error)
                self._is_closed.wait(_NO_DESCRIPTORS_PAUSE_S)
                continue
            name = f"{peer[0]}:{peer[1]}"
            thread = threading.Thread(
                target=self._serve, args=(sock, name), name=PEER_THREAD + name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("turned %s away: %s", name, error)
                sock.close()

    def _admit_in_time(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Ask who is there; again if that takes descriptors which others still have."""
        deadline = time.monotonic() + _NO_DESCRIPTORS_S
        while True:
            try:
                return self._admit(sock)
            except OSError as error:
                if error.errno not in NONE_LEFT or time.monotonic() >= deadline:
                    raise
            self._is_closed.wait(_NO_DESCRIPTORS_PAUSE_S)

    def _serve(self, sock: socket.socket, name: str) -> None:
        source = name.rpartition(":")[0]
        try:
            sock, credentials = self._admit_in_time(sock)
        except PeerGone as reason:
            log.debug("%s: %s", name, reason)
            sock.close()
            return
        except (AuthenticationError, OSError) as reason:
            self._log_once_a_minute(source, "refused %s: %s", name, reason)
            sock.close()
            return
        channel = FrameChannel(stream_over(sock), self._max_frame_bytes)
        try:
            check_left(sock.fileno())
        except OSError as error:
            text = (
                f"it has no descriptors left for one more connection ({error.strerror}): use fewer, or raise"
            )
            self._log_once_a_minute("descriptors", "refused %s: %s the limit (ulimit -n)", name, text)
            refuse(channel, f"{text} its limit (ulimit -n)")
            return
        served = Served(channel, self._service(), {**self._config, "credentials": credentials})
        try:
            self._serve_all(served)
        except EOFError as end:
            log.debug("%s: %s", name, end)
        except Exception as error:
            log.warning("closed the connection of %s, which sent what no RPyC peer sends: %r", name, error)
        finally:
            served.close()

    def _log_once_a_minute(self, source: str, text: str, *args: object) -> None:
        """Say it once a minute for each source, which may come back as often as it likes."""
        is_news = self._refusals.is_news(source, time.monotonic())
        log.log(logging.WARNING if is_news else logging.DEBUG, text, *args)
