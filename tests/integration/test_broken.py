"""What breaks an executor or costs a worker, beside `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from pickle import PicklingError
from typing import Any

import pytest

from distribute_challenge import PoolExecutor
from tests.running import HANG_S, RunningServer

MakeExecutor = Callable[..., Executor]


@pytest.fixture(params=["ours", "processes"])
def make(request: pytest.FixtureRequest, server: RunningServer) -> MakeExecutor:
    """Makes executors of two workers."""
    if request.param == "ours":
        return lambda **options: PoolExecutor(**{"max_workers": 2, **options})
    context = multiprocessing.get_context("spawn")
    return lambda **options: concurrent.futures.ProcessPoolExecutor(
        **{"max_workers": 2, "mp_context": context, **options}
    )


class Raises:
    """Raises an exception of some kind when it is pickled."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        raise self.kind("not me")


class Odd(BaseException):
    """No Exception."""


def name_of(thing):
    return type(thing).__name__


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, Odd])
def test_an_argument_that_refuses_to_be_pickled_costs_no_other_task(
    used_server: RunningServer, kind: type[BaseException]
):
    items = [*range(40), Raises(kind), *range(40)]
    with PoolExecutor() as pool:
        assert isinstance(pool.submit(name_of, Raises(kind)).exception(HANG_S), PicklingError)
        results: list[Any] = list(pool.map(name_of, items, chunksize=3, return_exceptions=True))
    assert isinstance(results.pop(40), PicklingError)
    assert results == ["int"] * 80


def makes(kind, *arguments):
    return kind(*arguments)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ((Raises, PicklingError), PicklingError),
        ((threading.Lock,), TypeError),
        ((Raises, SystemExit), SystemExit),
    ],
)
def test_a_result_that_cannot_be_pickled_is_the_error_that_pickle_makes_of_it(
    make: MakeExecutor, what: tuple[Any, ...], error: type[BaseException]
):
    with make() as executor, pytest.raises(error):
        executor.submit(makes, *what).result(HANG_S)


def test_a_lost_worker_is_what_users_of_process_pools_catch(make: MakeExecutor):
    with make() as executor, pytest.raises(BrokenProcessPool):
        executor.submit(os._exit, 3).result(HANG_S)


ENDS_BEFORE_ITS_TASK = """
import os, sys, threading, time
from distribute_challenge import PoolExecutor

def dies_when_told(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    os._exit(3)

def tells():
    threading.main_thread().join()
    open(sys.argv[1], "w").close()

future = PoolExecutor().submit(dies_when_told, sys.argv[1])
future.add_done_callback(lambda future: print(type(future.exception()).__name__))
threading.Thread(target=tells).start()
"""


def test_a_worker_lost_while_the_program_ends_is_told_to_callbacks(
    used_server: RunningServer, tmp_path: Path
):
    command = [sys.executable, "-c", ENDS_BEFORE_ITS_TASK, str(tmp_path / "end")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert (ended.stdout, ended.stderr) == ("WorkerLost\n", "")
