"""Servers that are far away, whose answers take longer than functions, or do not come any more."""

from __future__ import annotations

import operator
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import rpyc

from distribute_challenge import PoolExecutor, ServerUnavailable, compute_this
from tests.faraway import far_away
from tests.running import HANG_S, ROOT, RunningServer, eventually


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


def test_far_workers_are_reached_before_they_are_leased(server: RunningServer):
    with far_away(server, 0.05) as network, server.connect() as other:
        held = [other.root.find_free_worker() for _ in server.ports]
        with PoolExecutor(network.address, prints=False) as pool:
            futures = [pool.submit(square, number) for number in range(4)]
            eventually(lambda: have_clients(server), "workers are reached")
            for port in held:
                other.root.free_worker(port)
            assert [future.result(HANG_S) for future in futures] == [0, 1, 4, 9]
            assert list(pool.map(square, range(100))) == [number**2 for number in range(100)]
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


def test_workers_that_were_replaced_since_they_were_reached_run_the_tasks(server: RunningServer):
    with far_away(server, 0.05) as network, server.connect() as other:
        held = [other.root.find_free_worker() for _ in server.ports]
        with PoolExecutor(network.address, prints=False) as pool:
            futures = [pool.submit(square, number) for number in range(4)]
            eventually(lambda: have_clients(server), "workers are reached")
            for port in held:
                other.root.recycle_worker(port, "a test")
            assert [future.result(HANG_S) for future in futures] == [0, 1, 4, 9]
        server.await_busy([0, 0])


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
