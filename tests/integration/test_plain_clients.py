"""Any RPyC client can use the pool, knowing three calls; and no client can do what it must not."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import rpyc
from rpyc.core.consts import HANDLE_GETATTR, HANDLE_PICKLE, HANDLE_SETATTR

from tests.running import HANG_S, RunningServer, connect, eventually

SQUARE = "x = 3\nresult = x * x"


def test_a_plain_client_of_ten_lines_works(server: RunningServer):
    port = -1
    scheduler = rpyc.connect("localhost", server.port)
    while port == -1:
        port = scheduler.root.find_free_worker()
    worker = rpyc.connect("localhost", port)
    result = worker.root.run_code("def f(x):\n    time.sleep(x)\n    return x * x\nresult = f(0.1)")
    scheduler.root.free_worker(port)
    assert result == 0.1 * 0.1
    status = server.status()
    assert (status["busy"], status["finished"], status["failed"]) == ([0, 0], 1, 0)


def test_find_free_worker_answers_at_once_with_the_lowest_port_and_then_with_minus_one(
    used_server: RunningServer,
):
    with used_server.connect() as client:
        assert [client.root.find_free_worker() for _ in range(3)] == [*used_server.ports, -1]


def test_the_server_tells_what_was_wrong_with_a_call_and_nothing_of_itself(used_server: RunningServer):
    with used_server.connect() as client:
        for call in (lambda: client.root.free_worker("x"), lambda: client.root.acquire_worker(executor="x")):
            with pytest.raises(ValueError, match=r"a worker's port is an int|told apart by bytes") as caught:
                call()
            assert ".py" not in str(caught.value)


def test_eight_polling_clients_never_get_one_worker_twice(server: RunningServer):
    """Each marks the worker as its own by a file that only one can create."""
    deadline = time.monotonic() + 10
    marks = [server.folder / str(port) for port in server.ports]

    def poll(_: int) -> int:
        leases = 0
        with server.connect() as client:
            while time.monotonic() < deadline:
                port = client.root.find_free_worker()
                if port == -1:
                    continue
                mark = server.folder / str(port)
                mark.touch(exist_ok=False)  # Raises if another client holds this worker.
                mark.unlink()
                client.root.free_worker(port)
                leases += 1
        return leases

    with ThreadPoolExecutor(8) as clients:
        leases = list(clients.map(poll, range(8)))
    assert sum(leases) > 100
    assert server.status()["finished"] == sum(leases)
    assert not any(mark.exists() for mark in marks)


@pytest.mark.parametrize("call", ["free_worker", "keep_worker"])
def test_a_lease_can_only_be_ended_by_who_holds_it(server: RunningServer, call: str):
    with server.connect() as holder, server.connect() as other:
        port = holder.root.find_free_worker()
        before = server.status()
        wrong = [(other, port), (holder, server.ports[1]), (holder, 1), (holder, "18812"), (holder, True)]
        for client, number in wrong:
            with pytest.raises(ValueError, match="worker"):
                getattr(client.root, call)(number)
        for counts in [(-1, 0), (0, -1), (1.0, 0), (True, 0), (10**4000, 0)]:
            with pytest.raises(ValueError, match="count"):
                getattr(holder.root, call)(port, *counts)
        after = server.status()
        assert (after["busy"], after["finished"]) == (before["busy"], before["finished"])
        holder.root.free_worker(port)
        with pytest.raises(ValueError, match="does not hold"):
            holder.root.free_worker(port)
        assert server.status()["busy"] == [0, 0]


def test_a_function_that_raised_counts_in_failed_only(server: RunningServer):
    with server.connect() as client:
        port = client.root.find_free_worker()
        client.root.keep_worker(port, 5, 1)
        client.root.free_worker(port, finished=0, failed=1)
    status = server.status()
    assert (status["finished"], status["failed"]) == (5, 2)


def test_who_waits_is_served_in_order_and_before_who_polls(server: RunningServer):
    order: list[int] = []
    with server.connect() as holder:
        ports = [holder.root.acquire_worker() for _ in range(2)]

        def wait_in_line(number: int) -> None:
            with server.connect() as client:
                port = client.root.acquire_worker()
                order.append(number)
                client.root.free_worker(port)

        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=wait_in_line, args=(number,)))
            threads[-1].start()
            server.await_waiting(number + 1)
        with server.connect() as poller:
            assert poller.root.find_free_worker() == -1
        assert holder.root.keep_worker(ports[0]) == 5
        holder.root.free_worker(ports[0])
        for thread in threads:
            thread.join(HANG_S)
    assert order == [0, 1, 2, 3, 4]


def test_waiting_ends_after_the_time_limit(server: RunningServer):
    with server.connect() as holder, server.connect() as client:
        for _ in range(2):
            holder.root.acquire_worker()
        started = time.monotonic()
        assert client.root.acquire_worker(0.2) == -1
        assert time.monotonic() - started >= 0.2
        assert client.root.acquire_worker(timeout=0) == -1
        for wrong in (-1, float("nan"), "1"):
            with pytest.raises(ValueError, match="timeout"):
                client.root.acquire_worker(wrong)
        assert server.status()["waiting"] == 0


def test_a_sample_tells_how_many_wait_at_that_time(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--interval", "0.05")

    def sampled() -> list[str]:
        return [row["Waiting"] for row in server.rows("sample")]

    with server.connect() as holder, server.connect() as waiter:
        port = holder.root.find_free_worker()
        waiting = rpyc.async_(waiter.root.acquire_worker)()
        eventually(lambda: sampled()[-1:] == ["1"], "a sample shows that one waits")
        holder.root.free_worker(port)
        assert waiting.value == port
        eventually(lambda: sampled()[-1:] == ["0"], "a sample shows that none waits")
        assert waiter.root.acquire_worker(0.2) == -1
        samples = len(sampled())
        eventually(lambda: len(sampled()) > samples + 1, "there are more samples")
        assert sampled()[-1] == "0"


def test_only_the_calls_of_the_contract_are_reachable(used_server: RunningServer):
    with used_server.connect() as client:
        root, method = client.root, client.root.find_free_worker
        for target, name in [
            *(
                (root, name)
                for name in ("_pool", "_dispatcher", "_caller", "on_connect", "__class__", "__init__")
            ),
            *((method, name) for name in ("__self__", "__func__", "__globals__", "__class__", "__call__")),
        ]:
            with pytest.raises(AttributeError, match="cannot access"):
                client.sync_request(HANDLE_GETATTR, target, name)
        with pytest.raises(AttributeError):
            client.sync_request(HANDLE_SETATTR, root, "exposed_status", 1)
        with pytest.raises(ValueError, match="pickling is disabled"):
            client.sync_request(HANDLE_PICKLE, root, 5)


def test_a_client_that_gives_up_does_not_let_two_functions_run_at_once(
    used_server: RunningServer, tmp_path: Path
):
    started, ended = tmp_path / "started", tmp_path / "ended"
    slow = f"import pathlib\npathlib.Path({str(started)!r}).touch()\ntime.sleep(1)\n"
    slow += f"pathlib.Path({str(ended)!r}).touch()\nresult = 1"
    with used_server.connect() as client, used_server.connect() as other:
        port = client.root.find_free_worker()
        worker = connect(port)
        with pytest.raises(TimeoutError):
            rpyc.timed(worker.root.run_code, 0.3)(slow).value  # noqa: B018  It waits for that.
        client.root.free_worker(port)
        assert other.root.find_free_worker() == port
        with connect(port) as second:
            eventually(started.exists, "the slow function runs")
            with pytest.raises(RuntimeError, match="is running a function for another connection"):
                second.root.run_code(SQUARE)
            assert not ended.exists()
            eventually(ended.exists, "the slow function ends")
            assert eventually(lambda: attempt(second), "the worker is usable again") == 9
        worker.close()


def attempt(worker: rpyc.Connection) -> int | None:
    try:
        value: int = worker.root.run_code(SQUARE)
    except RuntimeError:
        return None
    return value


def test_calls_sent_ahead_on_one_connection_wait_their_turn(used_server: RunningServer):
    with used_server.connect() as client:
        port = client.root.find_free_worker()
        with connect(port) as worker:
            run_code = rpyc.async_(worker.root.run_code)
            answers = [run_code(f"time.sleep(0.01)\nresult = {number}") for number in range(10)]
            assert [answer.value for answer in answers] == list(range(10))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("result = (None, True, 3, 2.5, 1j, 'text', b'bytes', (1, (2,)), frozenset({1}), slice(1, 2))", None),
        ("result = time.__name__ + sys.__name__ + rpyc.__name__", "timesysrpyc"),
        ("result = 'x' * 5_000_000", "x" * 5_000_000),
    ],
)
def test_values_that_rpyc_carries_travel_by_value(used_server: RunningServer, source: str, expected: object):
    with connect(used_server.ports[0]) as worker:
        result = worker.root.run_code(source)
    assert result == (
        expected or (None, True, 3, 2.5, 1j, "text", b"bytes", (1, (2,)), frozenset({1}), slice(1, 2))
    )


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ("result = [1, 2]", TypeError, "a list, does not travel by value"),
        ("result = 10 ** 5000", TypeError, "does not travel by value"),
        ("result = '\\ud800'", TypeError, "does not travel by value"),
        ("pass", NameError, "bound nothing to `result`"),
        ("sys.exit(3)", RuntimeError, "SystemExit: 3"),
        ("raise KeyboardInterrupt", RuntimeError, "KeyboardInterrupt"),
        ("raise GeneratorExit", RuntimeError, "GeneratorExit"),
        ("1 / 0", ZeroDivisionError, "division by zero"),
        ("{}['key']", KeyError, "key"),
        ("open('/no/such/file')", FileNotFoundError, "No such file"),
        ("b'\\xff'.decode()", UnicodeDecodeError, "invalid start byte"),
        ("class Own(Exception): pass\nraise Own('text')", RuntimeError, "__main__.Own: text"),
        ("class Bad:\n  def __repr__(self): 1 / 0\nraise ValueError(Bad())", RuntimeError, "ValueError"),
        ("class Bad(Exception):\n  def __str__(self): 1 / 0\nraise Bad", RuntimeError, "its __str__ raised"),
        ("raise ExceptionGroup('many', [ValueError(1)])", (RuntimeError, NameError), "Exception"),
        ("def f(:", SyntaxError, "invalid syntax"),
    ],
)
def test_what_a_source_does_wrong_is_told_and_the_worker_goes_on(
    used_server: RunningServer, source: str, error: type[Exception], text: str
):
    with connect(used_server.ports[0]) as worker:
        with pytest.raises(error) as caught:
            worker.root.run_code(source)
        assert text in str(caught.value)
        assert worker.root.run_code(SQUARE) == 9


def test_a_namespace_is_fresh_each_time(used_server: RunningServer):
    with connect(used_server.ports[0]) as worker:
        assert worker.root.run_code("left_over = 1\nresult = 1") == 1
        with pytest.raises(NameError):
            worker.root.run_code("result = left_over")


def test_the_next_function_finds_a_clean_worker(used_server: RunningServer):
    look = (
        "import os\n"
        "result = (os.getcwd(), tuple(sorted(os.environ.items())), tuple(sys.path), "
        "sys.stdin.name, sys.stdout.name, sys.stderr.name, os.readlink('/proc/self/fd/1'))"
    )
    vandal = """
