"""`server.py --engine dask`: the record of a Dask cluster, and what watches it."""

from __future__ import annotations

import csv
import functools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from distribute_challenge import PoolError, PoolExecutor, ServerUnavailable, TaskTimeout
from distribute_challenge.client.dask import connection
from distribute_challenge.client.dask.freight import travelling
from distribute_challenge.cluster import observer
from tests.certificates import Certificates
from tests.clusters import RunningCluster
from tests.running import HANG_S, ROOT, RunningServer, eventually, grapher, is_running, script


@pytest.fixture(scope="module")
def kept_clusters() -> Iterator[list[RunningCluster]]:
    """At most one, which the next test may use."""
    clusters: list[RunningCluster] = []
    yield clusters
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def started(
    kept_clusters: list[RunningCluster],
    tmp_path_factory: pytest.TempPathFactory,
    has_failed: Callable[[], bool],
) -> Iterator[RunningCluster]:
    """A cluster of one worker."""
    fresh = functools.partial(RunningCluster, 1, "--no-nanny", folder=tmp_path_factory.mktemp("cluster"))
    cluster = kept_clusters.pop() if kept_clusters else fresh()
    yield cluster
    if cluster.is_as_started() and not has_failed():
        kept_clusters.append(cluster)
    else:
        cluster.close()


@pytest.fixture
def recorder(tmp_path: Path, started: RunningCluster) -> Iterator[RunningServer]:
    """A server that records that cluster, whose worker has come, in `run.csv`."""
    server = record(tmp_path, started.url)
    eventually(lambda: server.status()["workers"], "its worker has come")
    yield server
    server.process.terminate()
    server.process.wait(HANG_S)


def record(folder: Path, url: str, *options: str) -> RunningServer:
    return RunningServer(None, "--engine", "dask", url, "--profile", "run.csv", *options, folder=folder)


def doubles(x):
    return 2 * x


def fails(x):
    raise ValueError(f"no {x}")


def sleeps(seconds):
    time.sleep(seconds)


def sleeps_until(path):
    while not Path(path).exists():
        time.sleep(0.01)


