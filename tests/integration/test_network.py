"""Servers that are far away, whose answers take longer than functions, or do not come any more."""

from __future__ import annotations

import contextlib
import gc
import json
import operator
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest
import rpyc

from distribute_challenge import PoolExecutor, ServerUnavailable, TaskTimeout, compute_this
from distribute_challenge.address import Address
from distribute_challenge.client.peers.worker import WorkerConnection
from tests.faraway import far_away
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually


def square(x):
    return x * x


def takes(seconds, x):
    import time

    time.sleep(seconds)
    return x


def have_clients(server):
    return all(
        any(link.status == psutil.CONN_ESTABLISHED for link in psutil.Process(pid).net_connections("tcp"))
        for pid in server.worker_pids()
    )


def test_a_server_that_is_far_away(server: RunningServer):
    """To hear from it takes longer than a worker is kept without asking."""
    with far_away(server, 0.07, workers_delay_s=0) as network, PoolExecutor(network.address) as pool:
        futures = [pool.submit(takes, 0.15, number) for number in range(8)]
        assert [future.result(HANG_S) for future in futures] == list(range(8))
        assert list(pool.map(square, range(100))) == [number**2 for number in range(100)]


def test_a_first_function_takes_few_round_trips(server: RunningServer):
    with far_away(server, 0.1) as network:
        began_at = time.monotonic()
        assert compute_this(server=network.address, prints=False)(square)(3).run() == 9
        # What the pool is like, a worker, the call; and how the worker is, for each second that it takes.
        assert len(network.connections) <= 3
        assert network.questions <= 4 + (time.monotonic() - began_at)


def test_tasks_that_wait_for_far_workers_are_counted_once(start_server: Callable[..., RunningServer]):
    """Each of an executor's lanes tells how many there are."""
    server = start_server(4)
    counted = []
    with far_away(server, 0.03) as network, PoolExecutor(network.address) as pool:
        futures = [pool.submit(takes, 0.2, number) for number in range(40)]
        while not futures[-1].done():
            counted.append(server.status()["tasks"])
        assert [future.result(HANG_S) for future in futures] == list(range(40))
    assert 20 <= max(counted) <= 40


@pytest.mark.parametrize("end", ["free", "recycle"])
def test_far_workers_are_reached_before_they_are_leased(server: RunningServer, end: str):
    """Those that were replaced meanwhile are reached again."""
    with far_away(server, 0.05) as network, server.connect() as other:
        held = [other.root.find_free_worker() for _ in server.ports]
        with PoolExecutor(network.address, prints=False) as pool:
            futures = [pool.submit(square, number) for number in range(4)]
            eventually(lambda: have_clients(server), "workers are reached")
            for port in held:
                if end == "free":
                    other.root.free_worker(port)
                else:
                    other.root.recycle_worker(port, "a test")
            assert [future.result(HANG_S) for future in futures] == [0, 1, 4, 9]
            assert list(pool.map(square, range(100))) == [number**2 for number in range(100)]
        if end == "free":
            assert [network.connections.count(port) for port in server.ports] == [1, 1]


def test_far_workers_that_are_not_wanted_are_not_reached(start_server: Callable[..., RunningServer]):
    server = start_server(3)
    with far_away(server, 0.05) as network, server.connect() as other:
        held = [other.root.find_free_worker() for _ in server.ports]
        with PoolExecutor(network.address, max_workers=2) as pool:
            futures = [pool.submit(square, number) for number in range(4)]
            server.await_waiting(1)
            assert set(network.connections) == {server.port}
            for port in held:
                other.root.free_worker(port)
            assert [future.result(HANG_S) for future in futures] == [0, 1, 4, 9]


@pytest.mark.parametrize("way", ["run", "submit", "map"])
def test_a_time_limit_counts_neither_the_way_there_nor_back(server: RunningServer, way: str):
    with PoolExecutor(server.address) as near:  # To import this module takes new workers longer.
        assert list(near.map(takes, [0.5] * 2, range(2), chunksize=1)) == [0, 1]
    with (
        far_away(server, 0.3) as network,
        PoolExecutor(network.address, timeout=1, prints=False) as pool,
    ):
        for number in range(2):
            if way == "run":
                function = compute_this(server=network.address, prints=False, timeout=1)(takes)
                assert function(0.6, number).run() == number
            elif way == "submit":
                assert pool.submit(takes, 0.6, number).result(HANG_S) == number
            else:
                assert list(pool.map(takes, [0.6] * 2, [number] * 2)) == [number] * 2
        endless = pool.submit(takes, 600, 1)
        assert isinstance(endless.exception(HANG_S), TaskTimeout)
    assert server.idle_status()["lost"] == {"timeout": 1}


def test_a_function_that_has_ended_when_it_is_to_be_killed_costs_no_other_one(server: RunningServer):
    with far_away(server, 0.1) as network, PoolExecutor(network.address, 1, prints=False) as pool:
        for _ in range(3):
            futures = [pool.submit(takes, 0.05, number) for number in range(8)]
            futures[2].result(HANG_S)
            futures[3].kill()
            ends = [wait_for(future) for future in futures]
            assert ends[:3] + ends[4:] == [0, 1, 2, 4, 5, 6, 7]
            assert ends[3] in (3, "cancelled")
        endless = pool.submit(takes, 600, 1)
        others = [pool.submit(takes, 0.05, number) for number in range(3)]
        eventually(endless.running, "it runs")
        endless.kill()
        assert wait_for(endless) == "cancelled"
        assert [future.result(HANG_S) for future in others] == [0, 1, 2]


