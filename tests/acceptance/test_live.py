"""The live page: who gets in, when it ends, and that the pool never does because of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest

from distribute_challenge import PoolExecutor, compute_this
from distribute_challenge.address import Address
from distribute_challenge.pictures.live.data.running import FlightRecorders
from distribute_challenge.record.profile import HEADER
from tests.acceptance.test_scripts import assert_is_one_helpful_line
from tests.certificates import Certificates
from tests.records import Row, write_profile, write_tasks
from tests.running import HANG_S, ROOT, RunningServer, eventually, is_running, script

WITHOUT_BOKEH = """
import sys
class Nothing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "bokeh":
            raise ModuleNotFoundError(f"No module named {name!r}", name="bokeh")
sys.meta_path.insert(0, Nothing())
"""


@compute_this
def square(x: int) -> int:
    return x * x


class Page(NamedTuple):
    """A live page: where it is, and the process that serves it."""

    host: str
    token: str
    process: psutil.Process

    def get(self, query: str, path: str = "/", **headers: str) -> tuple[int, str]:
        """Ask for it: the status and the text of the answer."""
        return get(http.client.HTTPConnection(self.host, timeout=HANG_S), f"{path}?{query}", headers)

    def open_socket(self, query: str, origin: str, protocol: str = "bokeh, nonsense", **headers: str) -> int:
        """Try to open its socket: the status of the answer, 101 if that works."""
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": protocol}
        return self.get(query, "/ws", Origin=origin, **upgrade, **key, **headers)[0]


def get(connection: http.client.HTTPConnection, url: str, headers: dict[str, str]) -> tuple[int, str]:
    try:
        connection.request("GET", url, headers=headers)
        answer = connection.getresponse()
        return answer.status, "" if answer.status == 101 else answer.read().decode()
    finally:
        connection.close()


def page_of(server: RunningServer) -> Page:
    """The page of a server that was started with one."""
    assert server.process.stdout is not None
    line = server.process.stdout.readline()
    assert line.startswith("live: http")
    url = urlsplit(line.split()[1])
    return Page(url.netloc, url.query.removeprefix("token="), process_of(server))


def process_of(server: RunningServer) -> psutil.Process:
    def found() -> psutil.Process | None:
        for process in psutil.Process(server.pid).children():
            with contextlib.suppress(psutil.Error):  # Another one has ended meanwhile.
                if "pictures/live" in " ".join(process.cmdline()):
                    return process
        return None  # The system shows no command line while it is setting that up.

    return eventually(found, "the page runs")


@pytest.fixture
def live(start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    server = start_server(2, "--dashboard-address", "127.0.0.1:0")
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    return server


def test_only_who_has_the_token_gets_in(live: RunningServer):
    page = page_of(live)
    for wrong in (
        "",
        "token=",
        "token=wrong",
        f"token={page.token}x",
        f"token={page.token[:-1]}",
        "token=%C3%BC",
    ):
        status, text = page.get(wrong)
        assert (status, "open the URL that the server printed" in text) == (403, True)
        assert page.token not in text
    assert page.get("token=%FF")[0] == 400
    status, text = page.get(f"token={page.token}")
    assert status == 200
    assert "<title>results_2.csv" in text
    assert page.token not in " ".join(page.process.cmdline())
    assert live.stderr() == ""


def test_only_pages_of_this_machine_with_the_token_open_the_socket(live: RunningServer):
    page = page_of(live)
    port = page.host.rpartition(":")[2]
    right = f"token={page.token}"
    assert page.open_socket(right, f"http://{page.host}") == 101
    assert page.open_socket(right, f"http://localhost:{port}") == 101
    for origin in ("http://example.org", f"http://example.org:{port}", "http://127.0.0.1:1", "null"):
        assert page.open_socket(right, origin) == 403
    assert page.open_socket("", f"http://{page.host}") == 403
    for protocol in ("", "other", "other, nonsense"):
        assert page.open_socket(right, f"http://{page.host}", protocol) == 400


def test_the_page_is_there_by_the_names_of_this_machine_only(live: RunningServer):
    """Any name may lead to this machine, once its owner wants it to."""
    page = page_of(live)
    port = page.host.rpartition(":")[2]
    right = f"token={page.token}"
    for host in (f"localhost:{port}", "localhost:1", f"[::1]:{port}"):  # A tunnel has another port.
        assert page.get(right, Host=host)[0] == 200
    for host in (f"example.org:{port}", "example.org", f"localhost.example.org:{port}"):
        assert page.get(right, Host=host)[0] == 403
        assert page.open_socket(right, f"http://{host}", Host=host) == 403


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_page_ends_with_its_server(live: RunningServer, number: int):
    page = page_of(live)
    live.process.send_signal(number)
    live.process.wait(HANG_S)
    eventually(lambda: not is_running(page.process.pid), "the page has ended")


def test_the_pool_works_on_without_its_page(live: RunningServer):
    page = page_of(live)
    page.process.kill()
    eventually(
        lambda: "the live page has ended (exit code -9); the pool works on" in live.stderr(), "it is said"
    )
    assert square(3).run() == 9
    assert live.stop() == 0


def test_a_page_that_hangs_does_not_hold_up_the_pool(live: RunningServer):
    page = page_of(live)
    page.process.suspend()
    assert square(3).run() == 9
    assert live.stop() == 0
    eventually(lambda: not is_running(page.process.pid), "the page has ended")


def test_with_tls_the_page_is_encrypted(
    start_server: Callable[..., RunningServer], certificates: Certificates
):
    server = start_server(1, "--dashboard-address", "127.0.0.1:0", tls=certificates.server)
    assert server.process.stdout is not None
    url = urlsplit(server.process.stdout.readline().split()[1])
    assert url.scheme == "https"
    context = ssl.create_default_context(cafile=certificates.ca)
    for query, status in ((url.query, 200), ("token=no", 403)):
        connection = http.client.HTTPSConnection(url.netloc, timeout=HANG_S, context=context)
        assert get(connection, f"/?{query}", {})[0] == status


def test_what_is_wrong_with_the_page_is_said_before_the_pool_starts(tmp_path: Path):
    def server(*options: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return script("server.py", "1", "--port", "0", *options, cwd=tmp_path, **how)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = server("--dashboard-address", f"127.0.0.1:{port}")
        assert_is_one_helpful_line(
            result, f"cannot listen on 127.0.0.1:{port}", "choose another --dashboard-address"
        )
    assert_is_one_helpful_line(
        server("--dashboard-address", "0.0.0.0:0"), "whoever connects sees what the pool does", "--tls-cert"
    )
    assert_is_one_helpful_line(
        server("--dashboard-address", "host:port"), "is not an address: write HOST:PORT"
    )
    nothing = server("--dashboard-address", ":0", "--profile", "none")
    assert_is_one_helpful_line(nothing, "the live page shows what is recorded", "give another --profile")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_BOKEH)
    without = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = server("--dashboard-address", ":0", env=without)
    assert_is_one_helpful_line(result, "bokeh is not installed", "pip install 'distribute-challenge[live]'")
    assert not (tmp_path / "profiling").exists(), "no record of an earlier run has been moved out of its way"


def live_page(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distribute_challenge.pictures.live", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, **how)


@pytest.mark.parametrize("has_a_row", [True, False])
def test_the_page_of_a_server_waits_for_its_first_row(tmp_path: Path, has_a_row: bool):
    """A cluster's record has none before a worker comes, which may take any time."""
    write_profile(tmp_path / "whole.csv", 1, 5)
    path = tmp_path / "p.csv"
    path.write_text(HEADER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
        command = [sys.executable, "-m", "distribute_challenge.pictures.live", "--address", str(address)]
        command += ["--listener", str(listener.fileno()), str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        page = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], text=True
        )
    try:
        assert page.stdin is not None
        page.stdin.write("token\n")
        page.stdin.flush()
        if has_a_row:
            path.write_text((tmp_path / "whole.csv").read_text())
            connection = http.client.HTTPConnection(str(address), timeout=HANG_S)
            connection.request("GET", "/?token=token")
            assert connection.getresponse().status == 200
        page.stdin.close()  # As when its server ends.
        assert page.wait(HANG_S) == 0
    finally:
        page.kill()
        page.wait()


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def page(*arguments: str) -> subprocess.CompletedProcess[str]:
        return live_page(*arguments, "--address", ":0", cwd=tmp_path, env=environment)

    assert_is_one_helpful_line(page("results_9.csv"), "no profile results_9.csv")
    write_profile(tmp_path / "p.csv", 1, 5)
    (tmp_path / "p.tasks.csv").write_text("nonsense\n")
    assert_is_one_helpful_line(page("p.csv"), "p.tasks.csv, line 1: not a tasks file")
    (tmp_path / "empty.csv").write_text("")
    assert_is_one_helpful_line(page("empty.csv"), "empty.csv, line 1: the file is empty")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        write_tasks(tmp_path / "p.csv", [Row("f", 0, 1, 2)], [18812])
        result = live_page(
            "p.csv", "--address", f"127.0.0.1:{taken.getsockname()[1]}", cwd=tmp_path, env=environment
        )
        assert_is_one_helpful_line(result, "choose another --address")


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[tuple[Page, subprocess.Popen[str]]]:
    """The page of a record that is finished, the only one there."""
    (tmp_path / "profiling").mkdir()
    profile = tmp_path / "profiling" / "p.csv"
    write_profile(profile, 1, 5)
    write_tasks(profile, [Row("f", 0, 1, 2)], [18812])
    command = [sys.executable, "-m", "distribute_challenge.pictures.live", "--address", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "profiling/p.csv is the newest profile:\n"
            url = urlsplit(process.stdout.readline().split()[1])
            yield Page(url.netloc, url.query.removeprefix("token="), psutil.Process(process.pid)), process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_record_that_is_finished_has_a_page_until_a_signal(
    finished: tuple[Page, subprocess.Popen[str]], number: int
):
    page, process = finished
    assert page.get(f"token={page.token}")[0] == 200
    assert page.get("")[0] == 403
    process.send_signal(number)
    assert process.wait(HANG_S) == 0


def test_what_runs_is_seen_in_the_files_of_the_server_that_writes_a_profile(server: RunningServer):
    path = server.folder / "profiling" / "results_2.csv"
    recorders = FlightRecorders(path)
    assert recorders.is_there
    assert recorders.running() == {port: [] for port in server.ports}
    with PoolExecutor() as pool:
        pool.submit(time.sleep, 600)
        ((call,),) = eventually(lambda: [calls for calls in recorders.running().values() if calls], "it runs")
        assert (call.function, call.client) == ("sleep", f"{Path(sys.argv[0]).name}:{os.getpid()}")
        pool.kill_workers()
    eventually(lambda: not any(recorders.running().values()), "the worker's successor is looked at")
    assert list(recorders.running()) == server.ports == sorted(server.ports)
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    assert not recorders.is_there
    assert recorders.running() == {}