def stop(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(HANG_S) == 0


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def sums(folder: Path) -> Counter[tuple[str, str]]:
    """How many functions ended, by their names and how."""
    found: Counter[tuple[str, str]] = Counter()
    for row in rows(folder / "run.tasks.csv"):
        found[row["Function"], row["Status"]] += int(row["Count"])
    return found


def test_every_kind_of_call_is_in_the_record_once(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path
):
    with PoolExecutor(started.address) as pool:
        assert list(pool.map(doubles, range(500))) == [2 * x for x in range(500)]
        assert pool.submit(doubles, 1).result(HANG_S) == 2
        with pytest.raises(ValueError, match="no 7"):
            pool.submit(fails, 7).result(HANG_S)
        killed = pool.submit(sleeps, HANG_S)

        def running() -> list[dict[str, Any]]:
            calls = recorder.status()["workers"][0]["running"]
            return [call for call in calls if call["function"] == "sleeps"]

        (call,) = eventually(running, "it runs")
        assert call["client"].endswith(f":{os.getpid()}@{os.uname().nodename}")
        pool.kill(killed)
        with pytest.raises(CancelledError):
            killed.result(HANG_S)
    with PoolExecutor(started.address, timeout=0.3) as pool, pytest.raises(TaskTimeout):
        pool.submit(sleeps, HANG_S).result(HANG_S)
    eventually(lambda: recorder.status()["failed"] == 3, "the record knows")
    stop(recorder)
    assert sums(tmp_path) == {
        ("doubles", "done"): 501,
        ("fails", "failed"): 1,
        ("sleeps", "killed"): 1,
        ("sleeps", "timeout"): 1,
    }
    last = rows(tmp_path / "run.csv")[-1]
    assert (last["Event"], last["Finished"], last["Failed"], last["Busy"]) == ("stop", "501", "3", "[0]")
    (failed,) = [row for row in rows(tmp_path / "run.tasks.csv") if row["Function"] == "fails"]
    assert failed["Error"] == "ValueError: no 7"
    assert failed["Client"].partition("@")[0].endswith(f":{os.getpid()}")
    assert float(failed["Queued"]) <= float(failed["Started"]) <= float(failed["Ended"])


@pytest.mark.parametrize(("skew", "end"), [(-1, "the client"), (1, "this worker")])
def test_a_call_that_a_worker_of_another_version_refuses_has_failed(
    started: RunningCluster,
    recorder: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    skew: int,
    end: str,
):
    monkeypatch.setattr(connection, "FORMAT", connection.FORMAT + skew)
    with (
        PoolExecutor(started.address) as pool,
        pytest.raises(PoolError, match=f"not the client's: update {end}"),
    ):
        pool.submit(doubles, 1).result(HANG_S)
    eventually(lambda: recorder.status()["failed"] == 1, "the record knows")
    stop(recorder)
    (refused,) = rows(tmp_path / "run.tasks.csv")
    assert refused["Status"] == "failed"
    assert refused["Error"].startswith("PoolError: its version of this package is not the client's")


def test_tasks_of_other_dask_programs_appear_as_what_they_are(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path
):
    with Client(started.url, set_as_default=False) as client:
        first = client.submit(doubles, 20, pure=False)
        assert client.submit(doubles, first, pure=False).result(HANG_S) == 80
        with pytest.raises(ValueError, match="no 1"):
            client.submit(fails, 1, pure=False).result(HANG_S)
    eventually(lambda: recorder.status()["failed"] == 1, "the record knows")
    stop(recorder)
    assert sums(tmp_path) == {("doubles", "done"): 2, ("fails", "failed"): 1}
    written = rows(tmp_path / "run.tasks.csv")
    assert {row["Client"].partition("-")[0] for row in written} <= {"Client", "dask"}
    assert written[2]["Error"] == "ValueError('no 1')"


def test_workers_come_and_are_lost(started: RunningCluster, recorder: RunningServer, tmp_path: Path):
    # Late: each worker imports this module.
    from distribute_challenge.pictures.live.data.record import Record
    from distribute_challenge.pictures.reading import read_profile

    path = tmp_path / "run.csv"
    page = Record.read(path)
    assert page.workers.count == 1
    later = started.start_worker("--name", "later")
    started.workers.append(later)
    eventually(lambda: len(recorder.status()["workers"]) == 2, "it has come")
    with PoolExecutor(started.address, 2) as pool:
        both = [pool.submit(sleeps, 0.5 * HANG_S) for _ in range(2)]
        eventually(lambda: recorder.status()["busy"] == [1, 1], "both run")

        def shown() -> list[list[str]]:
            page.update()
            return [[call.function for call in calls] for calls in page.workers.running]

        eventually(lambda: shown() == [["sleeps"]] * 2, "the page shows it")
        for process in (*psutil.Process(later.pid).children(recursive=True), psutil.Process(later.pid)):
            process.kill()
        eventually(lambda: len(recorder.status()["workers"]) == 1, "it is lost")
        eventually(lambda: recorder.status()["tasks"] == 1, "its task waits for the other one")
        for future in both:
            pool.kill(future)
    started.workers.append(started.start_worker("--name", "later"))
    eventually(lambda: len(recorder.status()["workers"]) == 2, "it is back")
    assert recorder.status()["lost"] == {"gone": 1}
    stop(recorder)
    events = [(row["Event"].partition(" ")[0], row["Worker"]) for row in rows(path)]
    kept = [event for event in events if event[0] in ("start", "joined", "lost", "replaced", "left")]
    assert kept == [
        ("start", ""),
        *(("joined", number) for number in "01"),
        ("lost", "1"),
        ("joined", "1"),
        ("replaced", "1"),
    ]
    assert sums(tmp_path)["sleeps", "lost"] == 1
    profile = read_profile(path)
    assert profile.workers == 2
    assert sorted(profile.places) == [0, 1]
    page.update()
    assert page.problem is None
    assert (page.workers.count, page.workers.lost, page.workers.replaced) == (2, 1, 1)
    drawn = grapher(
        str(path), "--html", "report.html", "--trace", "trace.json", "--out", "plots", cwd=tmp_path
    )
    assert drawn.returncode == 0, drawn.stderr
    assert profile.places[1] in (tmp_path / "trace.json").read_text()


def test_a_cluster_of_its_own_ends_with_it(tmp_path: Path):
    server = RunningServer(2, "--engine", "dask", folder=tmp_path)
    try:
        scheduler = server.status()["scheduler"]
        with PoolExecutor(scheduler) as pool:
            assert pool.submit(doubles, 4).result(HANG_S) == 8
        assert "--engine dask" in script("server.py", "--help").stdout
        eventually(lambda: "finished 1, failed 0" in compute_status(server.address), "it is told")
        children = psutil.Process(server.pid).children(recursive=True)
    finally:
        stop(server)
    assert (tmp_path / "profiling" / "results_2.csv").exists()
    eventually(lambda: not any(is_running(child.pid) for child in children), "all have ended")


def compute_status(address: str) -> str:
    code = "import sys; from distribute_challenge.terminal import status; sys.exit(status.main())"
    command = [sys.executable, "-c", code, "--server", address]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S).stdout


