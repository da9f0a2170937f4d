"""Ctrl-C at any moment of a call: the executor works on, no worker stays leased, and nothing runs twice."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from distribute_challenge import PoolExecutor, compute_this
from distribute_challenge.client.local import PrivateServer
from tests.interrupts import Moments
from tests.running import HANG_S, RunningServer, eventually

MOMENTS = 12  # of each call, evenly spread


def note(path: str, name: str) -> str:
    """Leave a trace of each time that it runs."""
    import os

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\n".encode())
    os.close(file)
    return name


noted = compute_this(prints=False)(note)
Call = Callable[[PoolExecutor, str, str], Any]


def submit(pool: PoolExecutor, path: str, name: str) -> Any:
    pool.submit(note, path, name)


def run(_: PoolExecutor, path: str, name: str) -> Any:
    noted(path, name).run()


def map_all(pool: PoolExecutor, path: str, name: str) -> Any:
    list(pool.map(note, [path] * 4, [f"{name}-{number}" for number in range(4)], chunksize=1))


def map_lazily(pool: PoolExecutor, path: str, name: str) -> Any:
    list(pool.map(note, [path] * 4, (f"{name}-{number}" for number in range(4)), chunksize=1))


def shutdown(pool: PoolExecutor, path: str, name: str) -> Any:
    pool.submit(note, path, name)
    pool.shutdown()


@pytest.mark.parametrize("call", [submit, run, map_all, map_lazily, shutdown])
def test_ctrl_c_at_any_moment_leaves_a_pool_that_works(server: RunningServer, tmp_path: Path, call: Call):
    path = tmp_path / "notes"
    with PoolExecutor(prints=False) as pool:
        call(pool, str(path), "first")  # What is cached has no moments later.
    with PoolExecutor(prints=False) as pool:
        moments = Moments()
        moments.of(lambda: call(pool, str(path), "counted"))
    for at in range(1, moments.count, max(moments.count // MOMENTS, 1)):
        with PoolExecutor(prints=False) as pool:
            interrupted = Moments(at)
            # One step of the standard library's conditions makes a RuntimeError of it.
            with contextlib.suppress(KeyboardInterrupt, RuntimeError):
                interrupted.of(lambda pool=pool, at=at: call(pool, str(path), f"interrupted-{at}"))
            if call is not shutdown:
                assert pool.submit(note, str(path), f"then-{at}").result(HANG_S), interrupted.where
            assert noted(str(path), f"alone-{at}").run()
    server.idle_status()
    assert [name for name, count in Counter(path.read_text().split()).items() if count > 1] == []


def test_ctrl_c_in_the_first_call_on_a_private_pool_leaves_a_pool_that_works_and_no_server():
    children = set(psutil.Process().children())

    def first_call() -> PoolExecutor:
        pools.append(PoolExecutor("local://1"))
        pools[-1].submit(abs, -1).result(HANG_S)
        return pools[-1]

    pools: list[PoolExecutor] = []
    moments = Moments()
    moments.of(first_call).shutdown()
    for number, at in enumerate(range(1, moments.count, max(moments.count // MOMENTS, 1))):
        pools.clear()
        interrupted = Moments(at)
        # One step of the standard library's conditions makes a RuntimeError of it.
        with contextlib.suppress(KeyboardInterrupt, RuntimeError):
            interrupted.of(first_call)
        if pools and number % 2:
            assert pools[-1].submit(abs, -2).result(HANG_S) == 2, interrupted.where
            pools[-1].shutdown()
        pools.clear()
        gc.collect()
        eventually(lambda: children.issuperset(psutil.Process().children()), interrupted.where)


def test_ctrl_c_while_a_private_server_is_awaited_leaves_one_that_can_be_had():
    moments = Moments()
    server = PrivateServer(1)
    moments.of(server.address)
    server.close()
    for at in range(1, moments.count + 1, max(moments.count // MOMENTS, 1)):
        interrupted, server = Moments(at), PrivateServer(1)
        with contextlib.suppress(KeyboardInterrupt):
            interrupted.of(server.address)
        with socket.create_connection(server.address()):
            server.close()