def wait_for(future):
    try:
        return future.result(HANG_S)
    except CancelledError:
        return "cancelled"


def test_only_the_call_that_was_named_is_stopped(server: RunningServer):
    with server.connect() as client:
        port = client.root.find_free_worker()
        with connect(port) as worker:
            assert worker.root.run_code("result = 1") == 1
            pid = worker.root.run_code("import os\nresult = os.getpid()")
            second, unknown = (number.to_bytes(8, "little") for number in (2, 99))
            for _ in range(2):  # The second time another one has ended after it.
                assert client.root.recycle_worker(port, "a test", "killed", second) == ""
                assert client.root.keep_worker(port) == 0
                worker.root.run_code("result = 1")
            assert worker.root.run_code("import os\nresult = os.getpid()") == pid
        ending = json.loads(client.root.recycle_worker(port, "a test", "killed", unknown))
        assert ending["pid"] == pid


def test_a_connection_that_ends_before_it_knows_of_memory_keeps_none(server: RunningServer):
    """Far away its first answer is not waited for."""
    gc.collect()
    gc.disable()
    try:
        with far_away(server, 0.2) as network:
            before = memory_files()
            address = Address.parse(network.address)._replace(port=server.ports[0])
            worker = WorkerConnection(address, may_share=True, is_near=False)
            assert memory_files() == before + 1
            worker.close()
            assert memory_files() == before
    finally:
        gc.enable()


def memory_files() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # Closed between two looks.
            count += "memfd:" in str(entry.readlink())
    return count


# Leaving the line


def test_whoever_leaves_the_line_costs_no_worker_however_far_away(start_server: Callable[..., RunningServer]):
    server = start_server(4)
    with far_away(server, 0.11) as network, PoolExecutor(network.address) as pool:
        for _ in range(8):
            for future in [pool.submit(operator.index, number) for number in range(3)]:
                future.result(HANG_S)
            time.sleep(0.3)  # So long that the lanes have nothing to do, and leave.
        server.await_busy([0] * 4)
    assert server.rows("lost") == []


def test_a_program_that_ends_while_a_worker_is_on_its_way_costs_none(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server = start_server(4)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom distribute_challenge import PoolExecutor\npool = PoolExecutor(sys.argv[1])\n"
        "print([future.result() for future in [pool.submit(pow, x, 2) for x in range(3)]])\n"
    )
    with far_away(server, 0.11) as network:
        for _ in range(4):
            command = [sys.executable, str(program), network.address]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
            assert (result.stdout, result.stderr) == ("[0, 1, 4]\n", "")
        server.await_busy([0] * 4)
    assert server.rows("lost") == []


def test_an_executor_that_needs_no_worker_any_more_leaves_the_line(server: RunningServer):
    with server.connect() as other, PoolExecutor(server.address) as pool:
        held = [other.root.find_free_worker() for _ in range(2)]
        for _ in range(3):
            future = pool.submit(operator.index, 1)
            server.await_waiting(1)
            assert future.cancel()
            server.await_waiting(0)
        future = pool.submit(operator.index, 1)
        server.await_waiting(1)
        other.root.free_worker(held[0])
        assert future.result(HANG_S) == 1
        other.root.free_worker(held[1])
    server.await_busy([0, 0])
    assert server.rows("lost") == []


def test_a_server_that_ends_ends_a_place_in_line(start_server: Callable[..., RunningServer]):
    server = start_server(1)
    with server.connect() as other, PoolExecutor(server.address) as pool:
        other.root.find_free_worker()
        future = pool.submit(operator.index, 1)
        server.await_waiting(1)
        assert future.cancel()
        server.close()
        assert isinstance(pool.submit(operator.index, 1).exception(HANG_S), ServerUnavailable)


def test_a_plain_client_can_leave_the_line(server: RunningServer):
    with server.connect() as other, server.connect() as client:
        for _ in range(2):
            other.root.find_free_worker()
        acquire, leave = rpyc.async_(client.root.acquire_worker), rpyc.async_(client.root.leave_line)
        leave().wait()  # Nothing happens to who is not in line.
        for _ in range(2):
            answer = acquire()
            server.await_waiting(1)
            leave()
            assert answer.value == -1
            server.await_waiting(0)


def test_what_else_a_client_says_while_it_waits_is_done_later(server: RunningServer):
    with server.connect() as other, server.connect() as client:
        held = [other.root.find_free_worker() for _ in range(2)]
        acquire, status = rpyc.async_(client.root.acquire_worker), rpyc.async_(client.root.status)
        answer = acquire()
        server.await_waiting(1)
        later = [status() for _ in range(3)]
        other.root.free_worker(held[0])
        assert answer.value == held[0]
        assert all(f'"port": {held[0]}' in answer.value for answer in later)
