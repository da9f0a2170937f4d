"""The scripts as a user meets them: what they print, and what they say to wrong input."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.running import HANG_S, ROOT, RunningServer, connect, eventually, free_port, script


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that something else listens on, with free ones around it."""
    port = free_port(4) + 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield port


def assert_is_one_helpful_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    for word in words:
        assert word in result.stderr


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process, whoever its parent is, that runs in a folder: servers and workers of this test do."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0"], ["server.py:", "--help", "'0' is not a number of workers", "give 1 or more"]),
        (["-1"], ["-1"]),
        (["two"], ["'two' is not a number of workers"]),
        (["2.5"], ["'2.5' is not a number of workers"]),
        (["9" * 30], ["is not a number of workers"]),
        (["2", "3"], ["unrecognized arguments: 3"]),
        (["2", "--port", "70000"], ["'70000' is not a port"]),
        (["2000000", "--port", "0"], ["2000000 workers need more descriptors than the", "start at most"]),
        (["2", "--port", "65535"], ["2 workers do not fit above port 65535"]),
        (["2", "--grace", "-1"], ["'-1' is not a duration"]),
        (["2", "--max-frame", "1"], ["'1' is too little for most functions", "give 64K or more"]),
        (["2", "--interval", "0"], ["'0' is too short"]),
        (["2", "--grace", "nan"], ["'nan' is not a duration"]),
        (["2", "--host", "0.0.0.0"], ["will not listen on 0.0.0.0", "ssh tunnel"]),
        (["2", "--host", "no.such.host.invalid"], ["cannot find the host no.such.host.invalid"]),
        (["1", "--port", "0", "--profile", "/proc/no/such/place.csv"], ["cannot write the profile", "none"]),
        (["1", "--port", "0", "--profile", "/dev/null"], ["what is there is not a plain file"]),
        (["1", "--port", "0", "--profile", "/"], ["what is there is not a plain file"]),
        (["1", "--port", "0", "--profile", ""], ["what is there is not a plain file"]),
        (["1", "--port", "0", "--profile", "."], ["what is there is not a plain file"]),
    ],
    ids=str,
)
def test_the_server_says_what_is_wrong_with_its_arguments(
    tmp_path: Path, arguments: list[str], words: list[str]
):
    assert_is_one_helpful_line(script("server.py", *arguments, cwd=tmp_path), *words)
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_taken_port_is_named(tmp_path: Path, taken_port: int, offset: int):
    """The server's own, or one of its workers'."""
    result = script("server.py", "2", "--port", str(taken_port - offset), cwd=tmp_path)
    assert_is_one_helpful_line(result, f"cannot listen on 127.0.0.1:{taken_port}", "another --port")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_says_what_is_wrong_with_its_arguments(taken_port: int):
    assert_is_one_helpful_line(script("worker.py"), "worker.py:", "required: PORT")
    assert_is_one_helpful_line(script("worker.py", "here"), "'here' is not a port")
    assert_is_one_helpful_line(
        script("worker.py", str(taken_port)), f"cannot listen on 127.0.0.1:{taken_port}"
    )