import io, os, tempfile
with tempfile.TemporaryDirectory() as gone:
    os.chdir(gone)
os.environ["LEFT"] = "over"
del os.environ["PATH"]
os.environ = {}
sys.path.insert(0, "/left")
sys.path = []
sys.stdout.write("printed")
sys.stdout.close()
sys.stderr = io.StringIO()
sys.stdin.close()
for number in range(3):
    try:
        os.close(number)
    except OSError:
        pass
result = 1
"""
    with connect(used_server.ports[0]) as worker:
        before = worker.root.run_code(look)
        assert worker.root.run_code(vandal) == 1
        after = worker.root.run_code(look)
        assert after[:3] == before[:3]
        assert after[-1] == before[-1]
        assert worker.root.run_code("print('still prints', flush=True)\nresult = 2") == 2


def test_a_stopping_server_tells_those_who_wait(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--grace", "30")
    with server.connect() as holder, server.connect() as waiting, server.connect() as late:
        port = holder.root.find_free_worker()
        answer = rpyc.async_(waiting.root.acquire_worker)()
        server.await_waiting(1)
        server.process.terminate()
        with pytest.raises(RuntimeError, match="stopping"):
            answer.value  # noqa: B018  Raises.
        with pytest.raises(RuntimeError, match="stopping"):
            late.root.find_free_worker()
        with connect(port) as worker:  # Its function may still end.
            assert worker.root.run_code(SQUARE) == 9
        holder.root.free_worker(port)
        assert server.process.wait(HANG_S) == 0
    assert [row["Event"] for row in server.rows()] == ["start", "acquire", "free", "stop"]


WAITS = """
import rpyc, sys
connection = rpyc.connect("127.0.0.1", int(sys.argv[1]), config={"sync_request_timeout": None})
connection.root.status()
print("ready", flush=True)
print(connection.root.acquire_worker(), flush=True)
sys.stdin.read()
"""


class WaitingProgram:
    """A program of ten lines that waits in line, and keeps its worker until its input ends."""

    def __init__(self, server: RunningServer) -> None:
        command = [sys.executable, "-c", WAITS, str(server.port)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout
        assert self.said.readline() == "ready\n"
        eventually(lambda: f"its process is [{self.process.pid}]" in server.stderr(), "the server knows it")

    def send(self, number: int) -> None:
        self.process.send_signal(number)
        is_stopped = number == signal.SIGSTOP
        process = psutil.Process(self.process.pid)
        eventually(lambda: (process.status() == psutil.STATUS_STOPPED) == is_stopped, "it has the signal")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=HANG_S)


@pytest.fixture
def programs(
    start_server: Callable[..., RunningServer],
) -> Iterator[tuple[rpyc.Connection, list[WaitingProgram]]]:
    """A client that holds the only worker, and three programs that wait for it."""
    server = start_server(1, "-v")
    with contextlib.ExitStack() as opened, server.connect() as holder:
        assert holder.root.find_free_worker() == server.ports[0]
        waiting = []
        for _ in range(3):
            waiting.append(WaitingProgram(server))
            opened.callback(waiting[-1].close)
        yield holder, waiting


def test_a_client_that_is_stopped_in_line_is_passed_over_and_keeps_its_place(
    programs: tuple[rpyc.Connection, list[WaitingProgram]],
):
    holder, (first, second, third) = programs
    first.send(signal.SIGSTOP)
    port = json.loads(holder.root.status())["workers"][0]["port"]
    holder.root.free_worker(port)
    assert second.said.readline() == f"{port}\n"
    first.send(signal.SIGCONT)
    second.close()  # Its worker is replaced, and handed over.
    assert first.said.readline() == f"{port}\n"
    first.close()
    assert third.said.readline() == f"{port}\n"


def test_a_client_that_goes_on_gets_a_worker_that_nobody_else_wanted(
    programs: tuple[rpyc.Connection, list[WaitingProgram]],
):
    holder, (first, *others) = programs
    for other in others:
        other.close()
    first.send(signal.SIGSTOP)
    port = json.loads(holder.root.status())["workers"][0]["port"]
    holder.root.free_worker(port)
    status = json.loads(holder.root.status())
    assert (status["busy"], status["waiting"]) == ([0], 1)
    assert holder.root.find_free_worker() == port
    holder.root.free_worker(port)
    first.send(signal.SIGCONT)
    assert first.said.readline() == f"{port}\n"


def test_who_does_not_read_what_it_is_answered_holds_up_nobody(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server = start_server(1)
    with server.connect() as scheduler, server.connect() as other:
        port = scheduler.root.find_free_worker()
        deaf, worker = connect(port), connect(port)
        assert deaf.root.run_code("result = 1") == 1  # The main thread serves it from here on.
        begun = tmp_path / "begun"
        unread = rpyc.async_(deaf.root.run_code)(f"open({str(begun)!r}, 'w'); result = b'x' * 80_000_000")
        eventually(begun.exists, "it has begun")
        scheduler.root.free_worker(port)
        assert other.root.acquire_worker() == port

        def is_run() -> bool:
            try:
                return bool(worker.root.run_code("result = 2") == 2)
            except RuntimeError:  # The other function, which was given up too early, still runs.
                return False

        eventually(is_run, "it takes the next function")
        assert len(unread.value) == 80_000_000
        for connection in (deaf, worker):
            connection.close()


def test_what_one_client_printed_is_not_told_to_the_next(start_server: Callable[..., RunningServer]):
    server = start_server(1, "-v")
    with server.connect() as scheduler:
        port = scheduler.root.find_free_worker()
        with connect(port) as worker:
            worker.root.run_code("import os\nresult = os.write(1, b'a line\\na secret without an end')")
        eventually(lambda: f"worker {port}: a line" in server.stderr(), "the server has read it")
        scheduler.root.free_worker(port)
    with server.connect() as scheduler:
        assert scheduler.root.acquire_worker() == port
        with connect(port) as worker, contextlib.suppress(EOFError):
            worker.root.run_code("import os\nos._exit(3)")
        ending = json.loads(scheduler.root.recycle_worker(port, "it died"))
    assert ending["exit_code"] == 3
    assert "secret" not in str(ending["last_lines"])
