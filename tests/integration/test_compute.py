"""Decorated functions on a real pool: what travels, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import functools
import math
import operator
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import distribute_challenge
from distribute_challenge import (
    PoolError,
    PoolExecutor,
    ServerUnavailable,
    TaskNotSendable,
    WorkerLost,
    compute_this,
)
from distribute_challenge import compute_this as on_the_pool
from distribute_challenge.calls.payload import RemoteTraceback
from distribute_challenge.client.executors import executor_at
from distribute_challenge.client.parcels.parcel import client_name
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually, free_port, ssh_server

FACTOR = 10
TABLE = {"seven": 7}
LOCK = threading.Lock()


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def doubled(self) -> Point:
        return Point(self.x * 2)


def helper(x: int) -> int:
    return deeper(x) + 1


def deeper(x: int) -> int:
    return x * FACTOR


def shouting(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def wrapper(*args: object) -> str:
        return function(*args).upper() + "!" * TABLE["seven"]

    return wrapper


def opaque(function: Callable[..., int]) -> Callable[..., int]:
    def wrapper(x: int) -> int:
        return function(x) + FACTOR

    return wrapper


@compute_this
def bare(x):
    return x * x


@compute_this()
def with_parentheses(x):
    return x * x


@distribute_challenge.compute_this
def under_its_full_name(x):
    return x * x


@on_the_pool()
def under_another_name(x):
    return x * x


@compute_this
def uses_its_module(x):
    return helper(x) + TABLE["seven"] + int(math.sqrt(16)) + len(os.sep)


@compute_this
def many_arguments(a, b=2, /, *rest, c, d: int = 4, **others):
    return (a, b, rest, c, d, others)


@compute_this
def returns_mutable_things():
    return [1, {"two": [3]}, {4}, bytearray(b"5")]


@compute_this
def uses_a_class(x):
    return Point(x).doubled().x


@compute_this
@shouting
def decorated_below(text):
    return f"hey {text}"


@compute_this
@functools.cache
def cached_recursion(n):
    return n if n < 2 else cached_recursion(n - 1) + cached_recursion(n - 2)


@compute_this
@opaque
def decorated_by_a_wrapper_without_a_name(x):
    return x * 100


@compute_this
def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)


@compute_this
def nested_code(values):
    def inner(value):
        return value * FACTOR

    return [inner(value) for value in values] + [(lambda value: helper(value))(1)]


@compute_this
def strings_with_margins():
    return """
  two
four at the margin
"""


by_call = compute_this(helper)
a_lambda = compute_this(lambda x: x * FACTOR)
partial = compute_this(functools.partial(helper, 4))


def make_closure(offset):
    calls = 0

    @compute_this
    def closure(x):
        nonlocal calls
        calls += 1
        return x + offset + calls

    return closure


def make_recursive_closure():
    @compute_this
    def countdown(n):
        return ["lift off"] if n == 0 else [n, *countdown(n - 1)]

    return countdown


class Holder:
    def make(self, x):
        @compute_this
        def in_a_method(y):
            """A docstring
            with two lines."""
            text = """
