"""Dask takes an executor as its `scheduler=`: of a pool, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distribute_challenge import PoolExecutor
from tests.running import HANG_S

dask = pytest.importorskip("dask", reason="no Dask here: pip install dask")
WORKERS = 4


@pytest.fixture(scope="module")
def pool() -> Iterator[PoolExecutor]:
    with PoolExecutor(f"local://{WORKERS}") as pool:
        yield pool


def meet(folder: Path, number: int) -> int:
    """Return once all the others have come."""
    (folder / str(number)).touch()
    deadline = time.monotonic() + HANG_S
    while len(list(folder.iterdir())) < WORKERS:
        assert time.monotonic() < deadline, "the others do not run at the same time"
        time.sleep(0.01)
    return number


def test_as_many_tasks_run_at_once_as_there_are_workers(pool: PoolExecutor, tmp_path: Path):
    tasks = [dask.delayed(meet)(tmp_path, number) for number in range(WORKERS)]
    assert dask.compute(*tasks, scheduler=pool) == (0, 1, 2, 3)


def test_results_go_from_task_to_task(pool: PoolExecutor):
    squares = [dask.delayed(pow)(number, 2) for number in range(20)]
    assert dask.delayed(sum)(squares).compute(scheduler=pool) == sum(number**2 for number in range(20))


def test_an_exception_of_a_task_is_raised(pool: PoolExecutor):
    with pytest.raises(ZeroDivisionError):
        dask.delayed(divmod)(1, 0).compute(scheduler=pool)


def test_its_own_scheduler_of_processes_takes_it_as_its_pool(pool: PoolExecutor):
    from dask.multiprocessing import get

    assert get({"x": (abs, -3)}, "x", pool=pool) == 3
