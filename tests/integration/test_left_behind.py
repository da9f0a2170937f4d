"""What a function leaves in its worker: what is put back, what is its program's, what costs the worker."""

from __future__ import annotations

import builtins
import contextvars
import decimal
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, WorkerLost
from tests.running import HANG_S, RunningServer, connect


@pytest.fixture
def server(use_server: Callable[[int], RunningServer]) -> RunningServer:
    return use_server(1)


@pytest.fixture
def new_server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(1)


@pytest.fixture
def pool(server: RunningServer) -> Iterator[PoolExecutor]:
    with PoolExecutor(server.address) as pool:
        yield pool


def does_nothing(*_: Any) -> None:
    pass


def draws() -> None:
    import matplotlib.pyplot as plt

    plt.plot([1, 2])


def lines_drawn() -> int:
    import matplotlib.pyplot as plt

    return len(plt.gca().lines)


def masked() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def umask() -> int:
    os.umask(found := os.umask(0))
    return found


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=1)

LEFT_BY_FUNCTIONS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "umask": (lambda: os.umask(0o177), umask),
    "signal handler": (
        lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGUSR1),
    ),
    "signal handler, by keyword": (
        lambda: signal.signal(signalnum=signal.SIGTERM, handler=does_nothing),
        lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    ),
    "signal mask": (lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}), masked),
    "signal mask, by keyword": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, mask={signal.SIGUSR2}),
        masked,
    ),
    "decimal context": (
        lambda: setattr(decimal.getcontext(), "prec", 5),
        lambda: decimal.getcontext().prec,
    ),
    "time zone": (lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()), lambda: time.tzname),
    "garbage collector": (gc.disable, gc.isenabled),
    "trace function": (lambda: sys.settrace(does_nothing), sys.gettrace),
    "profile function": (lambda: sys.setprofile(does_nothing), sys.getprofile),
    "time limit of sockets": (lambda: socket.setdefaulttimeout(1), socket.getdefaulttimeout),
    "arguments": (lambda: sys.argv.append("-v"), lambda: sys.argv),
    "other arguments": (lambda: setattr(sys, "argv", []), lambda: sys.argv),
    "exception hook": (
        lambda: setattr(sys, "excepthook", does_nothing),
        lambda: sys.excepthook is sys.__excepthook__,
    ),
    "switch interval": (lambda: sys.setswitchinterval(0.5), sys.getswitchinterval),
    "how text is written": (
        lambda: sys.stdout.reconfigure(encoding="ascii", errors="strict"),  # type: ignore[union-attr]
        lambda: (sys.stdout.encoding, sys.stdout.errors),
    ),
    "how lines are written": (
        lambda: sys.stderr.reconfigure(line_buffering=False, write_through=True),  # type: ignore[union-attr]
        lambda: (sys.stderr.line_buffering, sys.stderr.write_through),  # type: ignore[attr-defined]
    ),
    "alarm": (lambda: signal.alarm(600), lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0),
    "timer": (
        lambda: signal.setitimer(signal.ITIMER_PROF, 600),
        lambda: signal.getitimer(signal.ITIMER_PROF)[0] > 0,
    ),
    "no standard output": (lambda: delattr(sys, "stdout"), lambda: sys.stdout.write("seen")),
    "no path": (lambda: delattr(sys, "path"), lambda: sys.path),
    "no finders": (lambda: delattr(sys, "meta_path"), lambda: len(sys.meta_path)),
    "matplotlib's figures": (draws, lines_drawn),
}


@pytest.mark.parametrize("what", LEFT_BY_FUNCTIONS)
def test_the_next_function_finds_what_the_first_one_found(pool: PoolExecutor, what: str):
    leave, look = LEFT_BY_FUNCTIONS[what]
    # The first to be run imports this module, and pytest: on Python 3.10, that sets a hook while it runs.
    pool.submit(look).result(HANG_S)
    before = pool.submit(look).result(HANG_S)
    pool.submit(leave).result(HANG_S)
    assert pool.submit(look).result(HANG_S) == before


def puts(name: str) -> None:
    os.environ[name] = "x"


def puts_in(name: str, value: str) -> None:
    os.environ[name] = value