no margin"""
            return x + y + len(text)

        return in_a_method


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (bare(3), 9),
        (with_parentheses(3), 9),
        (under_its_full_name(3), 9),
        (under_another_name(3), 9),
        (uses_its_module(2), 21 + 7 + 4 + 1),
        (many_arguments(1, c=3), (1, 2, (), 3, 4, {})),
        (many_arguments(1, 9, 8, c=3, d=5, e=6), (1, 9, (8,), 3, 5, {"e": 6})),
        (returns_mutable_things(), [1, {"two": [3]}, {4}, bytearray(b"5")]),
        (uses_a_class(4), 8),
        (decorated_below("you"), "HEY YOU!!!!!!!"),
        (cached_recursion(80), 23416728348467685),
        (decorated_by_a_wrapper_without_a_name(3), 310),
        (recursive(5), 120),
        (nested_code([1, 2]), [10, 20, 11]),
        (strings_with_margins(), "\n  two\nfour at the margin\n"),
        (by_call(3), 31),
        (a_lambda(3), 30),
        (partial(), 41),
        (make_closure(100)(3), 104),
        (make_recursive_closure()(2), [2, 1, "lift off"]),
        (Holder().make(1)(2), 1 + 2 + 10),
    ],
    ids=str,
)
def test_a_function_gives_on_the_pool_what_it_gives_here(used_server: RunningServer, call, expected):
    assert call.run() == expected


def test_a_call_does_nothing_until_it_is_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTE_SERVER", "localhost:1")
    with pytest.warns(RuntimeWarning, match="a call of bare was never made: .run()") as warned:
        assert "run" in repr(bare(3))
    assert [warning.filename for warning in warned] == [__file__]
    assert bare.local(3) == 9
    assert bare.__wrapped__(3) == 9
    assert bare.__name__ == "bare"


@pytest.mark.parametrize("way", ["run", "submit"])
def test_who_forgets_to_call_a_function_is_told_how_to(way: str):
    @compute_this
    def func(x: int) -> int:
        return x

    with pytest.raises(AttributeError, match=rf"has no attribute '{way}': func\(\.\.\.\)\.{way}\(\)"):
        getattr(func, way)
    assert not hasattr(func, "other")


def test_a_name_may_be_as_long_as_it_likes(used_server: RunningServer):
    def func(x: int) -> int:
        return x

    func.__qualname__ = "n" * 100_000
    assert compute_this(func)(3).run() == 3


def test_a_recursive_function_runs_here_as_it_does_there(used_server: RunningServer):
    assert recursive.local(5) == recursive(5).run() == 120
    assert cached_recursion.local(30) == 832040
    call = recursive(5)
    assert "run" in repr(call)
    assert call.run() == 120


def test_a_call_that_is_made_in_any_way_warns_of_nothing(used_server: RunningServer):
    async def awaits() -> int:
        return await bare(3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bare(3).run() == bare(3).submit().result(HANG_S) == asyncio.run(awaits()) == 9


def test_a_worker_that_still_runs_what_a_client_gave_up_is_replaced(server: RunningServer, tmp_path: Path):
    started = tmp_path / "started"
    source = f"import pathlib\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)"
    with server.connect() as client, connect(client.root.find_free_worker(), timeout_s=0.2) as worker:
        pid = server.worker_pids()[0]
        with pytest.raises(TimeoutError):
            worker.root.run_code(source)
        eventually(started.exists, "the function runs")
        client.root.free_worker(server.ports[0])
        assert bare(3).run() == 9
        assert pid not in server.worker_pids()


def test_a_worker_that_cannot_be_reached_is_no_reason_to_replace_it(
    start_server: Callable[..., RunningServer],
):
    """As through a tunnel that carries the server's port alone."""
    server = start_server(1)
    pids = server.worker_pids()
    with forwarding_to(server.port) as port:
        address = f"127.0.0.2:{port}"
        with pytest.raises(PoolError, match="clients need the ports of all workers"):
            compute_this(server=address)(helper)(3).run()
        executor_at(address).shutdown()
    server.await_busy([0])
    assert server.worker_pids() == pids


