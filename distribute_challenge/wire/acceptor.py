"""The loop that accepts connections, asks who is there, and serves each in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge.wire.access import Authenticator, check_owner
from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.serving import SERVER_CONFIG, Served
from distribute_challenge.wire.stream import not_for_children
from distribute_challenge.wire.tls import stream_over

log = logging.getLogger(__name__)

_NO_DESCRIPTORS_PAUSE_S = 0.1
_REFUSED_EVERY_S = 60.0
_MAX_SOURCES = 1000


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
        self._refused: dict[str, float] = {}  # when a refusal was last logged, by its source
        self._is_closed = threading.Event()
        # Given up for a moment when descriptors run out, so that a caller can be turned away.
        self._spare: int | None = None
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
                if self._spare is None:
                    self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                sock, peer = self._listener.accept()
            except OSError as error:
                self._turn_away(error)
                continue
            name = f"{peer[0]}:{peer[1]}"
            thread = threading.Thread(target=self._serve, args=(sock, name), name=f"peer {name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("turned %s away: %s", name, error)
                sock.close()

    def _turn_away(self, error: OSError) -> None:
        """Close the next caller instead of leaving it to hang. Descriptors, most likely, have run out."""
        log.warning("turned a caller away: %s", error)
        if self._spare is None:
            self._is_closed.wait(_NO_DESCRIPTORS_PAUSE_S)  # Others must give some back; nothing tells when.
            return
        os.close(self._spare)
        self._spare = None
        try:
            self._listener.accept()[0].close()
        except OSError as again:  # Somebody else was faster to take what was given up.
            log.warning("could not turn it away: %s", again)

    def _serve(self, sock: socket.socket, name: str) -> None:
        try:
            sock, credentials = self._admit(sock)
        except (AuthenticationError, OSError) as reason:
            self._log_refusal(name, str(reason))
            sock.close()
            return
        channel = FrameChannel(stream_over(sock), self._max_frame_bytes)
        served = Served(channel, self._service(), {**self._config, "credentials": credentials})
        try:
            self._serve_all(served)
        except EOFError as end:
            log.debug("%s: %s", name, end)
        except Exception as error:
            log.warning("closed the connection of %s, which sent what no RPyC peer sends: %r", name, error)
        finally:
            served.close()

    def _log_refusal(self, name: str, reason: str) -> None:
        """Say it once a minute for each source, which may come back as often as it likes."""
        now = time.monotonic()
        source = name.rpartition(":")[0]
        is_news = now - self._refused.get(source, -_REFUSED_EVERY_S) >= _REFUSED_EVERY_S
        log.log(logging.WARNING if is_news else logging.DEBUG, "refused %s: %s", name, reason)
        if is_news:
            if len(self._refused) >= _MAX_SOURCES:
                self._refused.clear()
            self._refused[source] = now
