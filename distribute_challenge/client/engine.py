"""From an address to an executor there. It chooses, no more."""

from __future__ import annotations

import atexit
import os
from typing import Any

from distribute_challenge.address import SERVER_VARIABLE, chosen
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.tls import VARIABLES, Tls

# Connections belong to a process: a forked child makes its own.
_Key = tuple[str, Tls | None, int]
_pools: dict[_Key, PoolExecutor] = {}

# What was asked for, and what the environment said then: to look at that takes longer than all else here.
_Question = tuple[str | None, Tls | None, int, tuple[Any, ...]]
_known: dict[_Question, PoolExecutor] = {}
_NAMES = (SERVER_VARIABLE, *VARIABLES)
_NAMES_INSIDE = tuple(map(os.fsencode, _NAMES))


def executor_at(server: str | None, tls: Tls | None = None, wait_s: float = 0) -> PoolExecutor:
    """This process's executor on the pool at an address, closed when the program ends.

    A server that was never there yet is waited for from now on, at most `wait_s` seconds. Raises PoolError
    if the environment has some of the variables for TLS, and not all.
    """
    inside = getattr(os.environ, "_data", None)  # As the environment is kept, where that is known.
    said = map(os.environ.get, _NAMES) if inside is None else map(inside.get, _NAMES_INSIDE)
    question = (server, tls, os.getpid(), tuple(said))
    pool = _known.get(question)
    if pool is None:
        pool = _known[question] = _executor_at(server, tls)
    pool.wait_for_server(wait_s)
    return pool


def _executor_at(server: str | None, tls: Tls | None) -> PoolExecutor:
    key = (chosen(server), Tls.choose(tls), os.getpid())
    pool = _pools.get(key)
    if pool is None:
        mine = PoolExecutor(key[0], tls=key[1])
        pool = _pools.setdefault(key, mine)  # In one step: another thread may have been faster.
        if pool is mine:
            atexit.register(_close, key)
    return pool


def _close(key: _Key) -> None:
    if key[2] == os.getpid():  # And not a forked child that ends: another thread may have held a lock then.
        _pools[key].shutdown()
