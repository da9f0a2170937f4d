"""Connections made in threads of their own, so that no peer, however stuck, holds up another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from distribute_challenge.client.peers.connections import MAX_IDLE, Connections
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection

log = logging.getLogger(__name__)

T = TypeVar("T")
Opened = tuple[ServerConnection, T]  # and the answer to the first call
TakesWorker = Callable[[WorkerConnection | BaseException], None]


class Opener:
    """Makes connections. What came of it, perhaps an error, is given to `take`, which `post` has called."""

    def __init__(self, connections: Connections, post: Callable[[Callable[[], None]], None]) -> None:
        self._connections = connections
        self._post = post
        self._has_reached_ahead = False
        self._coming: dict[int, TakesWorker | None] = {}  # to workers, by port, and who waits for them

    def open_server(
        self, first: Callable[[ServerConnection], T], take: Callable[[Opened[T] | BaseException], None]
    ) -> None:
        """Make a connection to the server, and the first call over it, which is answered soon."""
        self._in_thread(lambda: self._connections.new_server(first), take)

    def open_worker(self, port: int, take: TakesWorker) -> None:
        """A connection to the worker leased on `port`: one that there is or that is coming, or a new one."""
        if (worker := self._connections.take_idle_worker(port)) is not None:
            take(worker)
        elif port in self._coming:
            self._coming[port] = take
        else:
            self._in_thread(lambda: self._connections.new_worker(port), take)

    def reach_ahead(self, wanted: int, leased: set[int]) -> None:
        """Once, if as many workers are wanted as there are: connect to those that are not leased yet.

        At most MAX_IDLE: each takes a thread meanwhile.
        """
        ports = self._connections.ports
        if self._has_reached_ahead or not ports or wanted < len(ports):
            return
        self._has_reached_ahead = True
        for port in ports[:MAX_IDLE]:
            if port not in leased and not self._connections.has_idle_worker(port):
                self._coming[port] = None
                new_worker = partial(self._connections.new_worker, port)
                self._in_thread(new_worker, partial(self._reached, port), is_optional=True)

    def _reached(self, port: int, made: WorkerConnection | BaseException) -> None:
        take = self._coming.pop(port)
        if isinstance(made, BaseException):
            log.debug("the worker on port %d cannot be reached yet: %s", port, made)
        elif self._connections.has_idle_worker(port):  # That one may be prepared.
            made.close()
        else:
            self._connections.put_worker(port, made)
        if take is not None:  # If there is none after all, or its process was replaced meanwhile, a new one.
            self.open_worker(port, take)

    def _in_thread(
        self, make: Callable[[], T], take: Callable[[T | BaseException], None], *, is_optional: bool = False
    ) -> None:
        """Have `take` called with what `make` returns or raises in a thread.

        If none can be started, that is made here, unless it is optional.
        """

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
        except RuntimeError as error:  # So it is at the end of a program.
            if is_optional:
                take(error)
            else:
                run()
