"""What is particular about executors on a Dask cluster. The rest is in test_engines and test_executor."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import psutil
import pytest

from distribute_challenge import (
    PoolError,
    PoolExecutor,
    ServerUnavailable,
    TaskTimeout,
    WorkerLost,
    compute_this,
    forward_logging,
)
from distribute_challenge.calls.logs import forwarded
from distribute_challenge.client.dask import closing
from distribute_challenge.client.dask import cluster as clusters
from distribute_challenge.client.dask import connection as connections
from distribute_challenge.client.dask.connection import Connection
from distribute_challenge.client.tasks.task import Task
from tests.certificates import Certificates
from tests.clusters import RunningCluster
from tests.running import HANG_S, ROOT, eventually, free_port, has_content, is_running, ssh_server


@pytest.fixture(scope="module")
def pool(cluster: RunningCluster) -> Iterator[PoolExecutor]:
    with PoolExecutor(cluster.address) as pool:
        yield pool


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., RunningCluster]]:
    started: list[RunningCluster] = []

    def start(workers: int, *options: str, **how: Any) -> RunningCluster:
        started.append(RunningCluster(workers, *options, folder=tmp_path, **how))
        return started[-1]

    yield start
    for running in started:
        running.close()


def note(path):
    """Take note of one more call; how many there were before."""
    with open(path, "a+") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
        file.seek(0)
        return len(file.readlines()) - 1


def sleeps(path, seconds=2 * HANG_S):
    note(path)
    time.sleep(seconds)


def ends_its_process_at_first(path):
    if note(path) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def dask_worker() -> int:
    """The process of the Dask worker: its child is the pool's server, whose child this worker is."""
    return psutil.Process().parents()[1].pid


def ends_its_dask_worker(path, times):
    if note(path) < times:
        os.kill(dask_worker(), signal.SIGKILL)
        time.sleep(HANG_S)
    return "done"


# Getting there


def test_without_dask_it_says_what_to_install():
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from distribute_challenge import PoolExecutor, PoolError\n"
        "try: PoolExecutor('dask://localhost')\n"
        "except PoolError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.count("\n") == 1
    assert "pip install 'distribute-challenge[dask]'" in said.stdout


@pytest.mark.parametrize("address", ["dask://:8786", "dask://host:port", "dask://host:99999", "dask://4"])
def test_what_is_no_address_is_refused_at_once(address: str):
    with pytest.raises(ValueError, match="write dask://HOST:PORT"):
        PoolExecutor(address)
    with pytest.raises(ValueError, match="write dask://HOST:PORT"):
        compute_this(server=address)


def test_where_there_is_no_scheduler_it_says_how_to_start_one():
    with pytest.raises(ServerUnavailable, match="start one with `dask scheduler`"):
        compute_this(server=f"dask://127.0.0.1:{free_port()}")(len)("abc").run()


def test_a_program_that_has_met_something_else_ends_at_once():
    """Dask's client would wait for it when it goes."""
    code = (
        "import sys, distribute_challenge as d\n"
        "try: d.PoolExecutor(sys.argv[1]).submit(abs, -1).result()\n"
        "except d.ServerUnavailable as error: print(error)\n"
    )
    with ssh_server() as port:
        words = [sys.executable, "-c", code, f"dask://127.0.0.1:{port}"]
        told = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=HANG_S)
    assert "does not answer as a Dask scheduler" in told.stdout
    assert told.stderr == ""


def test_what_is_no_scheduler_is_told_from_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clusters, "CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"dask://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match="does not answer as a Dask scheduler"):
            compute_this(server=address)(len)("abc").run()


def test_what_is_no_scheduler_leaves_no_thread_and_no_descriptor():
    def answers(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # It is closed in the end.
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def opened() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answers, args=(listener,), daemon=True).start()
        address = f"dask://127.0.0.1:{listener.getsockname()[1]}"
        for attempt in range(4):
            with pytest.raises(ServerUnavailable, match="does not answer as a Dask scheduler"):
                compute_this(server=address)(len)("abc").run()
            if attempt == 0:
                before = opened()
        eventually(lambda: opened() <= before, f"no more than {before} are there")
        listener.shutdown(socket.SHUT_RDWR)