@contextlib.contextmanager
def forwarding_to(port: int) -> Iterator[int]:
    """A port of 127.0.0.2 that carries one connection on to `port`."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        with contextlib.suppress(OSError):  # The other direction may have ended first.
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=carry, args=(far, near))
            back.start()
            carry(near, far)
            back.join(HANG_S)

    with socket.create_server(("127.0.0.2", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(HANG_S)


def test_the_text_that_travels_is_the_users_own():
    assert bare.source == "def bare(x):\n    return x * x\n"
    assert with_parentheses.source == "def with_parentheses(x):\n    return x * x\n"
    assert decorated_below.source == 'def decorated_below(text):\n    return f"hey {text}"\n'
    assert make_closure(1).source.startswith("def closure(x):\n    nonlocal calls\n")
    assert a_lambda.source.startswith("# No text")


def test_functions_of_a_module_use_it_as_its_file_has_it(
    used_server: RunningServer, monkeypatch: pytest.MonkeyPatch
):
    """What the program has set there since does not travel; what a closure holds does."""
    monkeypatch.setitem(globals(), "FACTOR", 20)
    assert by_call(1).run() == 11
    assert compute_this(opaque(helper))(1).run() == 11 + 10


def test_the_address_is_the_argument_or_the_environments(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
):
    one, two = start_server(1), start_server(2)
    monkeypatch.setenv("COMPUTE_SERVER", one.address)
    assert bare(3).run() == 9
    assert compute_this(server=two.address)(helper)(3).run() == 31
    assert (one.idle_status()["finished"], two.idle_status()["finished"]) == (1, 1)
    for wrong in ("nonsense:port", "", "local:4", "local//4", "a/b:4"):
        with pytest.raises(ValueError, match="not an address"):
            compute_this(server=wrong)
        with pytest.raises(ValueError, match="not an address"):
            PoolExecutor(wrong)


@compute_this
def fails(message):
    raise ValueError(message, FACTOR)


class Stubborn(Exception):
    """Has no pickle that could be loaded again."""

    def __reduce__(self):
        return Stubborn.no_such_thing, ()  # type: ignore[attr-defined]


class Picky(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.one = one


@compute_this
def fails_with_what_does_not_pickle():
    raise Stubborn("1 and 2")


@compute_this
def fails_pickily():
    raise Picky(1, 2)


@compute_this
def exits(code):
    sys.exit(code)


def test_an_exception_arrives_as_itself_with_the_remote_traceback_as_its_cause(server: RunningServer):
    with pytest.raises(ValueError, match="boom") as caught:
        fails("boom").run()
    assert caught.value.args == ("boom", 10)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    text = str(caught.value.__cause__)
    line = fails.__wrapped__.__code__.co_firstlineno + 2
    assert f'{__file__}", line {line}, in fails' in text
    assert "raise ValueError(message, FACTOR)" in text
    assert "distribute_challenge" not in text
    status = server.idle_status()
    assert (status["finished"], status["failed"]) == (0, 1)


def test_an_exception_that_does_not_pickle_arrives_with_name_text_and_traceback(used_server: RunningServer):
    with pytest.raises(RuntimeError, match=r"Stubborn: 1 and 2") as caught:
        fails_with_what_does_not_pickle().run()
    assert 'raise Stubborn("1 and 2")' in str(caught.value.__cause__)


def test_an_exception_with_a_constructor_of_its_own_arrives_as_itself(used_server: RunningServer):
    with pytest.raises(Picky, match="1 and 2") as caught:
        fails_pickily().run()
    assert caught.value.one == 1
    assert "raise Picky(1, 2)" in str(caught.value.__cause__)


def test_an_exit_ends_the_function_and_not_the_worker(server: RunningServer):
    pids = server.worker_pids()
    with pytest.raises(SystemExit) as caught:
        exits(3).run()
    assert caught.value.code == 3
    assert bare(3).run() == 9
    assert server.worker_pids() == pids


def uses_a_lock(lock):
    @compute_this
    def is_locked():
        return lock.locked()

    return is_locked


@compute_this
def returns_a_lock():
    return threading.Lock()


def test_what_cannot_travel_is_named_before_a_worker_is_taken(server: RunningServer):
    with pytest.raises(TaskNotSendable, match=r"is_locked .* the variable 'lock' that it uses, a lock"):
        uses_a_lock(LOCK)().run()
    with pytest.raises(TaskNotSendable, match=r"bare .* argument 1, a lock"):
        bare(LOCK).run()
    server.await_events("start")


def test_a_result_that_cannot_travel_is_the_functions_failure(server: RunningServer):
    with pytest.raises(TypeError, match=r"returns_a_lock returned a lock that does not travel back"):
        returns_a_lock().run()
    assert server.idle_status()["failed"] == 1


@compute_this
def sleeps(seconds):
    time.sleep(seconds)
    return seconds


@compute_this
def dies(how):
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), how)


def test_a_worker_that_dies_is_told_and_replaced(server: RunningServer):
    pids = server.worker_pids()
    with pytest.raises(
        WorkerLost, match=rf"port {server.ports[0]} .*died while it ran dies: killed by SIGKILL"
    ):
        dies(9).run()
    with pytest.raises(WorkerLost, match=r"(?s)SIGSEGV.*last words.*Fatal Python error.* in dies$") as error:
        dies(11).run()
    assert "distribute_challenge" not in str(error.value)  # Its frames tell nobody anything.
    server.await_busy([0, 0])
    assert not set(pids[:1]) & set(server.worker_pids())
    assert bare(3).run() == 9
    status = server.idle_status()
    assert (status["finished"], status["failed"]) == (1, 2)


def test_a_worker_replaced_while_idle_is_used_without_a_hitch(server: RunningServer):
    assert bare(3).run() == 9
    for pid in server.worker_pids():
        os.kill(pid, 9)
        eventually(lambda pid=pid: pid not in server.worker_pids(), "the worker is replaced")
    server.await_busy([0, 0])
    assert bare(3).run() == 9


def test_a_server_that_was_restarted_is_used_without_a_hitch(start_server: Callable[..., RunningServer]):
    port = str(free_port(2))
    first = start_server(1, "--port", port)
    function = compute_this(server=first.address)(helper)
    assert function(3).run() == 31
    first.close()
    with pytest.raises(ServerUnavailable, match=r"no server answers at .* start one with `compute server 2`"):
        function(3).run()
    start_server(1, "--port", port)
    assert function(3).run() == 31


def test_what_is_no_pool_is_told(server: RunningServer):
    """A worker, say: its port is in the same line as the server's."""
    with pytest.raises(PoolError, match=r"not the server of a pool .*if it is a worker") as raised:
        compute_this(server=f"127.0.0.1:{server.ports[0]}")(helper)(3).run()
    assert "Traceback" not in str(raised.value)


