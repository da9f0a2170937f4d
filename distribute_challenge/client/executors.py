"""From an address to an executor there. It chooses, no more."""

from __future__ import annotations

import os

from distribute_challenge.address import ANY_USER_VARIABLE, chosen
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.tls import VARIABLES, Tls

_Key = tuple[str, Tls | None, str | None]
_ASKED = (*VARIABLES, ANY_USER_VARIABLE)
_executors: dict[tuple[_Key, tuple[str | None, ...]], PoolExecutor] = {}  # by what the environment says, too
_latest: dict[_Key, PoolExecutor] = {}


def executor_at(server: str | None, tls: Tls | None = None, profile: str | None = None) -> PoolExecutor:
    """This process's executor on the pool at an address, closed when the program ends.

    A private pool writes its `profile` there. Raises PoolError if the environment has some of the variables
    for TLS, and not all.
    """
    key = (chosen() if server is None else server, tls, profile)
    executor = _latest.get(key)
    # The program may change its environment, which matters until the pool has let it in.
    if executor is None or not executor.engine.has_answered:
        said = tuple(map(os.environ.get, _ASKED))
        executor = _executors.get((key, said))
        if executor is None:
            # In one step: another thread may have been faster.
            executor = _executors.setdefault((key, said), PoolExecutor(key[0], tls=tls, profile=profile))
        _latest[key] = executor
    return executor
