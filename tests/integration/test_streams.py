"""Many tasks under way at once: what may go wrong with one of them, or with the way, concerns no other."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rpyc

from distribute_challenge import PoolError, PoolExecutor, TaskTimeout, compute_this
from distribute_challenge.client.parcels.parcel import Parcel
from distribute_challenge.client.running.lanes import Lanes
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually


def square(x):
    return x * x


def takes(seconds, x):
    import time

    time.sleep(seconds)
    return x


def test_short_tasks_are_not_queued_behind_a_long_one(used_server: RunningServer):
    ends: dict[int, float] = {}

    def note(number: int) -> Callable[[Any], None]:
        return lambda _: ends.setdefault(number, time.monotonic())

    with PoolExecutor(used_server.address) as pool:
        pool.submit(takes, 3, 0).result(HANG_S)
        for future in [pool.submit(square, number) for number in range(400)]:
            future.result(HANG_S)
        short = [pool.submit(square, number) for number in range(100)]
        long = pool.submit(takes, 3, 0)
        short += [pool.submit(square, number) for number in range(300)]
        for number, future in enumerate(short):
            future.add_done_callback(note(number))
        long.result(HANG_S)
        long_end = time.monotonic()
        concurrent.futures.wait(short, HANG_S)
    assert len(ends) == 400
    assert max(ends.values()) < long_end


def test_a_callback_that_raises_anything_harms_no_other_task(used_server: RunningServer):
    with PoolExecutor(used_server.address) as pool:
        futures = [pool.submit(square, number) for number in range(30)]
        for future in futures[5:20:5]:
            future.add_done_callback(lambda _: sys.exit(1))
        assert [future.result(HANG_S) for future in futures] == [number**2 for number in range(30)]
        assert pool.submit(square, 5).result(HANG_S) == 25


def test_a_task_that_cannot_be_sent_after_all_fails_alone(
    used_server: RunningServer, monkeypatch: pytest.MonkeyPatch
):
    pack = Parcel.pack

    def pack_or_not(self: Parcel, *args: Any, **options: Any) -> bytes:
        if b"too much" in self.arguments:
            raise MemoryError("no memory for that")
        return pack(self, *args, **options)

    monkeypatch.setattr(Parcel, "pack", pack_or_not)
    with PoolExecutor(used_server.address) as pool:
        good, bad, other = (pool.submit(takes, 0.01, value) for value in ("good", "too much", "other"))
        with pytest.raises(MemoryError, match="no memory for that"):
            bad.result(HANG_S)
        assert (good.result(HANG_S), other.result(HANG_S)) == ("good", "other")
        assert pool.submit(square, 5).result(HANG_S) == 25


INTERRUPTED = """
import sys, time
from distribute_challenge import compute_this

@compute_this
def waits(number):
    import time
    print("begun", flush=True)
    time.sleep(600)

list(waits.map(range(10)))
"""


def test_ctrl_c_while_a_map_is_waited_for_stops_its_functions(server: RunningServer, tmp_path: Path):
    script = tmp_path / "program.py"
    script.write_text(INTERRUPTED)
    program = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=HANG_S)
    assert stderr.endswith("KeyboardInterrupt\n")
    server.await_busy([0, 0])


def test_ctrl_c_ends_one_worker_for_each_that_was_in_use(start_server: Callable[..., RunningServer]):
    """Tasks that were sent ahead to a worker that is killed run nowhere else, if nobody wants them."""
    server = start_server(1)
    for _ in range(3):
        before = server.worker_pids()
        pool = PoolExecutor(server.address)
        for future in [pool.submit(takes, 0.002, number) for number in range(60)]:
            future.result(HANG_S)
        # One of them takes its time, and others were sent ahead behind it.
        futures = [pool.submit(takes, HANG_S if number == 20 else 0.002, number) for number in range(200)]
        futures[19].result(HANG_S)
        with pytest.raises(KeyboardInterrupt), pool:
            raise KeyboardInterrupt
        assert all(future.done() for future in futures)
        server.await_busy([0])
        status = server.status()
        assert len(set(before) - {worker["pid"] for worker in status["workers"]}) == 1
        assert server.stderr().count("Traceback") == 0
    # The profile is written a moment after it happens.
    eventually(lambda: [row["Event"] for row in server.rows()].count("replaced") >= 3, "all are recorded")
    assert [row["Event"] for row in server.rows()].count("replaced") == 3


def notes_and_dies_at(number, last, path):
    """Each run is a line, written at once."""
    import os
    import signal

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\n" % number)
    os.close(file)
    if number == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_nothing_that_was_sent_ahead_is_begun_twice_or_lost(used_server: RunningServer, tmp_path: Path):
    """Also when the client does not read for a while: what the worker has answered must outlive it."""
    for round_ in range(4):
        path = str(tmp_path / f"runs{round_}")
        with PoolExecutor(used_server.address, max_workers=1) as pool:
            futures = [pool.submit(notes_and_dies_at, number, 600, path) for number in range(1000)]
            futures[500].result(HANG_S)
            sum(range(3_000_000))  # Meanwhile the interpreter's lock is held, and nothing is read.
            lost = [number for number, future in enumerate(futures) if future.exception(HANG_S)]
        assert lost == [600]
        assert sorted(map(int, Path(path).read_text().split())) == list(range(1000))


def test_nothing_is_begun_twice_where_tasks_are_killed(used_server: RunningServer, tmp_path: Path):
    for round_ in range(10):
        path = str(tmp_path / f"runs{round_}")
        with PoolExecutor(used_server.address, max_workers=1) as pool:
            futures = [pool.submit(notes_and_dies_at, number, -1, path) for number in range(600)]
            futures[100].result(HANG_S)
            next((future for future in futures if not future.done()), futures[-1]).kill()
            concurrent.futures.wait(futures, HANG_S)
        runs = list(map(int, Path(path).read_text().split()))
        assert len(set(runs)) == len(runs)
        # The one that was killed may have ended before, or not have been sent yet; those behind it that had
        # begun are lost with it.
        ran = {n for n, future in enumerate(futures) if not (future.cancelled() or future.exception())}
        assert ran <= set(runs)


def answers_at_length_and_stops(seconds):
    """Its worker is stopped while it writes the answer, which is in the message itself."""
    import os
    import subprocess
    import sys
    import time

    code = f"""
