"""A task that Dask has brought to a worker, whose outcome and output go back through Dask."""

from __future__ import annotations

import time
from collections.abc import Callable

from distribute_challenge.calls.payload import LOG, Outcome, Piece
from distribute_challenge.client.dask.freight import Forwarded
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.peers.printing import Printer
from distribute_challenge.client.tasks.task import Task

LIVE_S = 0.1  # What a function prints later than that is told at once, else it comes with its outcome.
MESSAGE_BYTES = 1 << 14  # The scheduler keeps the last thousand of each client.

Tell = Callable[[int, bytes], None]


class ToldTask(Task):
    """A task whose output is told to its client, through Dask."""

    __slots__ = ("_tell",)

    def __init__(self, name: str, parcel: Forwarded, options: Options, tell: Tell) -> None:
        super().__init__(name, parcel, Pace(), options, parcel.count)
        self._tell = tell

    def printer(self) -> Printer:
        """What it prints is told."""
        return Printer(self._print)

    def _print(self, number: int, data: bytes) -> None:
        while data:
            size = len(data) if number == LOG else _end_of_a_letter(data)  # A log record is one.
            self._tell(number, data[:size])
            data = data[size:]


class CarriedTask(ToldTask):
    """A task whose result is the outcome itself, and not what is in it."""

    __slots__ = ("_began_at", "printed")

    def __init__(self, name: str, parcel: Forwarded, options: Options, tell: Tell) -> None:
        super().__init__(name, parcel, options, tell)
        self.printed: list[Piece] = []  # that has not been told
        self._began_at = time.monotonic()

    def complete(self, outcome: Outcome) -> None:
        """Give the future the outcome."""
        self.future.task = None
        self.future.set_result(outcome)

    def _print(self, number: int, data: bytes) -> None:
        if time.monotonic() - self._began_at < LIVE_S:
            self.printed.append((number, data))
        else:
            super()._print(number, data)


def _end_of_a_letter(data: bytes) -> int:
    """Where a message may end. What is not UTF-8 has no letters, which are of at most four bytes."""
    for size in range(MESSAGE_BYTES, MESSAGE_BYTES - 4, -1):
        if size >= len(data) or data[size] & 0xC0 != 0x80:
            return size
    return MESSAGE_BYTES
