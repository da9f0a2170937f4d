"""The peers whose own processes keep busy while they are idle: each is measured alone."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.functions import each
from benchmarks.peers.peer import POOLS, Function, Peer
from benchmarks.recording import WORKERS


class _Heavy(Peer):
    """In the longest case that says nothing new of them, these are not measured."""

    cases = POOLS - {"short_submit"}
    is_heavy = True


class Dask(_Heavy):
    """Dask distributed, with processes."""

    title = "Dask"
    package = "distributed"

    def start(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = Client(self._cluster)

    def caller(self, function: Function) -> Function:
        return lambda *arguments: self._client.submit(function, *arguments, pure=False).result()

    def submit(self, function: Function, count: int) -> None:
        # A function that is called pure is run once, and its result found again.
        self._client.gather([self._client.submit(function, pure=False) for _ in range(count)])

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        assert chunk is not None
        if chunk > 1:
            function, items = functools.partial(each, function), chunked(items, chunk)
        self._client.gather(self._client.map(function, items, pure=False))

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()


class Ray(_Heavy):
    """Ray, without its dashboard."""

    title = "Ray"
    package = "ray"

    def start(self) -> None:
        import ray

        self._ray = ray
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    @functools.cache  # noqa: B019  The peer lives as long as its process.
    def _remote(self, function: Function) -> Any:
        return self._ray.remote(function)

    def caller(self, function: Function) -> Function:
        remote = self._remote(function).remote
        return lambda *arguments: self._ray.get(remote(*arguments))

    def submit(self, function: Function, count: int) -> None:
        remote = self._remote(function).remote
        self._ray.get([remote() for _ in range(count)])

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        assert chunk is not None
        if chunk == 1:
            remote = self._remote(function).remote
            self._ray.get([remote(item) for item in items])
        else:
            remote = self._remote(each).remote
            self._ray.get([remote(function, part) for part in chunked(items, chunk)])

    def stop(self) -> None:
        self._ray.shutdown()


class IPyParallel(_Heavy):
    """ipyparallel: IPython engines, behind its load balancer."""

    title = "ipyparallel"
    package = "ipyparallel"

    def start(self) -> None:
        os.environ["IPYTHONDIR"] = tempfile.mkdtemp(dir=os.curdir)  # Else it is the user's own.
        import ipyparallel

        self._cluster = ipyparallel.Cluster(n=WORKERS, log_level=logging.ERROR)
        client = self._cluster.start_and_connect_sync(activate=False)
        self._view = client.load_balanced_view()

    def caller(self, function: Function) -> Function:
        return lambda *arguments: self._view.apply_sync(function, *arguments)

    def submit(self, function: Function, count: int) -> None:
        for answer in [self._view.apply_async(function) for _ in range(count)]:
            answer.get()

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        self._view.map_async(function, items, chunksize=chunk, ordered=True).get()

    def stop(self) -> None:
        self._view.client.close()
        import asyncio

        asyncio.run(self._cluster.stop_cluster())


def chunked(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in chunks.

    >>> chunked([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [items[start : start + size] for start in range(0, len(items), size)]
