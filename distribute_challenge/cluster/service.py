"""The calls of a server that records a cluster: those that tell its state. It has no workers to give out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import rpyc


class ClusterService(rpyc.Service):
    """What `compute status` and `compute top` ask; what else a client would call says where to go."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def exposed_status(self) -> str:
        """JSON on the workers and the counts."""
        return json.dumps(self._status())

    def exposed_stack(self, port: int) -> NoReturn:  # noqa: ARG002
        """No server of the cluster's asks its workers."""
        raise RuntimeError("a Dask cluster does not tell stacks: see the call stacks in Dask's own dashboard")

    def exposed_acquire_worker(self, *_args: Any) -> NoReturn:
        """There is none."""
        scheduler = self._status()["scheduler"]
        raise RuntimeError(
            f"this server records a Dask cluster, and has no workers: connect to {scheduler} instead"
        )

    exposed_find_free_worker = exposed_acquire_worker