import os, signal, time
for _ in range(20_000):
    lines = open("/proc/net/tcp").read().splitlines()[1:]
    if sum(int(line.split()[4].split(":")[0], 16) for line in lines) > 100_000:
        os.kill({os.getpid()}, signal.SIGSTOP)
        break
    time.sleep(0.0003)
"""
    subprocess.Popen([sys.executable, "-c", code])
    time.sleep(seconds)
    return [bytes(1000 + number % 7) for number in range(200_000)]


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_time_limit_holds_while_an_answer_arrives(used_server: RunningServer, how: str):
    call = compute_this(server=used_server.address, timeout=3)(answers_at_length_and_stops)(0.5)
    run = call.run if how == "run" else lambda: call.submit().result(HANG_S)
    with pytest.raises(TaskTimeout):
        run()


def test_a_worker_says_that_it_is_busy_also_to_its_last_caller(server: RunningServer):
    """Who gives a worker back whose function still runs leaves it to the next one, who is told."""
    with server.connect() as other:  # The one worker that is left is always the same.
        other.root.find_free_worker()
        call = compute_this(server=server.address)(square)
        assert (call(1).run(), call(2).run()) == (1, 4)
        with server.connect() as hasty, connect(server.ports[1]) as worker:
            assert hasty.root.acquire_worker() == server.ports[1]  # Once it has been given back, that is.
            running = rpyc.async_(worker.root.run_code)("time.sleep(600)\nresult = 1")
            # Only when it runs is the worker given back.
            eventually(lambda: server.status()["workers"][1]["running"], "it runs")
            hasty.root.free_worker(server.ports[1])
            assert call(3).run() == 9
            with pytest.raises(EOFError):
                running.value  # noqa: B018  Raises.


def test_a_result_that_cannot_be_taken_in_is_an_error_of_its_own(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    def no_descriptors(*_: object, **__: object) -> Any:
        raise OSError(24, "Too many open files")

    server = start_server(1)
    before = server.worker_pids()
    with PoolExecutor(server.address) as pool:
        alone = compute_this(server=server.address)(zeros)
        for _ in range(2):  # The second time at the latest, both connections know that they share memory.
            alone(10).run()
            pool.submit(zeros, 10).result(HANG_S)
        monkeypatch.setattr("distribute_challenge.calls.buffers.open_region", no_descriptors)
        with pytest.raises(PoolError, match=r"its result cannot be taken in here: .*Too many open files"):
            pool.submit(zeros, 1 << 17).result(HANG_S)
        with pytest.raises(PoolError, match="Too many open files"):
            alone(1 << 17).run()
        assert pool.submit(square, 5).result(HANG_S) == 25
    server.await_busy([0])
    assert server.worker_pids() == before


def zeros(count):
    import numpy as np

    return np.zeros(count)


def test_wake_ups_are_batched_while_workers_have_plenty_to_do(
    used_server: RunningServer, monkeypatch: pytest.MonkeyPatch
):
    watches: list[None] = []
    links = Lanes.links

    def counted(lanes: Lanes) -> list[tuple[int, bool]]:
        watches.append(None)
        return links(lanes)

    monkeypatch.setattr(Lanes, "links", counted)
    monkeypatch.setattr("distribute_challenge.client.running.lanes.PLENTY", 1)
    monkeypatch.setattr("distribute_challenge.client.running.driver.GATHER_S", 0.25)
    # However slow this machine is, they are sent ahead.
    monkeypatch.setattr("distribute_challenge.client.running.pipeline.AHEAD_S", HANG_S)
    with PoolExecutor(max_workers=1) as pool:
        futures = [pool.submit(time.sleep, 0.001) for _ in range(200)]
        watches.clear()  # Each of these may have woken it.
        for future in futures:
            future.result(HANG_S)
    assert len(watches) < 80  # Each outcome on its own would have been one.
