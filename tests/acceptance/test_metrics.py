"""`server.py N --metrics-port`: what Prometheus gets."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from distribute_challenge import PoolExecutor, TaskTimeout
from tests.certificates import Certificates
from tests.running import HANG_S, ROOT, RunningServer, eventually, free_port, script

pytest.importorskip("prometheus_client", reason="the extra [metrics] is not installed")

from prometheus_client.parser import text_string_to_metric_families


def raises():
    raise ValueError("no")


def waits(seconds):
    time.sleep(seconds)


def scraped(port: int, context: ssl.SSLContext | None = None) -> str:
    scheme, host = ("http", "127.0.0.1") if context is None else ("https", "localhost")
    with urllib.request.urlopen(
        f"{scheme}://{host}:{port}/metrics", timeout=HANG_S, context=context
    ) as answer:
        text: str = answer.read().decode()
    return text


def values(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(scraped(port))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def watched(start_server: Callable[..., RunningServer], port: int) -> RunningServer:
    return start_server(2, "--metrics-port", str(port), "--interval", "0.05")


def test_all_that_ran_is_counted(watched: RunningServer, port: int):
    with PoolExecutor(watched.address) as pool:
        assert list(pool.map(abs, range(100))) == list(range(100))
        assert isinstance(pool.submit(raises).exception(HANG_S), ValueError)
    limited = PoolExecutor(watched.address, timeout=0.2)
    with limited, pytest.raises(TaskTimeout):
        limited.submit(waits, HANG_S).result(HANG_S)
    expected = {("abs", "done"): 100.0, ("raises", "failed"): 1.0, ("waits", "timeout"): 1.0}

    def counted() -> dict[tuple[str, str], float]:
        return {
            (labels["function"], labels["status"]): value
            for (name, pairs), value in values(port).items()
            if name == "compute_tasks_total" and (labels := dict(pairs))
        }

    eventually(lambda: counted() == expected, f"the counts are {expected}")
    all_values = values(port)
    assert all_values["compute_workers_lost_total", frozenset({("reason", "timeout")})] == 1
    assert all_values["compute_task_duration_seconds_count", frozenset()] == 102
    assert all_values["compute_task_wait_seconds_count", frozenset()] == 102
    for worker in watched.ports:
        labels = frozenset({("worker", str(worker))})
        eventually(
            lambda labels=labels: values(port).get(("compute_worker_memory_bytes", labels)), "measured"
        )
        assert all_values["compute_worker_cpu_seconds_total", labels] >= 0


def test_promtool_has_nothing_to_say(watched: RunningServer, port: int):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: on Debian, `apt install prometheus`")
    with PoolExecutor(watched.address) as pool:
        pool.submit(abs, 1).result(HANG_S)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scraped(port), capture_output=True, text=True, timeout=HANG_S
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_who_takes_long_to_ask_keeps_others_out_for_a_moment_only(watched: RunningServer, port: int):
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET /")
        dribbled = threading.Thread(target=dribble, args=(slow,))
        dribbled.start()
        assert "compute_workers" in scraped(port)
        dribbled.join(HANG_S)
        assert not dribbled.is_alive()


def dribble(sock: socket.socket) -> None:
    """A byte now and then, until the other end has enough."""
    sock.settimeout(0.2)
    while True:
        try:
            if not sock.recv(1):
                return
        except TimeoutError:
            with contextlib.suppress(OSError):
                sock.sendall(b"x")
        except OSError:
            return


def test_who_asks_and_says_nothing_holds_up_no_function(watched: RunningServer, port: int):
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    with PoolExecutor(watched.address) as pool:
        assert pool.submit(abs, -1).result(HANG_S) == 1
    for connection in connections:
        connection.sendall(b"\x00\xff nonsense\r\n")
        connection.close()
    assert "compute_workers" in scraped(port)


def test_with_tls_only_who_has_a_certificate_may_ask(
    start_server: Callable[..., RunningServer], port: int, certificates: Certificates
):
    start_server(1, "--metrics-port", str(port), tls=certificates.server)
    assert "compute_workers" in scraped(port, certificates.client.client_context())
    stranger = ssl.create_default_context(cafile=certificates.client.ca)
    with pytest.raises((urllib.error.URLError, OSError)):
        scraped(port, stranger)
    with pytest.raises((urllib.error.URLError, OSError)):
        scraped(port)
    assert "compute_workers" in scraped(port, certificates.client.client_context())


def test_a_taken_port_is_said_before_anything_is_written(tmp_path: Path, port: int):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        result = script("server.py", "1", "--port", "0", "--metrics-port", str(port), cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "another --metrics-port" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    missing = "raise ModuleNotFoundError('No such module', name='prometheus_client')\n"
    (site / "prometheus_client.py").write_text(missing)
    command = [sys.executable, str(ROOT / "server.py"), "1", "--port", "0", "--metrics-port", "0"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "prometheus_client is not installed" in result.stderr
    assert "pip install 'distribute-challenge[metrics]'" in result.stderr


def test_the_system_may_pick_the_port(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--metrics-port", "0")
    assert server.process.stdout is not None
    line = server.process.stdout.readline()
    assert line.startswith("metrics: http://127.0.0.1:")
    assert "compute_workers" in scraped(int(line.rpartition(":")[2].partition("/")[0]))