def test_a_client_that_comes_to_it_is_told_where_to_go(recorder: RunningServer, started: RunningCluster):
    with (
        PoolExecutor(recorder.address) as pool,
        pytest.raises(Exception, match=f"connect to {started.address}"),
    ):
        pool.submit(doubles, 1).result(HANG_S)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_scheduler_goes_and_so_does_it(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path, how: signal.Signals
):
    with PoolExecutor(started.address) as pool:
        future = pool.submit(time.sleep, 2 * HANG_S)
        eventually(lambda: 1 in recorder.status()["busy"], "it runs")
        started.scheduler.send_signal(how)
        assert recorder.process.wait(HANG_S) == 1
        started.scheduler.wait(HANG_S)
        assert isinstance(future.exception(HANG_S), ServerUnavailable)
    assert "has gone" in recorder.stderr()
    assert rows(tmp_path / "run.csv")[-1]["Event"] == "stop"
    (lost,) = rows(tmp_path / "run.tasks.csv")
    assert (lost["Function"], lost["Status"]) == ("sleep", "lost")
    assert rows(tmp_path / "run.csv")[-1]["Failed"] == "1"


def forget_observers(name: str, dask_scheduler: Any = None) -> None:
    for found in [plugin for plugin in dask_scheduler.plugins if plugin.startswith(name)]:
        del dask_scheduler.plugins[found]


def test_without_its_observer_the_record_ends_and_loses_nothing(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path
):
    with PoolExecutor(started.address) as pool:
        future = pool.submit(sleeps_until, str(tmp_path / "go"))
        eventually(lambda: 1 in recorder.status()["busy"], "it runs")
        with Client(started.url) as client:
            client.run_on_scheduler(travelling(forget_observers), observer.NAME)
        assert recorder.process.wait(HANG_S) == 1
        (tmp_path / "go").touch()
        assert future.result(HANG_S) is None
    assert "has lost the observer" in recorder.stderr()
    assert rows(tmp_path / "run.csv")[-1]["Event"] == "stop"
    assert rows(tmp_path / "run.csv")[-1]["Failed"] == "0"
    assert rows(tmp_path / "run.tasks.csv") == []


def test_a_cluster_that_demands_tls_is_recorded(tmp_path: Path, certificates: Certificates):
    cluster = RunningCluster(1, "--no-nanny", folder=tmp_path, tls=certificates.server)
    try:
        how: dict[str, Any] = {"folder": tmp_path, "tls": certificates.server}
        server = RunningServer(None, "--engine", "dask", cluster.url, "--profile", "run.csv", **how)
        try:
            with PoolExecutor(cluster.address, tls=certificates.client) as pool:
                assert pool.submit(doubles, 4).result(HANG_S) == 8
            eventually(lambda: server.status()["finished"] == 1, "it is recorded")
        finally:
            stop(server)
    finally:
        cluster.close()
    assert sums(tmp_path) == {("doubles", "done"): 1}


def test_two_may_record_one_cluster(started: RunningCluster, recorder: RunningServer, tmp_path: Path):
    other = record(tmp_path, started.url, "--profile", "other.csv")
    try:
        with PoolExecutor(started.address) as pool:
            assert pool.submit(doubles, 4).result(HANG_S) == 8
        eventually(lambda: other.status()["finished"] == 1, "one records it")
        stop(other)
        with PoolExecutor(started.address) as pool:
            assert pool.submit(doubles, 4).result(HANG_S) == 8
        eventually(lambda: recorder.status()["finished"] == 2, "so does the other, after that one's end")
    finally:
        if other.process.poll() is None:
            stop(other)


