"""From an address to an executor there. It chooses, no more."""

from __future__ import annotations

import os
from typing import Any

from distribute_challenge.address import ANY_USER_VARIABLE, chosen
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.tls import VARIABLES, Tls

# Connections belong to a process: a forked child makes its own.
_Key = tuple[str, Tls | None, str | None, int, tuple[Any, ...]]
_ASKED = (*VARIABLES, ANY_USER_VARIABLE)
_executors: dict[_Key, PoolExecutor] = {}


def executor_at(server: str | None, tls: Tls | None = None, profile: str | None = None) -> PoolExecutor:
    """This process's executor on the pool at an address, closed when the program ends.

    A private pool writes its `profile` there. Raises PoolError if the environment has some of the variables
    for TLS, and not all.
    """
    said = tuple(map(os.environ.get, _ASKED))  # The program may change its environment.
    key = (chosen() if server is None else server, tls, profile, os.getpid(), said)
    executor = _executors.get(key)
    if executor is None:
        # In one step: another thread may have been faster.
        executor = _executors.setdefault(key, PoolExecutor(key[0], tls=tls, profile=profile))
    return executor
