"""Faults at every stage of a call: {sending, queued, running, returning} x {raises, exits, SIGKILL, SIGSTOP}.

For the worker that runs it, and for the client that made it. Whatever happens: each call ends once, as a
result or a named error, other clients notice nothing, and all workers are free again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, WorkerLost
from tests.running import HANG_S, ROOT, RunningServer, eventually

STAGES = ("sending", "queued", "running", "returning")
FAULTS = ("raises", "exits", "SIGKILL", "SIGSTOP")
LARGE = 60 << 20
BACK_S = 10  # Generous: what is meant is two seconds, on a machine that has time.


def square(x):
    return x * x


def marks_and_waits(mark, gate):
    import pathlib
    import time

    pathlib.Path(mark).write_text("here")
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)
    return 7


class Troublesome:
    """Makes trouble where it is loaded (an argument) or written (a result)."""

    def __init__(self, when: str, fault: str, mark: str, gate: str) -> None:
        self.when, self.fault, self.mark, self.gate = when, fault, mark, gate
        self.filling = b"x" * LARGE

    def __getstate__(self) -> dict[str, Any]:
        if self.when == "returning" and os.environ.get("COMPUTE_INSIDE"):
            trouble(self.fault, self.mark, self.gate)
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.when == "sending" and os.environ.get("COMPUTE_INSIDE"):
            trouble(self.fault, self.mark, self.gate)


def trouble(fault, mark, gate):
    if fault == "raises":
        raise ValueError("trouble")
    if fault == "exits":
        os._exit(5)
    marks_and_waits(mark, gate)


def takes(thing):
    return type(thing).__name__


def gives(fault, mark, gate):
    return Troublesome("returning", fault, mark, gate)


def faults_while_running(fault, mark, gate):
    trouble(fault, mark, gate)
    return 7


def call(pool: PoolExecutor, stage: str, fault: str, mark: str, gate: str) -> Future[Any]:
    """A call that comes to harm at a stage."""
    if stage == "sending":
        return pool.submit(takes, Troublesome("sending", fault, mark, gate))
    if stage == "returning":
        return pool.submit(gives, fault, mark, gate)
    return pool.submit(faults_while_running, fault, mark, gate)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_the_worker_comes_to_harm(server: RunningServer, tmp_path: Path, stage: str, fault: str):
    mark, gate = str(tmp_path / "mark"), str(tmp_path / "gate")
    before = set(server.worker_pids())
    with PoolExecutor(max_workers=1) as pool, PoolExecutor() as others:
        harmed = call(pool, stage, fault, mark, gate)
        behind = [pool.submit(square, number) for number in range(5)]
        if fault in ("SIGKILL", "SIGSTOP"):
            eventually(Path(mark).exists, "the call is at that stage")
            leased = [worker["pid"] for worker in server.status()["workers"] if worker["state"] == "leased"]
            assert len(leased) == 1
            os.kill(leased[0], getattr(signal, fault))
            assert others.submit(square, 4).result(HANG_S) == 16
            if fault == "SIGSTOP":
                assert not harmed.done()
                os.kill(leased[0], signal.SIGCONT)
                Path(gate).touch()
        end = harmed.exception(HANG_S)
        assert [future.result(HANG_S) for future in behind] == [0, 1, 4, 9, 16]
    if fault == "raises":
        assert isinstance(end, TypeError if stage == "returning" else ValueError)
    elif fault == "SIGSTOP":
        assert end is None
    else:
        assert isinstance(end, WorkerLost)
        assert ("SIGKILL" if fault == "SIGKILL" else "exit code 5") in str(end)
    status = server.idle_status()
    replaced = 0 if fault in ("raises", "SIGSTOP") else 1
    assert len(before - set(server.worker_pids())) == replaced
    assert status["failed"] == (0 if fault == "SIGSTOP" else 1)


CLIENT = """
import os, sys, threading
from distribute_challenge import compute_this

def marks_and_waits(mark, gate, thing):
    import pathlib, time
    pathlib.Path(mark).write_text("here")
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)
    return b"x" * int(thing)

def large_result(mark, gate, thing):
    import pathlib
    pathlib.Path(mark).write_text("here")
    return b"x" * (300 << 20)

stage, fault, mark, gate = sys.argv[1:]
large = b"x" * (300 << 20) if stage == "sending" else 1

def work():
    if stage == "sending":
        open(mark, "w").close()
    task = compute_this(large_result if stage == "returning" else marks_and_waits)
    task(mark, gate, large).run()

threading.Thread(target=work, daemon=True).start()
print("begun", flush=True)
sys.stdin.readline()
if fault == "raises":
    raise ValueError("trouble")
os._exit(5)
"""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_the_client_comes_to_harm(
    start_server: Callable[..., RunningServer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stage: str,
    fault: str,
):
    server = start_server(2)
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    held = [server.connect() for _ in range(2 if stage == "queued" else 0)]
    ports = [connection.root.find_free_worker() for connection in held]
    client = subprocess.Popen(
        [sys.executable, str(script), stage, fault, str(mark), str(gate)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert client.stdin is not None
    try:
        assert client.stdout.readline() == "begun\n"
        if stage == "queued":
            server.await_waiting(1)
        else:
            eventually(mark.exists, "the call is at that stage")
        harm(client, fault)
        if fault == "SIGSTOP":
            # It keeps what it has, and the others go on with the rest.
            for connection, port in zip(held[1:], ports[1:], strict=True):
                connection.root.free_worker(port)
            if stage != "queued":
                with PoolExecutor(max_workers=1) as pool:
                    assert pool.submit(square, 5).result(HANG_S) == 25
            client.kill()
        client.communicate(timeout=HANG_S)
        ended = time.monotonic()
        for connection in held:
            connection.close()
        server.await_busy([0, 0])
        assert time.monotonic() - ended < BACK_S
        with PoolExecutor() as pool:
            assert list(pool.map(square, range(10))) == [number * number for number in range(10)]
        assert server.idle_status()["waiting"] == 0
    finally:
        client.kill()
        client.communicate()


def harm(client: subprocess.Popen[str], fault: str) -> None:
    if fault in ("SIGKILL", "SIGSTOP"):
        client.send_signal(getattr(signal, fault))
        return
    assert client.stdin is not None
    client.stdin.write("now\n")
    client.stdin.flush()
