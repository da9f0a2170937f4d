"""A Dask client that leaves nothing behind if it cannot be made, or cannot be closed."""

from __future__ import annotations

from typing import Any

import distributed


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

    def abandon(self) -> None:
        """End its thread at once, and with it whatever it still waits for."""
        self.status = "closed"
        self._loop_runner.stop()
