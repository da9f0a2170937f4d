"""One client connection, as a holder of leases, and how its thread waits: for its bell, or a hang-up."""

from __future__ import annotations

import os
import select

from distribute_challenge.server.polling import await_any

_HANG_UP = getattr(select, "POLLRDHUP", 0)  # Where it is missing, POLLHUP (always reported) has to do.


class Caller:
    """One client connection, as a holder of leases: its socket and its bell."""

    def __init__(self, name: str, connection: int) -> None:
        self.name = name
        self._connection = connection
        self._bell: list[int] = []  # the reading and the writing end of a pipe, once it is put up

    def __str__(self) -> str:
        return self.name

    def has_hung_up(self) -> bool:
        """Whether the client's end of the connection is closed."""
        return await_any({self._connection: _HANG_UP}, 0)

    def await_bell(self, timeout_s: float | None) -> None:
        """Return when the bell has rung, the client has hung up, or `timeout_s` seconds have passed."""
        await_any({self._connection: _HANG_UP, self._bell[0]: select.POLLIN}, timeout_s)

    def ring(self) -> None:
        """Wake `await_bell`. Only for a caller that has just left the line, once."""
        os.write(self._bell[1], b"!")

    def answer_bell(self) -> None:
        """Take note of a `ring`."""
        os.read(self._bell[0], 1)

    def prepare_to_wait(self) -> None:
        """Put up a bell. Raises RuntimeError if there are no descriptors left."""
        try:
            self._bell = self._bell or [*os.pipe()]
        except OSError as error:
            raise RuntimeError(f"the server cannot let one more client wait ({error.strerror})") from None

    def close(self) -> None:
        """Take the bell down. Harmless to repeat."""
        while self._bell:
            os.close(self._bell.pop())
