"""Large values: the same at both ends, in memory of their own, and nothing left when they are gone."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from distribute_challenge import PoolExecutor, TaskTimeout, WorkerLost, compute_this
from distribute_challenge.calls import regions
from distribute_challenge.calls.buffers import LARGE_BYTES
from tests.running import HANG_S, RunningServer, connect, eventually

COUNT = LARGE_BYTES // 8 + 1000
table = np.arange(COUNT, dtype=float)


@pytest.fixture(params=["shared memory", "the socket"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "the socket":  # As if the worker were on another machine, at the end of a tunnel.
        monkeypatch.setattr("distribute_challenge.client.peers.worker.tell_secret", lambda _: None)
    return str(request.param)


def memory_files(pid: int) -> int:
    """Memory files that a process has open, and those that it has mapped."""
    gc.collect()
    process = Path(f"/proc/{pid}")
    targets = []
    for entry in (process / "fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except FileNotFoundError:  # Closed between two looks.
            continue
    maps = (process / "maps").read_text().splitlines()
    return sum("memfd:buffers" in text for text in [*targets, *maps])


def doubled_in_place(x):
    x *= 2
    return x


def first_byte_and_itself(data):
    return data[:1], data


def with_a_large_global(x):
    return table[x]


def collections_so_far(array):
    return gc.get_stats()[2]["collections"]


def collections_so_far_with_a_large_global(x):
    return len(table) and gc.get_stats()[2]["collections"]


def holds_itself(array):
    circle = [array]
    circle.append(circle)


def dies_once(array, path):
    import pathlib

    array += 1
    if not pathlib.Path(path).exists():
        pathlib.Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return array


def test_arrays_arrive_and_belong_to_who_has_them(used_server: RunningServer, way: str):
    array = np.arange(COUNT, dtype=float)
    double = compute_this(doubled_in_place)
    for result in (double(array).run(), double(array).submit().result(HANG_S)):
        assert np.array_equal(result, np.arange(COUNT) * 2.0)
        result += 1
    assert np.array_equal(array, np.arange(COUNT))


def test_bytes_and_frames_arrive(used_server: RunningServer, way: str):
    import pandas as pd  # Late: each worker imports this module.

    data = os.urandom(LARGE_BYTES * 2)
    assert compute_this(first_byte_and_itself)(data).run() == (data[:1], data)
    assert compute_this(lambda x: x)(data).run() == data
    frame = pd.DataFrame({"a": np.arange(COUNT), "b": np.arange(COUNT) / 7, "c": ["text"] * COUNT})
    back = compute_this(lambda x: x)(frame).submit().result(HANG_S)
    pd.testing.assert_frame_equal(back, frame)


def test_a_map_over_large_items_and_a_large_global(used_server: RunningServer, way: str):
    with PoolExecutor(used_server.address) as pool:
        arrays = [np.full(COUNT, number) for number in range(12)]
        for number, result in enumerate(pool.map(doubled_in_place, arrays)):
            assert (result == 2 * number).all()
        assert list(pool.map(with_a_large_global, range(300), chunksize=50)) == list(range(300))


def test_a_call_that_is_sent_again_finds_its_argument_as_it_was(
    used_server: RunningServer, way: str, tmp_path: Path
):
    lives_twice = compute_this(retries=1)(dies_once)
    for number, run in enumerate((lambda call: call.run(), lambda call: call.submit().result(HANG_S))):
        assert (run(lives_twice(np.zeros(COUNT), str(tmp_path / str(number)))) == 1).all()


def test_an_argument_is_sent_as_it_was_at_the_call(used_server: RunningServer):
    array = np.zeros(COUNT)
    with PoolExecutor(used_server.address, max_workers=1) as pool:
        futures = []
        for number in range(20):
            array[:] = number
            futures.append(pool.submit(np.max, array))
        assert [future.result(HANG_S) for future in futures] == list(range(20))


def test_more_large_values_than_descriptors_may_be_used_for(used_server: RunningServer):
    with PoolExecutor(used_server.address) as pool:
        futures = [pool.submit(doubled_in_place, np.full(COUNT, number)) for number in range(150)]
        results = [future.result(HANG_S) for future in futures]
    assert [result[0] for result in results] == [2 * number for number in range(150)]


def test_nothing_stays_open(server: RunningServer):
    gc.collect()  # What other tests have left in cycles may have files open.
    regions.let_go()
    before = memory_files(os.getpid())
    pids = server.worker_pids()
    with PoolExecutor(server.address) as pool:
        compute_this(doubled_in_place)(np.zeros(COUNT)).run()
        results = list(pool.map(doubled_in_place, [np.zeros(COUNT)] * 10))
    # One file is the worker's own: the probe by which clients find out whether they can open it.
    eventually(lambda: all(memory_files(pid) <= 1 for pid in pids), "the workers have let go")
    assert memory_files(os.getpid()) > before
    del results

    def has_let_go() -> bool:
        regions.let_go()  # The driver's thread may have ended with its last argument after the executor has.
        return memory_files(os.getpid()) == before

    eventually(has_let_go, "so has this process")


@pytest.mark.parametrize("function", [collections_so_far, collections_so_far_with_a_large_global])
def test_a_large_call_does_not_have_all_objects_of_its_worker_looked_at(
    function: Callable[..., int], start_server: Callable[..., RunningServer]
):
    server = start_server(1)
    with PoolExecutor(server.address) as pool:
        counts = [pool.submit(function, np.zeros(COUNT)).result(HANG_S) for _ in range(6)]
    assert len(set(counts[2:])) == 1  # The first loads libraries.


def test_large_values_that_hold_on_to_themselves_go_with_their_call(server: RunningServer):
    pids = server.worker_pids()
    with PoolExecutor(server.address) as pool:
        for _ in range(5):
            pool.submit(holds_itself, np.zeros(COUNT)).result(HANG_S)
        eventually(lambda: all(memory_files(pid) <= 1 for pid in pids), "the workers have let go")


def test_results_that_are_kept_are_not_written_over(used_server: RunningServer):
    """A file is used again only when nobody has what was in it."""
    call = compute_this(doubled_in_place)
    kept = {}
    for number in range(30):
        result = call(np.full(COUNT, number)).run()
        if number % 3:
            kept[number] = result
        del result
    assert all((result == 2 * number).all() for number, result in kept.items())


def keeps_and_returns(array):
    import builtins

    kept = vars(builtins).setdefault("kept", [])
    kept.append(array)
    return [int(one[0]) for one in kept], [int(one[-1]) for one in kept]


def test_arguments_that_a_worker_keeps_are_not_written_over(used_server: RunningServer):
    with PoolExecutor(used_server.address, max_workers=1) as pool:
        for number in range(10):
            firsts, lasts = pool.submit(keeps_and_returns, np.full(COUNT, number)).result(HANG_S)
            assert firsts == lasts == list(range(number + 1))


def test_a_worker_that_dies_takes_its_files_along(used_server: RunningServer, tmp_path: Path):
    with pytest.raises(WorkerLost):
        compute_this(dies_once)(np.zeros(COUNT), str(tmp_path / "first")).run()
    assert (compute_this(dies_once)(np.zeros(COUNT), str(tmp_path / "first")).run() == 1).all()


def test_half_a_message_holds_up_nobody(server: RunningServer):
    """A worker's main thread serves the connection that its last function came from, but waits for none."""
    with server.connect() as client, connect(client.root.find_free_worker()) as first:
        port = server.ports[0]
        assert first.root.run_code("result = 1") == 1
        assert first.root.run_code("result = 2") == 2
        first._channel.stream.sock.sendall(b"\0\0\1\0\0half")
        with connect(port) as second:
            assert [second.root.run_code(f"result = {number}") for number in range(3)] == [0, 1, 2]
        worker = psutil.Process(server.worker_pids()[0])
        before = sum(worker.cpu_times()[:2])
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        assert sum(worker.cpu_times()[:2]) - before < 0.2  # It does not look again and again for the rest.
        first._channel.stream.sock.close()  # After half a message it cannot say goodbye.