def test_a_call_that_was_not_made_tells_what_an_executor_takes(server: RunningServer):
    with PoolExecutor(server.address) as pool:
        error = pool.submit(compute_this(helper)(3)).exception(HANG_S)
    assert "as in pool.submit(helper, ...)" in str(error)
    assert "make it inside the function" not in str(error)


def test_the_arguments_of_an_initializer_are_several():
    with pytest.raises(TypeError, match=r"write \(5,\)"):
        PoolExecutor("local://1", initializer=print, initargs=5)


@pytest.mark.parametrize("way", ["run", "submit"])
def test_what_is_no_rpyc_server_is_told_from_one_that_lets_nobody_in(way: str):
    """A Dask scheduler, for one, greets with what would be a frame of a gigabyte."""
    with ssh_server() as port:
        call = compute_this(server=f"127.0.0.1:{port}")(abs)(-1)
        with pytest.raises(ServerUnavailable, match=r"not the server of a pool .*dask://"):
            call.run() if way == "run" else call.submit().result(HANG_S)


def test_an_interrupted_call_takes_its_worker_with_it(server: RunningServer, interruptible: None):
    pids = server.worker_pids()
    here = threading.get_ident()

    def interrupt() -> None:
        eventually(lambda: server.status()["workers"][0]["running"], "the function runs")
        signal.pthread_kill(here, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        sleeps(HANG_S).run()
    eventually(lambda: pids[0] not in server.worker_pids(), "its worker is replaced", within_s=2)
    server.await_busy([0, 0])
    assert bare(3).run() == 9
    assert f"under sleeps of {client_name().partition('@')[0]}; its reason: its caller" in server.stderr()
    server.stop()
    with (server.folder / "profiling" / "tasks_2.csv").open(newline="") as file:
        found = [(row["Function"], row["Status"]) for row in csv.DictReader(file)]
    assert found == [("sleeps", "killed"), ("bare", "done")]
    (stop,) = server.rows("stop")
    assert (stop["Finished"], stop["Failed"]) == ("1", "1")


def test_interrupts_at_any_moment_leave_no_lease_behind(start_server: Callable[..., RunningServer]):
    """A signal now and then, wherever a call is at that moment: the next call gets the worker all the same.

    Python drops an exception that a signal raises inside a `__del__`; the next signal then interrupts.
    """
    server = start_server(1)
    call = compute_this(server=server.address)(operator.index)
    chance = random.Random(0)
    may_interrupt, is_over = threading.Event(), threading.Event()

    def interrupt(*_: object) -> None:
        if may_interrupt.is_set():
            raise KeyboardInterrupt

    def send_signals(target: int) -> None:
        while not is_over.wait(0.03 + chance.uniform(0, 0.004)):
            signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=send_signals, args=(threading.get_ident(),))
    sender.start()
    try:
        for _ in range(40):
            try:
                may_interrupt.set()
                while True:
                    call(1).run()
            except KeyboardInterrupt:
                may_interrupt.clear()
            assert call(2).run() == 2
    finally:
        is_over.set()
        sender.join(HANG_S)
        signal.signal(signal.SIGUSR1, before)
    server.await_busy([0])