@pytest.mark.parametrize(
    ("name", "library"), [("server", "rpyc"), ("grapher", "numpy"), ("benchmark", "numpy")]
)
def test_ctrl_c_while_a_script_is_being_imported_ends_it_without_a_traceback(
    tmp_path: Path, name: str, library: str
):
    interrupts = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / f"{library}.py").write_text(interrupts)
    result = script(f"{name}.py", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_only_a_broken_pipe_of_its_output_ends_a_script_without_a_word(tmp_path: Path):
    (tmp_path / "numpy.py").write_text("raise BrokenPipeError('of a connection')")
    result = script("grapher.py", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    assert "BrokenPipeError: of a connection" in result.stderr


@pytest.mark.parametrize("word", ["three", "-1", "nan", "1e99"])
def test_the_example_wants_a_duration(server: RunningServer, word: str):
    assert_is_one_helpful_line(
        script("challenge.py", "--", word), "challenge.py:", f"{word!r} is not a duration"
    )


def test_the_example_says_how_to_start_a_server(taken_port: int):
    result = script("challenge.py", "0", "--server", f"localhost:{taken_port - 1}")
    assert_is_one_helpful_line(
        result, f"no server answers at localhost:{taken_port - 1}", "python3 server.py 2"
    )
    assert_is_one_helpful_line(script("challenge.py", "0", "--server", "a:b"), "'a:b' is not an address")
    assert_is_one_helpful_line(script("challenge.py", "0", "--server", ""), "'' is not an address")
    wrong = {**os.environ, "COMPUTE_SERVER": "host:"}
    assert_is_one_helpful_line(script("challenge.py", "0", env=wrong), "'host:' is not an address")


def test_the_example_prints_its_result(server: RunningServer, tmp_path: Path):
    for arguments, line in [(["0"], "func(0) = 0\n"), (["0.5"], "func(0.5) = 0.25\n")]:
        result = script("challenge.py", *arguments, cwd=tmp_path)
        assert (result.stdout, result.stderr, result.returncode) == (line, "", 0)


def test_the_ports_are_those_of_the_contract(tmp_path: Path, taken_port: int):
    """The server's port, and the workers' after it. A port was just free, so it is now."""
    base = taken_port - 2
    with pytest.raises(AssertionError, match="cannot listen"):
        RunningServer(2, "--port", str(base), folder=tmp_path)
    server = RunningServer(1, "--port", str(base), folder=tmp_path)
    try:
        assert (server.port, server.ports) == (base, [base + 1])
        status = server.status()
        assert status["python"].startswith("3.")
        assert status["workers"][0] | {"pid": 0} == {
            "port": base + 1,
            "pid": 0,
            "state": "free",
            "cpu": None,
            "memory": None,
            "running": [],
        }
        measured = eventually(lambda: server.status()["workers"][0]["memory"], "it is measured")
        assert 10_000_000 < measured < 100_000_000
        assert len(processes_in(tmp_path)) == 3  # With the template of workers.
        assert {"busy", "finished", "failed", "waiting", "uptime"} <= set(status)
        command = psutil.Process(server.worker_pids()[0]).cmdline()
        assert any("worker" in word for word in command)
        assert psutil.Process(server.worker_pids()[0]).ppid() == server.pid
    finally:
        server.close()


def test_everything_listens_on_loopback_only(server: RunningServer):
    listening = [
        connection.laddr
        for pid in (server.pid, *server.worker_pids())
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == "LISTEN"
    ]
    assert {address.port for address in listening} == {server.port, *server.ports}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_worker_runs_by_hand(tmp_path: Path):
    command = [sys.executable, str(ROOT / "worker.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as worker:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert re.fullmatch(r"ready: 127\.0\.0\.1:\d+\n", line)
        with connect(int(line.rpartition(":")[2])) as connection:
            assert connection.root.run_code("result = 6 * 7") == 42
        worker.terminate()
        worker.wait(HANG_S)


def test_a_profile_that_is_there_is_kept_under_another_name(start_server: Callable[..., RunningServer]):
    first = start_server(1)
    assert first.stop() == 0
    old = (first.folder / "profiling" / "results_1.csv").read_text()
    second = start_server(1)
    assert second.stop() == 0
    new = {"results_1.csv", "tasks_1.csv"}
    kept = sorted(path for path in (first.folder / "profiling").iterdir() if path.name not in new)
    assert [re.sub(r"\d{8}-\d{6}", "TIME", path.name) for path in kept] == [
        "results_1.TIME.csv",
        "tasks_1.TIME.csv",
    ]
    assert kept[0].read_text() == old


def test_the_profile_of_a_running_server_is_left_alone(start_server: Callable[..., RunningServer]):
    first = start_server(1)
    second = start_server(1)
    assert second.stop() == 0
    assert "another server writes it; the pool works without it" in second.stderr().replace("(", "").replace(
        ")", ""
    )
    with first.connect() as client:
        client.root.find_free_worker()
    assert first.stop() == 0
    assert [row["Event"] for row in first.rows()] == ["start", "acquire", "lost", "stop"]


def test_no_profile_is_written_if_none_is_wanted(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--profile", "none")
    assert server.stop() == 0
    assert not (server.folder / "profiling").exists()


def test_a_folder_that_cannot_be_written_is_said_once_and_the_pool_works(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    (tmp_path / "profiling").write_text("a file, where the folder should be")
    server = start_server(1)
    with server.connect() as client:
        client.root.free_worker(client.root.find_free_worker())
    assert server.stop() == 0
    assert server.stderr().count("cannot write the profile") == 1


def test_the_record_tells_what_happened(server: RunningServer):
    with server.connect() as client:
        port = client.root.find_free_worker()
        client.root.free_worker(port)
    assert server.stop() == 0
    rows = server.rows()
    text = (server.folder / "profiling" / "results_2.csv").read_text()
    assert text.startswith(",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event,Tasks,Worker\n0,")
    assert [(row["Event"], row["Busy"], row["Finished"]) for row in rows] == [
        ("start", "[0, 0]", "0"),
        ("acquire", "[1, 0]", "0"),
        ("free", "[0, 0]", "1"),
        ("stop", "[0, 0]", "1"),
    ]
    assert all(row["CPU"] == row["Memory"] == "" for row in rows)
    times = [float(row["Timestamp"]) for row in rows]
    assert times == sorted(times)


def test_a_worker_that_cannot_start_stops_the_server_with_the_reason(tmp_path: Path):
    """A folder that holds something broken under the name of what workers import."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "contextvars.py").write_text("raise ImportError('no worker today')\n")
    environment = {**os.environ, "PYTHONPATH": str(broken)}
    result = script("server.py", "2", "--port", "0", cwd=tmp_path, env=environment)
    assert result.returncode == 1
    assert re.fullmatch(
        r".*template of workers has ended.*\n"
        r"server\.py: a worker ended 5 times before it was ready .*; ImportError: no worker today\n",
        result.stderr,
    )
    assert processes_in(tmp_path) == []


def test_the_demo_shows_the_main_job(tmp_path: Path):
    result = script("examples/demo.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("func(3) = 9") == 4
    commands = [line.partition(" #")[0].split() for line in result.stdout.splitlines() if line[:1] == "$"]
    assert [" ".join(command[2:]) for command in commands if command[2] != "challenge.py"] == [
        "server.py 2 -q --port 0 --profile profiling/results_demo.csv",
        "grapher.py results_demo.csv --out plots/demo --port 0",
    ]
    assert re.search(r"^Throughput = 0\.\d{4} tasks per second$", result.stdout, re.MULTILINE)
    for name in ("busy", "throughput", "resources"):
        assert f"plots/demo/{name}.pdf\n" in result.stdout
        assert (tmp_path / "plots" / "demo" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    written = sorted(path.name for path in (tmp_path / "profiling").iterdir())
    assert written == ["results_demo.csv", "tasks_demo.csv"]
    assert processes_in(tmp_path) == []
