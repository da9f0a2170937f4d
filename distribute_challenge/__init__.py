r"""Run Python functions on a shared pool of worker processes, and see what the workers did.

::

     python3 challenge.py                       python3 server.py N                     (port 18811)
     +-----------+  1 acquire a worker  ------> +--------------------------+
     |  client   |  <---------- its port -----  |  server: the busy list,  | starts, watches, replaces
     |           |                              |  FIFO line of clients    |-----------+
     |           |  2 run_code(source, call)    +-----------+--------------+           v
     |           | -----------------------------------------+----------> +----------------------+
     |           |  <--------------- outcome ---------------+----------- | worker.py  x N       | (18812, ...)
     |           |  3 free_worker(port) -----> server       |            | one function at once |
     +-----------+                                          v            +----------------------+
                                  profiling/results_N.csv  (every change of the busy list)

>>> from distribute_challenge import compute_this
>>> @compute_this
... def func(x):
...     return x * x
>>> func(3).run()                                         # doctest: +SKIP
9
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distribute_challenge.client.compute import compute_this
    from distribute_challenge.client.forwarding import forward_logging
    from distribute_challenge.client.pool import PoolExecutor
    from distribute_challenge.client.tasks.progress import progress
    from distribute_challenge.errors import (
        AccessDenied,
        PoolError,
        ProfileFormatError,
        ServerUnavailable,
        TaskNotSendable,
        TaskTimeout,
        WorkerLost,
    )
    from distribute_challenge.joblib import register_joblib as register_joblib
    from distribute_challenge.tls import Tls

__all__ = [
    "AccessDenied",
    "PoolError",
    "PoolExecutor",
    "ProfileFormatError",
    "ServerUnavailable",
    "TaskNotSendable",
    "TaskTimeout",
    "Tls",
    "WorkerLost",
    "compute_this",
    "forward_logging",
    "progress",
]  # And `register_joblib`, for those who have joblib.


# Where each is, if not among the errors.
_HOMES = {
    "PoolExecutor": "client.pool",
    "Tls": "tls",
    "compute_this": "client.compute",
    "forward_logging": "client.forwarding",
    "progress": "client.tasks.progress",
    "register_joblib": "joblib",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: a worker or server never loads the client."""
    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = getattr(home, name)
    return value