def test_what_a_worker_has_stolen_is_its_own(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path
):
    def waits(gate):
        while gate is not None and not gate.exists():
            time.sleep(0.01)
        time.sleep(0.3)

    gate = tmp_path / "gate"
    with Client(started.url, set_as_default=False) as client:
        client.submit(waits, None, pure=False).result(HANG_S)  # Dask steals what it knows to be long.
        futures = [client.submit(waits, gate, pure=False) for _ in range(6)]
        started.workers.append(started.start_worker("--name", "thief"))
        eventually(lambda: sum(recorder.status()["busy"]) == 2, "both are known to run something")
        gate.touch()
        client.gather(futures)
    eventually(lambda: recorder.status()["finished"] == 7, "the record knows")
    stop(recorder)
    assert sums(tmp_path) == {("waits", "done"): 7}
    assert {row["Worker"] for row in rows(tmp_path / "run.tasks.csv")} == {"1", "2"}


def test_it_ends_though_the_scheduler_is_stopped(
    started: RunningCluster, recorder: RunningServer, tmp_path: Path
):
    started.scheduler.send_signal(signal.SIGSTOP)
    try:
        stop(recorder)
    finally:
        started.scheduler.send_signal(signal.SIGCONT)
    assert rows(tmp_path / "run.csv")[-1]["Event"] == "stop"


def test_what_dask_tries_again_has_failed(started: RunningCluster, recorder: RunningServer, tmp_path: Path):
    def fails_twice(path):
        with path.open("a+") as file:
            file.write("x")
            if file.tell() < 3:
                raise ValueError("not yet")

    with Client(started.url, set_as_default=False) as client:
        client.submit(fails_twice, tmp_path / "calls", retries=3, pure=False).result(HANG_S)
    eventually(lambda: recorder.status()["finished"] == 1, "the record knows")
    stop(recorder)
    assert sums(tmp_path) == {("fails_twice", "failed"): 2, ("fails_twice", "done"): 1}


def test_metrics_count_what_a_cluster_runs(started: RunningCluster, tmp_path: Path):
    import urllib.request

    server = record(tmp_path, started.url, "--metrics-port", "0")
    try:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[1]
        with PoolExecutor(started.address) as pool:
            assert list(pool.map(doubles, range(10))) == list(range(0, 20, 2))

        def text() -> str:
            with urllib.request.urlopen(url) as answer:
                read: bytes = answer.read()
            return read.decode()

        eventually(lambda: 'compute_tasks_total{function="doubles",status="done"} 10.0' in text(), "counted")
    finally:
        stop(server)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "dask"], "say how many workers to start"),
        (["2", "--engine", "dask", "tcp://127.0.0.1:8786"], "leave out N"),
        (["--engine", "ray"], "write --engine dask"),
        (["--engine", "dask", ""], "is no address of a Dask scheduler"),
        (["--engine", "dask", "tcp://"], "is no address of a Dask scheduler"),
        (["--engine", "dask", "tcp://[::1"], "is not an address"),
        (["--engine", "dask", "http://127.0.0.1:8786"], "is no address of a Dask scheduler"),
        (
            ["--engine", "dask", "tcp://127.0.0.1:1", "--port", "0"],
            "no Dask scheduler answers at 127.0.0.1:1",
        ),
        (["--engine", "dask", "tcp://127.0.0.1:1", "--fresh"], "unrecognized arguments: --fresh"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], message: str, tmp_path: Path):
    ended = script("server.py", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert message in ended.stderr


def test_where_its_functions_are_a_cluster_does_not_tell(recorder: RunningServer):
    code = "import sys; from distribute_challenge.terminal import stack; sys.exit(stack.main())"
    command = [sys.executable, "-c", code, "--server", recorder.address]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S)
    place = recorder.status()["workers"][0]["address"]
    assert told.stdout.splitlines() == [
        f"worker {place}: no function runs",
        "  a Dask cluster does not tell stacks: see the call stacks in Dask's own dashboard",
    ]
