"""The pool as a backend of joblib, and so of scikit-learn."""

from __future__ import annotations

import csv
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distribute_challenge import register_joblib
from distribute_challenge.client.parcels.shipping import Shipment
from tests.running import HANG_S, ROOT, RunningServer

joblib = pytest.importorskip("joblib")
Parallel, delayed = joblib.Parallel, joblib.delayed


@pytest.fixture
def pool(server: RunningServer) -> Iterator[RunningServer]:
    """A server, which joblib's calls in a test go to."""
    register_joblib()
    with joblib.parallel_config(backend="compute", server=server.address):
        yield server


def square(x: int) -> int:
    return x * x


def note_number(folder: Path, number: int) -> None:
    if number == 0:
        raise KeyError(number)
    (folder / str(number)).touch()
    time.sleep(0.02)


def fail_at_three(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


def after(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def sum_of_squares(count: int) -> int:
    return int(sum(Parallel(n_jobs=2)(delayed(square)(number) for number in range(count))))


def sum_one_by_one(count: int) -> int:
    return int(sum(Parallel(n_jobs=2, batch_size=1)(delayed(square)(1) for _ in range(count))))


def running_beside(folder: Path, number: int) -> int:
    """How many of these run at once, this one among them."""
    mine = folder / str(number)
    mine.touch()
    time.sleep(0.05)
    running = len(list(folder.iterdir()))
    mine.unlink()
    return running


def depth(level: int) -> int:
    """How many calls of joblib within each other there are, below this one."""
    return 1 + max(Parallel(n_jobs=2)(delayed(depth)(level - 1) for _ in range(2))) if level else 0


def test_results_come_in_order_from_the_workers(pool: RunningServer):
    assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(200)) == [x * x for x in range(200)]
    pids = Parallel(n_jobs=-1)(delayed(os.getpid)() for _ in range(20))
    assert set(pids) <= set(pool.worker_pids())


def test_the_record_names_the_functions_that_joblib_runs(pool: RunningServer):
    assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(50)) == [x * x for x in range(50)]
    with pytest.raises(KeyError):
        Parallel(n_jobs=2)(delayed(fail_at_three)(x) for x in range(5))
    pool.stop()
    with (pool.folder / "profiling" / "tasks_2.csv").open(newline="") as file:
        assert {row["Function"] for row in csv.DictReader(file)} == {"square", "fail_at_three"}


def test_an_option_that_nobody_knows_is_refused():
    register_joblib()
    with pytest.raises(TypeError, match=r"has no option 'sever': it takes server, tls"):
        joblib.parallel_config(backend="compute", sever="localhost:1")
    with pytest.raises(TypeError, match="has no option 'sever'"):
        Parallel(2, backend="compute", sever="localhost:1")([])


def test_options_of_one_call_go_first(server: RunningServer):
    register_joblib()
    call = Parallel(n_jobs=2, backend="compute", server=server.address)
    assert set(call(delayed(os.getpid)() for _ in range(20))) <= set(server.worker_pids())


def test_options_of_one_call_are_not_those_of_the_next(pool: RunningServer):
    with joblib.parallel_config(backend="compute", server=pool.address):
        for server, workers in ((None, 2), ("local://3", 3), (None, 2)):
            call = Parallel(n_jobs=-1, **({} if server is None else {"server": server}))
            with call:
                assert call.n_jobs == -1
                assert call._effective_n_jobs() == workers


def prepare(word: str) -> None:
    global prepared
    prepared = word


def what_is_prepared() -> str:
    return prepared


def note(path: Path) -> None:
    with path.open("a") as file:
        file.write("prepared\n")


def test_the_end_of_a_call_ends_no_initializer_of_another(start_server: Any, tmp_path: Path):
    """Also while the other one has nothing under way, since nobody has asked it for its next result."""
    register_joblib()
    noted = tmp_path / "noted"
    server = start_server(1)
    with (
        joblib.parallel_config(backend="compute", server=server.address),
        Parallel(n_jobs=2, initializer=note, initargs=(noted,)) as call,
    ):
        for _ in range(3):
            call(delayed(square)(2) for _ in range(2))
            assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(2)) == [0, 1]
    assert noted.read_text() == "prepared\n"


@pytest.mark.parametrize("where", ["call", "configuration"])
def test_an_initializer_runs_first_on_each_worker(pool: RunningServer, where: str):
    for word in ("once", "again"):
        how: Any = {"initializer": prepare, "initargs": (word,)}
        outer = how if where == "configuration" else {}
        with joblib.parallel_config(backend="compute", server=pool.address, **outer):
            call = Parallel(n_jobs=2, **({} if outer else how))
            assert set(call(delayed(what_is_prepared)() for _ in range(20))) == {word}
    assert pool.idle_status()["waiting"] == 0