def test_another_version_of_python_is_an_error_that_says_which_end_to_update():
    class Client:
        def ask_workers(self, _function: object) -> dict[str, str]:
            return {"tcp://there:1": "3.9.1"}

    with pytest.raises(
        PoolError, match=r"tcp://there:1 runs Python 3\.9.*Update the Dask worker tcp://there:1 to"
    ):
        clusters.check_python(Client())


def test_a_worker_that_lacks_this_package_says_so(
    start_cluster: Callable[..., RunningCluster], tmp_path: Path
):
    (tmp_path / "lacking.py").write_text("import sys\nsys.modules['distribute_challenge'] = None\n")
    running = start_cluster(1, "--no-nanny", "--preload", str(tmp_path / "lacking.py"))
    with (
        PoolExecutor(running.address) as pool,
        pytest.raises(PoolError, match=r"lacks this package .*pip install"),
    ):
        pool.submit(len, "abc").result(HANG_S)


# Losses


def test_a_function_that_ends_its_process_ends_nothing_else_and_is_begun_once(
    pool: PoolExecutor, tmp_path: Path
):
    before = pool.submit(dask_worker).result(HANG_S)
    with pytest.raises(WorkerLost, match=r"killed by SIGKILL.*beside the Dask worker"):
        pool.submit(ends_its_process_at_first, tmp_path / "calls").result(HANG_S)
    assert note(tmp_path / "calls") == 1
    assert is_running(before)


def test_what_is_lost_is_run_again_as_often_as_was_asked_for(cluster: RunningCluster, tmp_path: Path):
    task = compute_this(server=cluster.address, retries=1)(ends_its_process_at_first)
    assert task(tmp_path / "calls").run() == "done"
    assert note(tmp_path / "calls") == 2