@pytest.mark.parametrize(
    "tries",
    [
        lambda: signal.signal(signal.SIGKILL, does_nothing),
        lambda: puts("A=B"),
        lambda: puts(""),
        lambda: puts("A\0B"),
        lambda: os.putenv(5, "x"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_set_costs_no_worker(pool: PoolExecutor, tries: Callable[[], object]):
    before = pool.submit(os.getpid).result(HANG_S)
    with pytest.raises((OSError, ValueError, TypeError)):
        pool.submit(tries).result(HANG_S)
    assert pool.submit(os.getpid).result(HANG_S) == before


@pytest.mark.parametrize("what", ["decimal context", "context variable"])
def test_the_next_function_finds_what_the_initializer_has_set_up(server: RunningServer, what: str):
    def set_up() -> None:
        decimal.getcontext().prec = 7
        variable.set(7)

    def change_and_tell() -> int:
        if what == "decimal context":
            before, decimal.getcontext().prec = decimal.getcontext().prec, 5
            return before
        told = variable.get()
        variable.set(5)
        return told

    with PoolExecutor(server.address, initializer=set_up, max_workers=1) as pool:
        assert [pool.submit(change_and_tell).result(HANG_S) for _ in range(3)] == [7, 7, 7]


def removes(name: str) -> None:
    del os.environ[name]


LEFT_BY_PROGRAMS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "variable": (lambda: puts("MINE"), lambda: os.environ.get("MINE")),
    "variable less": (lambda: removes("PATH"), lambda: os.environ.get("PATH")),
    "folder": (lambda: os.chdir("/usr"), os.getcwd),
    "path": (lambda: sys.path.insert(0, "/opt/mine"), lambda: sys.path[0] == "/opt/mine"),
    "path in another order": (lambda: sys.path.insert(0, sys.path.pop()), lambda: sys.path[:2]),
    "time zone": (lambda: (puts_in("TZ", "Asia/Tokyo"), time.tzset()), lambda: time.tzname),
    "recursion limit": (lambda: sys.setrecursionlimit(5000), sys.getrecursionlimit),
    "log level": (lambda: logging.basicConfig(level=logging.DEBUG), lambda: logging.getLogger().level),
    "log handlers": (logging.basicConfig, lambda: len(logging.getLogger().handlers)),
    "no log": (lambda: logging.disable(logging.CRITICAL), lambda: logging.getLogger().isEnabledFor(50)),
    "warnings": (lambda: warnings.simplefilter("error"), lambda: warnings.filters[0][0]),
    "locale": (
        lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
        lambda: locale.setlocale(locale.LC_NUMERIC),
    ),
    "a built-in name": (lambda: setattr(builtins, "_", str), lambda: hasattr(builtins, "_")),
    "another built-in function": (lambda: setattr(builtins, "ascii", repr), lambda: ascii is repr),
    "precision of decimal": (
        lambda: setattr(decimal.getcontext(), "prec", 5),
        lambda: decimal.getcontext().prec,
    ),
}


@pytest.mark.parametrize("what", LEFT_BY_PROGRAMS)
def test_what_an_initializer_sets_up_is_there_for_its_executor_and_for_no_other(
    server: RunningServer, pool: PoolExecutor, what: str
):
    set_up, look = LEFT_BY_PROGRAMS[what]
    before = pool.submit(look).result(HANG_S)
    with PoolExecutor(server.address, initializer=set_up) as other:
        for _ in range(2):
            assert other.submit(look).result(HANG_S) != before
            assert pool.submit(look).result(HANG_S) == before


def draw() -> float:
    return random.random()


def test_a_seed_is_of_its_program(server: RunningServer, pool: PoolExecutor):
    sequence = random.Random(7)
    expected = [sequence.random() for _ in range(3)]
    with PoolExecutor(server.address, initializer=lambda: random.seed(7)) as other:
        drawn = []
        for _ in range(3):
            drawn.append(other.submit(draw).result(HANG_S))
            assert pool.submit(draw).result(HANG_S) not in expected
    assert drawn == expected


def test_a_seed_that_another_program_has_set_is_not_gone_on_with(server: RunningServer, pool: PoolExecutor):
    pool.submit(random.seed, 7).result(HANG_S)
    with PoolExecutor(server.address, initializer=does_nothing) as other:
        assert other.submit(draw).result(HANG_S) != random.Random(7).random()


def forgets_all_modules() -> None:
    sys.modules.clear()


def forgets_its_own_package() -> None:
    for name in list(sys.modules):
        if name.startswith("distribute_challenge"):
            del sys.modules[name]


def forgets_all_built_in_names() -> None:
    vars(builtins).clear()


def forgets_one_built_in_name() -> None:
    del builtins.print


def closes_all_descriptors() -> None:
    os.closerange(0, 1000)


RUINS = [
    forgets_all_modules,
    forgets_its_own_package,
    forgets_all_built_in_names,
    forgets_one_built_in_name,
    closes_all_descriptors,
]


@pytest.mark.parametrize("ruin", RUINS)
def test_a_function_that_ruins_its_interpreter_costs_its_worker_and_not_the_next_caller(
    new_server: RunningServer, ruin: Callable[[], None]
):
    (pid,) = new_server.worker_pids()
    with PoolExecutor(new_server.address) as pool, PoolExecutor(new_server.address) as other:
        with pytest.raises(WorkerLost):
            pool.submit(ruin).result(HANG_S)
        assert other.submit(pow, 2, 10).result(HANG_S) == 1024
    assert new_server.worker_pids() != [pid]
    status = new_server.idle_status()
    assert (status["finished"], status["failed"]) == (1, 1)


def test_a_plain_client_that_ruins_the_interpreter_costs_its_worker(server: RunningServer):
    (pid,) = server.worker_pids()
    (port,) = server.ports
    with server.connect() as scheduler:
        scheduler.root.acquire_worker()
        worker = connect(port)
        with pytest.raises(EOFError):
            worker.root.run_code("import sys; sys.modules.clear(); result = 1")
        scheduler.root.free_worker(port, 0, 1)
    with PoolExecutor(server.address) as pool:
        assert pool.submit(pow, 2, 10).result(HANG_S) == 1024
    assert server.worker_pids() != [pid]


def sets_up_in_place() -> tuple[int, str]:
    """Its calls run here, where nothing is put back in between."""
    before = len(sys.path)
    with PoolExecutor(initializer=lambda: (sys.path.append("/opt/mine"), os.chdir("/usr"))) as pool:
        pool.submit(does_nothing).result()
        os.chdir("/")
        for _ in range(3):
            pool.submit(does_nothing).result()
    return len(sys.path) - before, str(Path.cwd())


def test_an_initializer_of_calls_in_place_sets_its_process_up_once(
    start_server: Callable[..., RunningServer],
):
    server = start_server(1)
    with PoolExecutor(server.address) as pool:
        assert pool.submit(sets_up_in_place).result(HANG_S) == (1, "/")
