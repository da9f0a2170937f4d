"""A Dask client that waits for no stuck worker, and leaves nothing behind if it cannot be made, or closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import distributed

ANSWER_S = 5.0  # Who has not answered by then is stuck, or gone.


class Client(distributed.Client):
    """A client that has closed what it had opened when making it fails, whatever the other end has said.

    Dask's own does so for some errors; after others it waits for the other end when it goes. Its class has
    the same name, by which the scheduler knows clients.
    """

    async def _start(self, **how: Any) -> Any:
        try:
            return await super()._start(**how)
        except BaseException:
            await self._close(fast=True)
            raise

    def start(self, **how: Any) -> None:
        """Called by Dask when it is made."""
        try:
            super().start(**how)
        except BaseException:
            self.abandon()
            raise

    def ask_workers(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """What a function returns on each worker. Raises TimeoutError if one of them does not answer."""
        try:
            answers: dict[str, Any] = self.run(function, *args, on_error="ignore", callback_timeout=ANSWER_S)
        except asyncio.TimeoutError as error:  # On Python 3.10 that is another one.
            raise TimeoutError(*error.args) from None
        return answers

    def end(self) -> None:
        """Close it, or leave it if that takes long: it may still look for a scheduler that has gone."""
        try:
            self.close(ANSWER_S)
        except Exception:  # It may be just closing itself, too.
            self.abandon()  # Or it would wait for that again when it goes.

    def abandon(self) -> None:
        """End its thread at once, and with it whatever it still waits for."""
        self.status = "closed"
        self._loop_runner.stop()