class Evil(str):
    def __reduce__(self):
        raise RuntimeError("no")


class EvilError(Exception):
    def __str__(self):
        return Evil("hm")


@compute_this
def fails_evilly(path):
    with Path(path).open("a") as file:
        file.write("once\n")
    raise EvilError


def test_an_exception_that_resists_is_told_and_its_function_runs_once(server: RunningServer, tmp_path: Path):
    with pytest.raises(Exception, match="hm") as caught:
        fails_evilly(str(tmp_path / "runs")).run()
    assert type(caught.value).__name__ == "EvilError"
    assert (tmp_path / "runs").read_text() == "once\n"
    assert server.idle_status()["failed"] == 1


@compute_this
def forks(x):
    os.fork()
    return x


def test_a_function_that_forks_and_returns_leaves_no_process(server: RunningServer):
    import psutil

    for number in range(3):
        assert forks(number).run() == number
    workers = [psutil.Process(pid) for pid in server.worker_pids()]
    eventually(
        lambda: all(c.status() == psutil.STATUS_ZOMBIE for w in workers for c in w.children()), "children end"
    )


@pytest.mark.parametrize("greeting", [b"220 mail.example ESMTP ready\r\n", b"\0\0", b"\0\0\0\4\0"], ids=repr)
def test_what_speaks_another_protocol_is_told(greeting: bytes, monkeypatch: pytest.MonkeyPatch):
    """Also if it says too little to be wrong, and then waits."""
    monkeypatch.setattr("distribute_challenge.wire.link.ANSWER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(greeting)
                while sock.recv(1000):
                    pass

        peer = threading.Thread(target=greet)
        peer.start()
        with pytest.raises(ServerUnavailable, match=r"no server answers|is not the server of a pool"):
            compute_this(server=f"127.0.0.1:{listener.getsockname()[1]}")(helper)(1).run()
        peer.join(HANG_S)
        assert not peer.is_alive()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C works, also where the tests were started with it ignored, as `nohup` and `&` do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_hundred_threads_call_one_function_on_two_workers(server: RunningServer):
    def call(number: int) -> int:
        result: int = compute_this(helper)(number).run() if number % 10 == 0 else shared(number).run()
        return result

    shared = compute_this(helper)
    start = threading.Barrier(100)

    def call_together(number: int) -> list[int]:
        start.wait(HANG_S)
        return [call(number) for _ in range(5)]

    with ThreadPoolExecutor(100) as threads:
        results = list(threads.map(call_together, range(100)))
    assert results == [[number * 10 + 1] * 5 for number in range(100)]
    assert server.idle_status()["finished"] == 500


def test_a_free_does_not_wait_behind_another_threads_acquire(server: RunningServer):
    """Two functions end while eight more calls of this program are in line: their workers pass on at once."""
    sleep = random.Random(0).uniform
    with ThreadPoolExecutor(10) as threads:
        results = list(threads.map(lambda _: sleeps(sleep(0.05, 0.1)).run(), range(10)))
    assert len(results) == 10
    assert server.stop() == 0
    frees = [row for row in server.rows() if row["Event"] == "free"]
    assert [int(row["Waiting"]) for row in frees] == [7, 6, 5, 4, 3, 2, 1, 0, 0, 0]


def test_no_more_connections_are_kept_than_the_pool_has_workers_and_none_after_the_program(
    start_server: Callable[..., RunningServer],
):
    import psutil

    server = start_server(12)
    shared = compute_this(server=server.address)(sleeps.__wrapped__)
    with ThreadPoolExecutor(30) as threads:
        list(threads.map(lambda _: shared(0.05).run(), range(60)))
    mine = [c for c in psutil.Process().net_connections("tcp") if c.status == "ESTABLISHED" and c.raddr]
    assert 1 <= sum(c.raddr.port == server.port for c in mine) <= 12
    assert 1 <= sum(c.raddr.port in server.ports for c in mine) <= 12


def test_a_program_that_finds_the_package_by_a_roundabout_way_sends_nothing_of_it(
    used_server: RunningServer, tmp_path: Path
):
    """A nested call needs the package on the worker: the worker has its own."""
    (tmp_path / "link").symlink_to(ROOT)
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
sys.path.insert(0, {str(tmp_path / "link")!r})
from distribute_challenge import compute_this

@compute_this
def inner(x):
    return x + 1

@compute_this
def outer(x):
    return inner(x).run()

print(outer(1).run())
"""
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, str(program)],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            env={**os.environ, "COMPUTE_SERVER": used_server.address},
        )
        assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
    assert compute_this(helper)(1).run() == helper(1)


@pytest.mark.parametrize("how", [{}, {"chunksize": 7}, {"buffersize": 5}, {"ordered": False}])
@pytest.mark.parametrize("count", [0, 1, 50, 3000])
def test_what_came_before_an_iterable_raised_has_results(
    used_server: RunningServer, count: int, how: dict[str, Any]
):
    def items() -> Iterator[int]:
        yield from range(count)
        raise KeyError("the end")

    got: list[int] = []
    with pytest.raises(KeyError, match="the end"):
        got.extend(compute_this(abs).map(items(), **how))
    assert len(got) == count


def test_whoever_wraps_a_decorated_function_is_a_function_of_its_own(server: RunningServer):
    """`functools.wraps` copies all attributes of it: how it travels, its time limit, its name."""

    @compute_this
    def f(x: int) -> int:
        return x + 1

    @compute_this(timeout=0.3)
    def quick(x: int) -> int:
        return x

    assert f(1).run() == 2

    @compute_this
    @functools.wraps(f)
    def g(x: int) -> int:
        return f.local(x) * 100

    class Scaled:
        def __init__(self) -> None:
            functools.update_wrapper(self, f)

        def __call__(self, x: int) -> int:
            return f.local(x) * 100

    @functools.wraps(quick)
    def thorough(x: int) -> int:
        time.sleep(0.6)
        return quick.local(x) * 200

    with PoolExecutor() as pool:
        assert g(1).run() == pool.submit(Scaled(), 1).result() == pool.submit(thorough, 1).result() == 200
        assert list(pool.map(Scaled(), [1])) == [200]


def test_a_function_that_is_put_in_place_of_the_decorated_one_is_run(server: RunningServer):
    f = compute_this(lambda: "old")
    assert f().run() == "old"
    f.__wrapped__ = lambda: "new"
    assert f().run() == f.local() == "new"


def test_a_constant_without_a_decimal_text_travels(server: RunningServer, tmp_path: Path):
    number = "0x" + "f" * 4000
    path = tmp_path / "large.py"
    path.write_text(f"def f(x):\n    return {number} + x, (1, {number}), x in {{1, {number}}}\n")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    large = int(number, 16)
    f = compute_this(names["f"])
    assert f(1).run() == (large + 1, (1, large), True)
    assert number in f.source