def test_connections_take_turns_in_the_main_thread(server: RunningServer):
    source = "import threading\nresult = threading.current_thread() is threading.main_thread()"
    with server.connect() as client:
        port = client.root.find_free_worker()
        clients = [connect(port) for _ in range(3)]
        assert all(one.root.run_code(source) for _ in range(4) for one in clients)
        for one in clients:
            one.close()
        worker = psutil.Process(server.worker_pids()[0])
        eventually(lambda: worker.num_threads() <= 3, "the threads of connections end with them")
        with connect(port) as last:
            assert last.root.run_code(source)


def test_a_function_by_which_its_caller_ends_leaves_a_worker_that_works(
    start_server: Callable[..., RunningServer],
):
    server = start_server(1)
    with server.connect() as client:
        port = client.root.find_free_worker()
        for _ in range(3):
            one = connect(port)
            assert one.root.run_code("result = 1") == 1
            one._channel.stream.sock.close()
            with connect(port) as other:
                assert other.root.run_code("result = 2") == 2


def takes(data):
    return len(data)


def test_a_time_limit_holds_while_a_large_call_is_being_sent(server: RunningServer):
    data = list(range(2_000_000))
    call = compute_this(takes)
    assert call([1]).run() == 1
    os.kill(server.worker_pids()[0], signal.SIGSTOP)
    with pytest.raises(TaskTimeout):
        call(data).run(timeout=1)
    assert call(data).run() == len(data)
