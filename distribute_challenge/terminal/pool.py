"""The pool that a command looks at: where it is, and what it is asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from distribute_challenge import cli
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.wire.access import Trust

T = TypeVar("T")


class Pool:
    """A connection to the server that a user has chosen. All that it does raises PoolError."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.address, tls = cli.server_in(options)
        self._server = ServerConnection(self.address, Trust.choose(tls))
        self._has_answered = False

    def status(self) -> dict[str, Any]:
        """The state of the pool."""
        return self._ask(self._server.status)

    def stack(self, port: int) -> str:
        """The stack of what a worker runs. Raises as `ServerConnection.stack` does, too."""
        return self._ask(lambda: self._server.stack(port))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            answer = call()
        except (EOFError, OSError) as error:
            raise (self._server.ended if self._has_answered else self._server.failed)(error) from None
        self._has_answered = True
        return answer
