"""Asking the server for a worker: in its line, or only for one that is free. It knows no tasks."""

from __future__ import annotations

import time

from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.peers.server import RECYCLED_S, ServerConnection

PATIENCE_S = 0.2  # in line, before it is worth leaving


class Place:
    """A question for a worker; with the `tasks` of an executor, a place in line."""

    def __init__(self, server: ServerConnection, distance: Distance, tasks: tuple[int, bytes] | None) -> None:
        self.waits = tasks is not None
        self._server = server
        self._distance = distance
        self._asked_at = time.monotonic()
        self._left_at: float | None = None
        self._answer = server.ask_for_worker(*tasks) if tasks else server.ask_for_free_worker()

    def port(self, now: float) -> int | None:
        """The port of the worker; -1 if there is none, None as long as there is no answer.

        Raises ServerUnavailable if the server is stopping.
        """
        if not self._answer.is_here:
            if self._left_at is None or now - self._left_at < RECYCLED_S:
                return None
            self._server.close()  # It does not even answer that it has been left.
            return -1
        self._distance.note(now - self._asked_at, is_at_most=True)
        return self._server.port_in(self._answer)

    def leave(self, now: float) -> None:
        """Stand in line no longer, if it has been for some time. The answer tells when that is over.

        If the connection were closed, a worker that is just handed over would have to be replaced.
        """
        if self.waits and self._left_at is None and now - self._asked_at > PATIENCE_S:
            self._left_at = now
            self._server.leave_line()
