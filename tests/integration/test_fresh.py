"""`server.py --fresh`: a worker that passes from one program to another is a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distribute_challenge import PoolExecutor, compute_this
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually

PROGRAM = """
import os, sys
from distribute_challenge import compute_this

@compute_this
def pid():
    return os.getpid()

print(*[pid().run() for _ in range(3)])
"""


def pids_seen_by_a_program(server: RunningServer, folder: Path) -> list[int]:
    """Those of the workers that three calls of a program of its own found."""
    file = folder / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COMPUTE_SERVER": server.address}
    command = [sys.executable, str(file)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=True
    )
    return [int(pid) for pid in done.stdout.split()]


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(1, "--fresh")


def test_each_program_gets_a_new_worker_and_keeps_it(server: RunningServer, tmp_path: Path):
    first, second = (pids_seen_by_a_program(server, tmp_path) for _ in range(2))
    assert len(set(first)) == len(set(second)) == 1
    assert set(first) != set(second)
    status = server.idle_status()
    assert (status["finished"], status["failed"]) == (6, 0)


def test_calls_of_all_kinds_of_one_program_share_its_worker(server: RunningServer):
    run = compute_this(server=server.address)(os.getpid)
    with PoolExecutor(server.address) as one, PoolExecutor(server.address) as two:
        pids = {run().run(), *one.map(_pid, range(4)), two.submit(os.getpid).result(HANG_S), run().run()}
    assert pids == set(server.worker_pids())


def test_an_executor_with_an_initializer_is_a_program_of_its_own(server: RunningServer):
    with (
        PoolExecutor(server.address) as pool,
        PoolExecutor(server.address, initializer=_pid, initargs=(0,)) as own,
    ):
        pids = [executor.submit(os.getpid).result(HANG_S) for executor in (pool, own, own, pool)]
    assert pids[1] == pids[2]
    assert len(set(pids)) == 3


def test_programs_that_take_turns_all_get_their_results(start_server: Callable[..., RunningServer]):
    server = start_server(2, "--fresh")
    results: list[list[int]] = []

    def use_a_program_of_its_own() -> None:
        with PoolExecutor(server.address, initializer=_pid, initargs=(0,)) as pool:
            results.append([pool.submit(abs, -number).result(HANG_S) for number in range(2)])

    threads = [threading.Thread(target=use_a_program_of_its_own) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert results == [[0, 1]] * 4
    status = server.idle_status()
    assert (status["finished"], status["failed"], status["waiting"]) == (8, 0, 0)


def test_an_initializer_that_takes_long_is_not_run_for_nothing_while_others_wait(server: RunningServer):
    """Each worker is new to who gets it: to give one back once it is prepared would get nobody anywhere."""
    with (
        PoolExecutor(server.address, initializer=time.sleep, initargs=(0.3,)) as one,
        PoolExecutor(server.address, initializer=time.sleep, initargs=(0.3,)) as two,
    ):
        futures = [pool.submit(abs, -number) for number in range(3) for pool in (one, two)]
        assert [future.result(HANG_S) for future in futures] == [0, 0, 1, 1, 2, 2]


def test_a_task_of_a_task_runs_on_a_worker_of_its_program(start_server: Callable[..., RunningServer]):
    server = start_server(2, "--fresh")
    with PoolExecutor(server.address) as pool:
        outer, inner = pool.submit(_nested, server.address).result(HANG_S)
    assert outer != inner
    assert {outer, inner} == set(server.worker_pids())


def test_each_connection_of_a_plain_client_gets_a_new_worker_also_if_it_only_asks(server: RunningServer):
    (port,) = server.ports
    pids = []
    for _ in range(2):
        with server.connect() as scheduler:
            find = scheduler.root.find_free_worker
            eventually(lambda find=find: find() == port, "a worker is free")
            for _ in range(2):
                with connect(port) as worker:
                    pids.append(worker.root.run_code("import os; result = os.getpid()"))
                scheduler.root.free_worker(port)
                assert find() == port
            scheduler.root.free_worker(port)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_who_says_no_program_is_told(server: RunningServer):
    with server.connect() as scheduler:
        for wrong in (None, "a text", b"", b"long" * 100):
            with pytest.raises(ValueError, match="bytes"):
                scheduler.root.introduce(wrong)
        scheduler.root.introduce(b"this one")


def _pid(_: int) -> int:
    return os.getpid()


def _nested(address: str) -> tuple[int, int]:
    inner = compute_this(server=address)(os.getpid)().run()
    return os.getpid(), inner
