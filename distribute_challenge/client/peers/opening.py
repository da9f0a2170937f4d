"""Connections made in threads of their own, so that no peer, however stuck, holds up another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection

log = logging.getLogger(__name__)

T = TypeVar("T")
Opened = tuple[ServerConnection, T]  # and the answer to the first call


class Opener:
    """Makes connections. What came of it, perhaps an error, is given to `take`, which `post` has called."""

    def __init__(self, connections: Connections, post: Callable[[Callable[[], None]], None]) -> None:
        self._connections = connections
        self._post = post

    def open_server(
        self, first: Callable[[ServerConnection], T], take: Callable[[Opened[T] | BaseException], None]
    ) -> None:
        """Make a connection to the server, and the first call over it, which is answered soon."""
        self._in_thread(lambda: self._connections.new_server(first), take)

    def open_worker(self, port: int, take: Callable[[WorkerConnection | BaseException], None]) -> None:
        """Make a connection to the worker leased on `port`."""
        self._in_thread(lambda: self._connections.new_worker(port), take)

    def _in_thread(self, make: Callable[[], T], take: Callable[[T | BaseException], None]) -> None:
        """Have `take` called with what `make` returns or raises in a thread: here, if none can be started."""

        def run() -> None:
            made: T | BaseException
            try:
                made = make()
            except BaseException as error:
                made = error
            try:
                self._post(lambda: take(made))
            except RuntimeError as error:  # The program is ending, and its connections with it.
                log.debug("a connection comes too late: %s", error)

        try:
            threading.Thread(target=run, name="connect", daemon=True).start()
        except RuntimeError:  # So it is at the end of a program.
            run()