def test_dask_runs_again_what_a_dask_worker_had_begun_that_died(
    start_cluster: Callable[..., RunningCluster], tmp_path: Path
):
    """This is what "never begun twice" does not hold for. It goes by the scheduler's `allowed-failures`."""
    running = start_cluster(1, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"})
    with PoolExecutor(running.address) as pool:
        assert pool.submit(ends_its_dask_worker, tmp_path / "one", 1).result(HANG_S) == "done"
        with pytest.raises(WorkerLost, match="Dask has given it to 2 of them"):
            pool.submit(ends_its_dask_worker, tmp_path / "all", 9).result(HANG_S)
        assert (note(tmp_path / "one"), note(tmp_path / "all")) == (2, 2)
        assert pool.submit(len, "abc").result(HANG_S) == 3


def test_a_scheduler_that_ends_ends_what_it_had(start_cluster: Callable[..., RunningCluster], tmp_path: Path):
    running = start_cluster(1, "--no-nanny")
    with PoolExecutor(running.address) as pool:
        future = pool.submit(sleeps, tmp_path / "calls")
        eventually((tmp_path / "calls").exists, "it runs")
        running.scheduler.kill()
        with pytest.raises(ServerUnavailable, match="has gone"):
            future.result(HANG_S)


def test_an_executor_ends_in_order_after_its_scheduler(
    start_cluster: Callable[..., RunningCluster], monkeypatch: pytest.MonkeyPatch
):
    made = []

    def connect(*place: Any) -> Any:
        made.append(clusters.connect(*place))
        return made[-1]

    monkeypatch.setattr(clusters, "CONNECT_S", 1.0)  # So long Dask's client looks for another one.
    monkeypatch.setattr(connections, "cluster", SimpleNamespace(connect=connect))
    running = start_cluster(1, "--no-nanny")
    with PoolExecutor(running.address) as pool:
        assert pool.submit(abs, -1).result(HANG_S) == 1
        running.scheduler.kill()
        eventually(lambda: made[0].status == "closed", "Dask's client has given up")


# Stopping


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster of one worker with two threads and no nanny."""
    running = RunningCluster(1, "--nthreads", "2", "--no-nanny", folder=tmp_path_factory.mktemp("threads"))
    yield running
    running.close()


@pytest.mark.parametrize("kind", ["cluster", "threads"])
def test_a_function_can_be_stopped_whatever_the_worker_is(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    with PoolExecutor(request.getfixturevalue(kind).address) as pool:
        before = pool.submit(dask_worker).result(HANG_S)
        future = pool.submit(sleeps, tmp_path / "killed")
        eventually((tmp_path / "killed").exists, "it runs")
        assert pool.kill(future)
        with pytest.raises(BaseException, match="killed, as its caller wished"):
            future.result(HANG_S)
        assert future.cancelled()
        with pytest.raises(TaskTimeout, match=r"did not end within 0\.3 s"):
            pool.submit(compute_this(timeout=0.3)(sleeps), tmp_path / "late").result(HANG_S)
        assert is_running(before)


def test_two_threads_are_two_processes(threads: RunningCluster, tmp_path: Path):
    with PoolExecutor(threads.address) as pool:
        futures = [pool.submit(waits_for_two, tmp_path / "calls") for _ in range(2)]
        assert len({future.result(HANG_S) for future in futures}) == 2


def waits_for_two(path):
    note(path)
    deadline = time.monotonic() + HANG_S
    while len(path.read_text().splitlines()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


def test_all_can_be_stopped_at_once(cluster: RunningCluster, tmp_path: Path):
    pool = PoolExecutor(cluster.address)
    futures = [pool.submit(sleeps, tmp_path / f"{number}") for number in range(8)]
    eventually(lambda: len(list(tmp_path.iterdir())) == 2, "two run")
    pool.kill_workers()
    assert not wait(futures, HANG_S).not_done
    assert all(future.cancelled() for future in futures)
    assert not (tmp_path / "7").exists()


def test_what_is_just_being_sent_is_stopped_as_well(
    cluster: RunningCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pool = PoolExecutor(cluster.address)
    submit = Connection.submit

    def submit_and_stop(connection: Connection, task: Task) -> Any:
        future = submit(connection, task)
        eventually((tmp_path / "calls").exists, "it runs")
        pool.kill_workers()
        return future

    monkeypatch.setattr(Connection, "submit", submit_and_stop)
    future = pool.submit(sleeps, tmp_path / "calls")
    eventually(future.done, "it has ended", within_s=HANG_S / 2)
    assert future.cancelled()


def test_what_waits_can_be_cancelled_and_never_runs(cluster: RunningCluster, tmp_path: Path):
    with PoolExecutor(cluster.address) as pool:
        running = [pool.submit(waits_to_be_let_go, tmp_path) for _ in range(2)]
        waiting = [pool.submit(note, tmp_path / "calls") for _ in range(5)]
        assert all(future.cancel() for future in waiting[1:])
        (tmp_path / "go").touch()
        assert [future.result(HANG_S) for future in running] == [None, None]
        assert waiting[0].result(HANG_S) == 0
    assert note(tmp_path / "calls") == 1


def waits_to_be_let_go(folder):
    deadline = time.monotonic() + HANG_S
    while not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


# What is particular about what travels


def prints_and_waits(folder):
    print("it runs")
    waits_to_be_let_go(folder)
    print("it ends")


def logs_after(seconds: float) -> int:
    time.sleep(seconds)
    logging.getLogger("test.dask").warning("here")
    return 1


@pytest.mark.parametrize("seconds", [0, 0.5], ids=["with the outcome", "while it runs"])
def test_a_handler_of_what_a_function_logs_may_use_the_pool(pool: PoolExecutor, seconds: float):
    results: list[Any] = []
    handler = logging.Handler()
    handler.emit = lambda _: results.append(pool.submit(pow, 2, 3).result(HANG_S))  # type: ignore[method-assign]
    logging.getLogger("test.dask").addHandler(handler)
    forward_logging("test.dask")
    try:
        assert pool.submit(logs_after, seconds).result(HANG_S) == 1
        eventually(lambda: results == [8], "the record was handled")
    finally:
        forwarded.clear()
        logging.getLogger("test.dask").removeHandler(handler)


def test_what_a_function_prints_appears_while_it_runs_and_at_its_caller_only(
    cluster: RunningCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = (
        "import sys, distribute_challenge as d\n"
        f"with d.PoolExecutor({cluster.address!r}) as pool:\n"
        "    print(pool.submit(len, 'abc').result(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "3\n"
        with PoolExecutor(cluster.address) as pool:
            future = pool.submit(prints_and_waits, tmp_path)
            shown: list[str] = []
            eventually(
                lambda: shown.append(capsys.readouterr().out) or "it runs" in "".join(shown), "it is shown"
            )
            (tmp_path / "go").touch()
            future.result(HANG_S)
            assert "".join(shown) + capsys.readouterr().out == "it runs\nit ends\n"
        assert other.communicate(timeout=HANG_S)[0] == ""


def test_tasks_of_tasks_run_beside_the_worker_also_if_they_name_the_cluster(cluster: RunningCluster):
    with PoolExecutor(cluster.address) as pool:
        found = list(pool.map(asks_the_cluster, [cluster.address] * 4, chunksize=1))
    assert found == [[0, 1, 4]] * 4


def asks_the_cluster(address):
    with PoolExecutor(address) as pool:
        return list(pool.map(square, range(3)))


def square(x):
    return x * x


def test_a_scattered_value_goes_to_each_worker_once(pool: PoolExecutor):
    value = pool.scatter(b"x" * 1_000_000)
    assert [pool.submit(len, value).result(HANG_S) for _ in range(4)] == [1_000_000] * 4
    assert pool.submit(lambda: len(value)).result(HANG_S) == 1_000_000


@pytest.mark.parametrize("lost", [1, 2])
def test_a_task_whose_value_was_lost_meanwhile_is_sent_again_once(
    pool: PoolExecutor, monkeypatch: pytest.MonkeyPatch, lost: int
):
    """The scheduler cancels it, before it tells that the value is lost."""
    sent = []
    submit = Connection.submit

    def submit_to_cancel(connection: Connection, task: Task) -> Any:
        future = submit(connection, task)
        sent.append(task.name)
        if len(sent) <= lost:
            future.cancel()
        return future

    monkeypatch.setattr(Connection, "submit", submit_to_cancel)
    monkeypatch.setattr(Connection, "has_lost_value", lambda *_: True)
    future = pool.submit(sum, pool.scatter([1, 2, 3]))
    if lost == 1:
        assert future.result(HANG_S) == 6
    else:
        assert isinstance(future.exception(HANG_S), WorkerLost)
    assert sent == ["sum"] * 2
    assert pool.submit(square, 3).result(HANG_S) == 9


def test_a_scattered_value_is_sent_again_when_the_workers_that_had_it_are_lost(
    start_cluster: Callable[..., RunningCluster],
):
    running = start_cluster(1, "--no-nanny")
    with PoolExecutor(running.address) as pool:
        value = pool.scatter(list(range(1000)))
        assert pool.submit(sum, value).result(HANG_S) == 499_500
        running.workers[0].kill()
        with distributed.Client(running.url, set_as_default=False) as client:
            eventually(lambda: not client.nthreads(), "no worker is left")
        # Now nobody has any, and nobody can take one.
        futures = [pool.submit(sum, value), pool.submit(sum, pool.scatter([1, 2]))]
        running.workers[0] = running.start_worker("--no-nanny")
        assert [future.result(HANG_S) for future in futures] == [499_500, 3]


def test_a_stuck_worker_holds_up_neither_a_kill_nor_the_end(
    start_cluster: Callable[..., RunningCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(closing, "ANSWER_S", 0.5)
    running = start_cluster(2, "--no-nanny")
    with PoolExecutor(running.address, initializer=note, initargs=(tmp_path / "begun",)) as pool:
        wait([pool.submit(time.sleep, 0.1) for _ in range(4)], HANG_S)
        running.workers[0].send_signal(signal.SIGSTOP)
        try:
            futures = [pool.submit(time.sleep, 2 * HANG_S) for _ in range(2)]
            eventually(lambda: all(future.running() for future in futures), "both are with Dask")
            assert all(map(pool.kill, futures))
            for future in futures:
                with pytest.raises(CancelledError):
                    future.result(HANG_S)
            pool.shutdown()
        finally:
            running.workers[0].send_signal(signal.SIGCONT)


def test_who_connects_while_a_worker_is_stuck_uses_the_others(
    start_cluster: Callable[..., RunningCluster], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(closing, "ANSWER_S", 0.5)
    running = start_cluster(2, "--no-nanny")
    running.workers[0].send_signal(signal.SIGSTOP)
    try:
        with PoolExecutor(running.address) as pool:
            futures = [pool.submit(len, "abc") for _ in range(2)]
            done, _ = wait(futures, HANG_S, FIRST_COMPLETED)
            assert [future.result() for future in done] == [3]
            running.workers[0].send_signal(signal.SIGCONT)
            assert [future.result(HANG_S) for future in futures] == [3, 3]
    finally:
        running.workers[0].send_signal(signal.SIGCONT)


def test_large_arguments_and_results_travel_without_a_word(pool: PoolExecutor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = os.urandom(20_000_000)
        assert pool.submit(bytes, data).result(HANG_S) == data


def test_a_million_items_are_a_few_hundred_tasks(pool: PoolExecutor):
    assert sum(pool.map(square, range(200_000))) == sum(x * x for x in range(200_000))


def test_it_is_encrypted_with_the_same_files(
    start_cluster: Callable[..., RunningCluster], certificates: Certificates
):
    running = start_cluster(1, "--no-nanny", tls=certificates.server)
    assert running.url.startswith("tls://")
    with PoolExecutor(running.address, tls=certificates.client) as pool:
        assert pool.submit(len, "abc").result(HANG_S) == 3
        assert pool.submit(within, running.address, certificates.client).result(HANG_S) == 3


def test_what_is_wrong_with_certificates_is_said(
    cluster: RunningCluster, certificates: Certificates, tmp_path: Path
):
    with (
        PoolExecutor(cluster.address, tls=certificates.client) as pool,
        pytest.raises(ServerUnavailable, match=r"\(.+\): .*\(if it needs none, give no tls="),
    ):
        pool.submit(len, "abc").result(HANG_S)
    missing = dataclasses.replace(certificates.client, key=str(tmp_path / "none.pem"))
    with (
        PoolExecutor(cluster.address, tls=missing) as pool,
        pytest.raises(PoolError, match=r"^cannot read the TLS file .*none\.pem"),
    ):
        pool.submit(len, "abc").result(HANG_S)


def within(address, tls):
    return compute_this(server=address, tls=tls)(len)("abc").run()


def test_names_that_are_no_text_are_written_as_they_can_be(cluster: RunningCluster, tmp_path: Path):
    path = tmp_path / "caf\udce9.py"  # One byte, which is no UTF-8.
    path.write_text(ODDLY_NAMED)
    environment = {**os.environ, "COMPUTE_SERVER": cluster.address, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, path], env=environment, capture_output=True, check=False, timeout=HANG_S
    )
    said = b"3\nValueError('sur\\ud800')\nTaskTimeout\n"
    assert (result.stdout, result.stderr) == (said, b"")


ODDLY_NAMED = """
from distribute_challenge import PoolExecutor

def func(x):
    return x + 1

def fails():
    raise ValueError("sur\\ud800")

def sleeps():
    import time
    time.sleep(1000)

func.__name__ = func.__qualname__ = sleeps.__name__ = "sur\\ud800"
with PoolExecutor(timeout=1) as pool:
    print(pool.submit(func, 2).result())
    print(repr(pool.submit(fails).exception()))
    print(type(pool.submit(sleeps).exception()).__name__)
"""


def test_a_scheduler_that_goes_while_a_client_connects_is_named(
    start_cluster: Callable[..., RunningCluster], monkeypatch: pytest.MonkeyPatch
):
    running = start_cluster(1, "--no-nanny")

    ask_workers = closing.Client.ask_workers

    def ask(client: closing.Client, *args: Any) -> dict[str, Any]:
        running.scheduler.kill()
        running.scheduler.wait()
        return ask_workers(client, *args)

    monkeypatch.setattr(closing.Client, "ask_workers", ask)
    with (
        PoolExecutor(running.address) as pool,
        pytest.raises(ServerUnavailable, match="has gone, or is stopping"),
    ):
        pool.submit(len, "abc").result(HANG_S)


def test_ctrl_c_stops_what_runs(cluster: RunningCluster, tmp_path: Path):
    task = compute_this(server=cluster.address)(tells_and_sleeps)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        eventually(lambda: has_content(tmp_path / "pid"), "it runs")
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        task(tmp_path / "pid").run()
    thread.join()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not is_running(pid), "its process is replaced")


CLIENT = """
import sys, time
from distribute_challenge import PoolExecutor

def begins(path):
    import os, pathlib
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(1000)

pool = PoolExecutor(sys.argv[1])
futures = [pool.submit(begins, path) for path in sys.argv[2:]]
futures[0].result()
"""


@pytest.mark.parametrize("kind", ["cluster", "threads"])
def test_what_a_killed_program_had_under_way_is_stopped(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    address = request.getfixturevalue(kind).address
    paths = [tmp_path / "one", tmp_path / "two"]
    words = [sys.executable, "-c", CLIENT, address, *map(str, paths)]
    with subprocess.Popen(words, cwd=ROOT) as client:
        eventually(lambda: all(path.exists() and path.read_text() for path in paths), "both run")
        client.kill()
    for path in paths:
        eventually(lambda path=path: not is_running(int(path.read_text())), "its process is replaced")


def tells_and_sleeps(path):
    note(path)
    time.sleep(2 * HANG_S)


def test_a_cluster_of_its_own_ends_with_the_program_kill_9_included(tmp_path: Path):
    code = (
        "import os, signal, distribute_challenge as d\n"
        "with d.PoolExecutor('dask://') as pool:\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    worker = int(told.stdout)
    eventually(lambda: not is_running(worker), "the workers have gone")


def test_a_function_that_ends_its_process_is_run_again_as_often_as_was_said(
    cluster: RunningCluster, tmp_path: Path
):
    def ends_its_process(path):
        note(path)
        os._exit(3)

    with PoolExecutor(cluster.address, retries=1) as pool:
        error = pool.submit(ends_its_process, tmp_path / "calls").exception(HANG_S)
    assert isinstance(error, WorkerLost)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_the_pool_beside_a_dask_worker_ends_with_it(tmp_path: Path):
    """Also if that is no process of its own."""
    from distributed import LocalCluster

    how: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", **how) as cluster:
        with PoolExecutor(f"dask://{cluster.scheduler_address.partition('://')[2]}") as pool:
            server = pool.submit(os.getppid).result(HANG_S)
        assert is_running(server)
    eventually(lambda: not is_running(server), "its pool has ended")


def test_letters_of_several_bytes_arrive_whole(cluster: RunningCluster, capsys: pytest.CaptureFixture[str]):
    from distribute_challenge.client.dask.carried import LIVE_S  # Late: each worker imports this module.

    text = "a" + 20_000 * "é"

    def prints():
        time.sleep(2 * LIVE_S)
        print(text)

    def writes():  # What is no text
        time.sleep(2 * LIVE_S)
        sys.stdout.buffer.write(b"a" + b"\x80" * 20_000)

    shown = ""

    def is_shown(expected: str) -> bool:  # Where all is slow, a result does not wait until all is shown.
        nonlocal shown
        shown += capsys.readouterr().out
        return shown == expected

    with PoolExecutor(cluster.address) as pool:
        pool.submit(prints).result(HANG_S)
        whole = text + "\n"
        eventually(lambda: is_shown(whole), "what is text is shown")
        pool.submit(writes).result(HANG_S)
        whole += "a" + "\\x80" * 20_000
        eventually(lambda: is_shown(whole), "what is none is shown")