def test_each_call_finds_its_batches_anew(pool: RunningServer):
    """Those of short functions are large, and must not be made of long ones."""
    call = Parallel(n_jobs=2)
    with call:
        call(delayed(square)(x) for x in range(5000))
        assert call._backend.compute_batch_size() > 1
    assert call._backend.compute_batch_size() == 1


def test_an_exception_ends_the_call_and_the_pool_works_on(pool: RunningServer):
    with pytest.raises(KeyError, match="3") as caught:
        Parallel(n_jobs=2)(delayed(fail_at_three)(x) for x in range(100))
    assert "fail_at_three" in str(caught.value.__cause__)
    assert Parallel(n_jobs=2)(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_what_waits_is_not_sent_after_an_exception(pool: RunningServer, tmp_path: Path):
    calls = (delayed(note_number)(tmp_path, number) for number in range(100))
    with Parallel(n_jobs=2, batch_size=1, pre_dispatch="all") as parallel:
        with pytest.raises(KeyError):
            parallel(calls)
        pool.idle_status()
        assert len(list(tmp_path.iterdir())) < 50
        assert parallel(delayed(square)(x) for x in range(10)) == [x * x for x in range(10)]


@pytest.mark.parametrize("how", ["generator", "generator_unordered"])
def test_results_can_be_taken_as_they_come(pool: RunningServer, how: str):
    results = Parallel(n_jobs=2, return_as=how)(delayed(square)(x) for x in range(20))
    assert sorted(results) == [x * x for x in range(20)]


def test_a_time_limit_stops_what_runs(pool: RunningServer):
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(n_jobs=2, timeout=0.5)(delayed(time.sleep)(seconds) for seconds in (600, 600, 600))
    pool.idle_status()  # Else this would take ten minutes.


def test_calls_within_calls_do_not_wait_for_each_other(pool: RunningServer):
    assert Parallel(n_jobs=2)(delayed(sum_of_squares)(x) for x in range(6)) == [0, 0, 1, 5, 14, 30]
    assert Parallel(n_jobs=2)(delayed(depth)(3) for _ in range(4)) == [3, 3, 3, 3]


def test_many_calls_within_a_call_are_not_each_within_the_one_before(pool: RunningServer):
    """Where no worker is free, each has ended as soon as it is begun, and has the next one sent."""
    assert Parallel(n_jobs=2)(delayed(sum_one_by_one)(1000) for _ in range(3)) == [1000] * 3


def test_no_more_run_at_once_than_were_asked_for(start_server: Any, tmp_path: Path):
    register_joblib()
    address = start_server(4).address
    for n_jobs, most in ((2, 2), (-2, 3), (-1, 4)):
        folder = tmp_path / str(most)
        folder.mkdir()
        call = Parallel(n_jobs=n_jobs, batch_size=1, backend="compute", server=address)
        assert 2 <= max(call(delayed(running_beside)(folder, number) for number in range(16))) <= most


def test_all_workers_are_as_many_as_the_pool_has(pool: RunningServer):
    backend, _ = joblib.parallel.get_active_backend()
    assert [backend.effective_n_jobs(jobs) for jobs in (-1, -2, None, 7)] == [2, 1, 2, 7]
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(square)(x) for x in range(3))


