"""The server's own life: how it stops and what it says then, and workers that cannot be started."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from distribute_challenge import PoolExecutor, ServerUnavailable, compute_this
from distribute_challenge.address import Address
from distribute_challenge.server.workers.supervisor import Supervisor
from distribute_challenge.server.workers.template import execute
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually, is_running


def waits(path: str) -> None:
    Path(path).touch()
    time.sleep(HANG_S)


def test_a_server_that_stops_says_what_it_waits_for_and_its_victims_learn_it(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server = start_server(3, "--grace", "600")
    ends: list[BaseException | None] = []

    def run() -> None:
        with pytest.raises(ServerUnavailable) as caught:
            compute_this(waits, server=server.address)(str(tmp_path / "lone")).run()
        ends.append(caught.value)

    lone = threading.Thread(target=run)
    lone.start()
    with PoolExecutor(server.address) as pool, server.connect() as plain:
        submitted = pool.submit(waits, str(tmp_path / "submitted"))
        eventually(lambda: {"lone", "submitted"} <= set(os.listdir(tmp_path)), "both run")  # noqa: PTH208
        port = plain.root.acquire_worker()
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: "a second signal kills them" in server.stderr(), "it says so")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(HANG_S) == 0
        lone.join(HANG_S)
        ends.append(submitted.exception(HANG_S))
        with pytest.raises(EOFError):
            plain.root.free_worker(port)
    for end in ends:
        assert isinstance(end, ServerUnavailable)
        assert "has ended, and its workers with it" in str(end)
    first, second = server.stderr().splitlines()
    for words in ("SIGINT: waiting up to 600 s for ", "waits of ", f"a client that holds worker {port}"):
        assert words in first
    assert "killing waits of " in second


@pytest.mark.parametrize("grace", ["0", "0.1"])
def test_functions_that_have_no_more_time_are_named(start_server: Callable[..., RunningServer], grace: str):
    server = start_server(1, "--grace", grace)
    with server.connect() as client:
        client.root.acquire_worker()
        assert server.stop() == 0
    assert server.stderr().endswith(f"killing a client that holds worker {server.ports[0]}\n")
    assert ("waiting up to" in server.stderr()) == (grace != "0")


def test_a_terminal_that_is_closed_stops_the_server_in_order(start_server: Callable[..., RunningServer]):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # These tests, too, may run under nohup.
    try:
        server = start_server(1)
    finally:
        signal.signal(signal.SIGHUP, before)
    pids = server.worker_pids()
    assert server.stop(signal.SIGHUP) == 0
    assert not any(map(is_running, pids))
    server.await_events("start", "stop")


def test_a_server_that_was_started_with_nohup_outlives_its_terminal(
    start_server: Callable[..., RunningServer],
):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # Child processes have that from here.
    try:
        server = start_server(1)
    finally:
        signal.signal(signal.SIGHUP, before)
    server.process.send_signal(signal.SIGHUP)
    with server.connect() as client, connect(client.root.acquire_worker()) as worker:
        assert worker.root.run_code("result = 1") == 1
    assert server.stop() == 0


def test_a_start_that_hangs_is_given_up_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep({HANG_S})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    problems: list[str] = []
    has_failed = threading.Event()

    def fail(problem: str) -> None:
        problems.append(problem)
        has_failed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
        supervisor = Supervisor(Mock(start=execute), [listener], address, None, fail, start_s=2)
        supervisor.start(Mock())
        assert has_failed.wait(HANG_S)
        supervisor.stop()
    (problem,) = problems
    assert problem.startswith("a worker ended once before it was ready")
    assert "killed by the server, since it did not answer within 2 s of its start" in problem
    assert not is_running(int(started.read_text()))


def test_a_worker_that_cannot_be_started_ends_no_server_while_another_is_only_being_replaced(
    start_server: Callable[..., RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other one is not up at that moment, but nothing is wrong with it. Both are executed, not forked."""
    site = tmp_path / "sitecustomize.py"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    site.write_text("")
    server = start_server(2)
    broken = server.ports[0]
    holds = tmp_path / "holds"
    site.write_text(
        "import os, sys, time\n"
        f"if {str(broken)!r} in sys.orig_argv: sys.exit('not now')\n"
        f"while os.path.exists({str(holds)!r}) and '--owner' in sys.orig_argv: time.sleep(0.01)\n"
    )
    holds.touch()
    server.template().kill()
    for pid in reversed(server.worker_pids()):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: "cannot replace a worker yet" in server.stderr(), "it cannot be replaced")
    states = [worker["state"] for worker in server.status()["workers"]]
    assert states == ["starting", "starting"]
    holds.unlink()
    site.write_text("")
    server.await_busy([0, 0])


FAILS = """
import subprocess, sys

def test_that_fails():
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    assert not process.pid
"""


def test_a_test_that_fails_leaves_no_process_behind(tmp_path: Path):
    (tmp_path / "test_that_fails.py").write_text(FAILS)
    command = [sys.executable, "-m", "pytest", "--color=no", "-p", "tests.conftest", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert result.returncode == 1
    found = re.search(r"^E .*assert not (\d+)$", result.stdout, re.MULTILINE)
    assert found, result.stdout
    assert not is_running(int(found[1]))
