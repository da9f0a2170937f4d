"""From an address to the pool that is there. It chooses, no more."""

from __future__ import annotations

import atexit
import os

from distribute_challenge.address import Address
from distribute_challenge.client.connections import Connections

# Connections belong to a process: a forked child makes its own.
_pools: dict[tuple[Address, int], Connections] = {}


def connections_to(address: Address) -> Connections:
    """This process's connections to the pool at `address`, closed when the program ends."""
    key = (address, os.getpid())
    pool = _pools.get(key)
    if pool is None:
        mine = Connections(address)
        pool = _pools.setdefault(key, mine)  # In one step: another thread may have been faster.
        if pool is mine:
            atexit.register(_close, key)
    return pool


def _close(key: tuple[Address, int]) -> None:
    if key[1] == os.getpid():  # And not a forked child that ends: another thread may have held a lock then.
        _pools[key].close()