def test_two_programs_share_one_server(pool: RunningServer, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "import joblib, operator, sys\n"
        "from distribute_challenge import register_joblib\n"
        "register_joblib()\n"
        "with joblib.parallel_config(backend='compute', server=sys.argv[1]):\n"
        "    print(sum(joblib.Parallel(n_jobs=2)(joblib.delayed(operator.neg)(x) for x in range(1000))))\n"
    )
    command = [sys.executable, str(program), pool.address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        mine = sum(Parallel(n_jobs=2)(delayed(square)(x) for x in range(1000)))
        assert other.communicate(timeout=HANG_S)[0].split() == [str(-sum(range(1000)))]
    assert mine == sum(x * x for x in range(1000))


def test_scikit_learn_runs_on_it(pool: RunningServer):
    pytest.importorskip("sklearn")
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate

    class NeverFits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            raise ValueError("it never does")

    X, y = make_classification(n_samples=100, random_state=0)
    forest = RandomForestClassifier(n_estimators=4, random_state=0)
    here = cross_val_score(forest, X, y, cv=3)
    assert list(cross_val_score(forest, X, y, cv=3, n_jobs=-1)) == list(here)
    search = GridSearchCV(forest, {"max_depth": [1, 5]}, cv=2, n_jobs=4).fit(X, y)
    assert search.best_params_["max_depth"] in (1, 5)
    assert RandomForestClassifier(n_estimators=8, n_jobs=2, random_state=0).fit(X, y).score(X, y) > 0.9
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        cross_validate(NeverFits(), X, y, cv=3, n_jobs=2)


def test_one_that_fails_ends_no_other(pool: RunningServer):
    """All that are made within one `parallel_config` have one backend."""
    several = Parallel(n_jobs=2, return_as="generator")(delayed(after)(0.1, 7) for _ in range(6))
    with pytest.raises(ValueError, match="invalid literal"):
        Parallel(n_jobs=2)(delayed(int)("x") for _ in range(2))
    dropped = Parallel(n_jobs=2, return_as="generator")(delayed(after)(0.1, 7) for _ in range(6))
    next(dropped)
    del dropped
    assert list(several) == [7] * 6


def fill(out: Any, number: int) -> None:
    out[number] = number + 1


def describe(array: Any) -> Any:
    return array.filename, array.mode, array.offset, array.flags.aligned


def test_what_functions_write_into_a_mapped_file_is_there(pool: RunningServer, tmp_path: Path):
    """As joblib's users give their workers a place for results."""
    out = np.memmap(tmp_path / "out", float, "w+", shape=(3, 8), offset=24)
    (mapped,) = Parallel(n_jobs=2)([delayed(describe)(out[1:])])
    assert mapped == (str(tmp_path / "out"), "r+", 24, True)
    for part in (out[0], out[1, ::-1], np.asarray(out[2, ::2])):
        Parallel(n_jobs=2)(delayed(fill)(part, number) for number in range(4))
    assert out.tolist() == [[1, 2, 3, 4, 0, 0, 0, 0], [0, 0, 0, 0, 4, 3, 2, 1], [1, 0, 2, 0, 3, 0, 4, 0]]
    read = np.memmap(tmp_path / "out", float, "r", shape=(3, 8), offset=24)
    assert Parallel(n_jobs=2)(delayed(np.sum)(read[row]) for row in range(3)) == [10, 10, 10]
    with pytest.raises(ValueError, match="read-only"):
        Parallel(n_jobs=2)([delayed(fill)(read[0], 0)])


def test_what_is_in_no_file_any_more_is_copied(pool: RunningServer, tmp_path: Path):
    changed = np.memmap(tmp_path / "file", float, "w+", shape=8)
    changed.flush()
    private = np.memmap(tmp_path / "file", float, "c", shape=8)
    private[:] = 2
    (tmp_path / "file").unlink()
    changed[:] = 1
    assert Parallel(n_jobs=2)(delayed(np.sum)(array) for array in (changed, private)) == [8, 16]
    other = np.memmap(tmp_path / "file", float, "w+", shape=8)
    written = Shipment(np.sum).called("sum", by_file=True).parcel((other,), {}).call().arguments
    pickle.loads(written)[0][0][0] = 5
    assert other[0] == 5
    (tmp_path / "file").rename(tmp_path / "moved")
    np.zeros(8).tofile(tmp_path / "file")
    assert Parallel(n_jobs=2)([delayed(np.sum)(other)]) == [5]
    for unlike in (lambda: None, lambda: os.truncate(tmp_path / "file", 8), (tmp_path / "file").unlink):
        unlike()
        with pytest.raises(ValueError, match=r"cannot be mapped here .*give the function its content"):
            pickle.loads(written)


def which_pool(_: int) -> Any:
    return os.environ["COMPUTE_SERVER"], what_is_prepared()


def test_each_parallel_has_its_own_options(pool: RunningServer, start_server: Any):
    """Two that take turns: results are taken from one while the other one is begun."""
    other = start_server(1)
    calls = [delayed(which_pool)(number) for number in range(40)]
    how: Any = {"n_jobs": 2, "pre_dispatch": 2, "batch_size": 1, "return_as": "generator"}
    first = Parallel(server=other.address, initializer=prepare, initargs=("a",), **how)(calls)
    found = [next(first)]
    second = Parallel(initializer=prepare, initargs=("b",), **how)(calls)
    for _ in range(39):
        assert next(second) == (pool.address, "b")
        found.append(next(first))
    assert found == [(other.address, "a")] * 40
