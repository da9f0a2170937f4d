"""Many tasks under way at once: what may go wrong with one of them, or with the way, concerns no other."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor
from distribute_challenge.client.shipping import Parcel
from tests.running import HANG_S, ROOT, RunningServer, eventually


def square(x):
    return x * x


def takes(seconds, x):
    import time

    time.sleep(seconds)
    return x


def pump(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    """Pass on what comes, that much later."""
    under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def deliver() -> None:
        while True:
            due, data = under_way.get()
            time.sleep(max(due - time.monotonic(), 0))
            try:
                target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
            except OSError:
                return
            if not data:
                return

    threading.Thread(target=deliver, daemon=True).start()
    data = b"something"
    while data:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        under_way.put((time.monotonic() + delay_s, data))


@contextmanager
def far_away(server: RunningServer, delay_s: float) -> Iterator[str]:
    """The address of the server as if it were that far away; its workers are near."""
    listeners = []

    def accept(listener: socket.socket, port: int, delay_s: float) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", port))
            for ends in ((here, there), (there, here)):
                threading.Thread(target=pump, args=(*ends, delay_s), daemon=True).start()

    for port, delay in [(server.port, delay_s), *((port, 0.0) for port in server.ports)]:
        listener = socket.create_server(("127.0.0.2", port))
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, port, delay), daemon=True).start()
    yield f"127.0.0.2:{server.port}"
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_server_that_is_far_away(server: RunningServer):
    """To hear from it takes longer than a worker is kept without asking."""
    with far_away(server, 0.07) as address, PoolExecutor(address) as pool:
        futures = [pool.submit(takes, 0.15, number) for number in range(8)]
        assert [future.result(HANG_S) for future in futures] == list(range(8))
        assert list(pool.map(square, range(100))) == [number**2 for number in range(100)]


def test_short_tasks_are_not_queued_behind_a_long_one(server: RunningServer):
    ends: dict[int, float] = {}

    def note(number: int) -> Callable[[Any], None]:
        return lambda _: ends.setdefault(number, time.monotonic())

    with PoolExecutor(server.address) as pool:
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


def test_a_callback_that_raises_anything_harms_no_other_task(server: RunningServer):
    with PoolExecutor(server.address) as pool:
        futures = [pool.submit(square, number) for number in range(30)]
        for future in futures[5:20:5]:
            future.add_done_callback(lambda _: sys.exit(1))
        assert [future.result(HANG_S) for future in futures] == [number**2 for number in range(30)]
        assert pool.submit(square, 5).result(HANG_S) == 25


def test_a_task_that_cannot_be_sent_after_all_fails_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
):
    pack = Parcel.pack

    def pack_or_not(self: Parcel, sent: set[str], *, can_share: bool) -> bytes:
        if b"too much" in self.arguments:
            raise MemoryError("no memory for that")
        return pack(self, sent, can_share=can_share)

    monkeypatch.setattr(Parcel, "pack", pack_or_not)
    with PoolExecutor(server.address) as pool:
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
        futures = [pool.submit(takes, 0.002, number) for number in range(200)]
        futures[20].result(HANG_S)
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
