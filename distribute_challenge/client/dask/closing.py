"""A Dask client that is closed if it cannot be made."""

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
