"""One client connection, as a holder of leases, and how its thread waits: for its bell, or its client."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable, Hashable

from distribute_challenge.server.clients import Clients, are_stopped
from distribute_challenge.server.polling import await_any
from distribute_challenge.wire.descriptors import check_left

log = logging.getLogger(__name__)

_HANG_UP = getattr(select, "POLLRDHUP", 0)  # Where it is missing, POLLHUP (always reported) has to do.


class Caller:
    """One client connection, as a holder of leases: its socket and its bell."""

    def __init__(self, name: str, connection: int, clients: Clients | None = None) -> None:
        self.name = name
        self.program: Hashable = self  # to which it belongs, as far as it has said
        self._connection = connection
        self._clients = clients
        self._pids: list[int] | None = None  # those of the client, once they have been looked for
        self._bell: list[int] = []  # the reading and the writing end of a pipe, once it is put up
        self.next_call: Callable[[], str | None] = _nothing  # what the client says while it waits
        self._listens = True  # unless it has said something that is for later

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

    def is_stopped(self) -> bool:
        """Whether the client's process is known to be stopped, as by Ctrl-Z."""
        return are_stopped(self._pids or [])

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


def _nothing() -> None:
    """It says nothing."""
