"""The pool beside a Dask worker, without Dask."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge.client.dask.freight import ERROR, OUTCOME, Forwarded, Freight, pack
from distribute_challenge.client.dask.outpost import Outpost
from distribute_challenge.client.parcels.parcel import ANYWHERE
from distribute_challenge.client.parcels.shipping import Shipment
from tests.running import HANG_S, eventually


@pytest.fixture
def outpost() -> Iterator[Outpost]:
    """One of two threads."""
    made = Outpost(2, None, "tcp://127.0.0.1:1")
    yield made
    made.close()


def marks(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("begun\n")
    while not Path(f"{path}.ends").exists():
        time.sleep(0.001)


def freight_of(function: Callable[..., Any], *args: Any) -> Freight:
    return Freight(pack(function.__name__, Shipment(function).parcel(args, {})), None, None, "", ())


def run(
    outpost: Outpost,
    key: str,
    freight: Freight,
    *,
    is_wanted: bool = True,
    say: Callable[[dict[str, Any]], Any] = lambda _: None,
) -> str:
    kind, content, _ = outpost.run(key, freight, (), lambda *_: None, say, is_wanted=lambda: is_wanted)
    if kind == ERROR:
        assert isinstance(pickle.loads(content), CancelledError)
    return kind


def test_two_attempts_of_one_call_are_told_apart(outpost: Outpost, tmp_path: Path):
    """One may still run when its client, which has lost its connection, sends the other."""
    path = tmp_path / "marks"
    freight = freight_of(marks, str(path))
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(run, outpost, key, freight) for key in ("first", "second")]
        eventually(lambda: path.exists() and path.read_text() == "begun\n" * 2, "both run")
        (tmp_path / "marks.ends").touch()
        assert [future.result(HANG_S) for future in both] == [OUTCOME, OUTCOME]


def test_what_dask_has_dropped_does_not_run_on(outpost: Outpost, tmp_path: Path):
    path = tmp_path / "marks"
    freight = freight_of(marks, str(path))
    assert run(outpost, "early", freight, is_wanted=False) == ERROR
    assert not path.exists()
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(run, outpost, "late", freight)
        eventually(path.exists, "it runs")
        outpost.drop("late")
        assert future.result(HANG_S) == ERROR
    assert run(outpost, "next", freight_of(os.getpid)) == OUTCOME


def test_a_call_that_is_killed_before_it_comes_never_runs_and_is_recorded(outpost: Outpost, tmp_path: Path):
    """Both are under way at once, and the word to kill it may be quicker."""
    path = tmp_path / "marks"
    freight = freight_of(marks, str(path))
    assert outpost.kill([Forwarded(freight.packed, ()).id]) == []
    told: list[dict[str, Any]] = []
    assert run(outpost, "it", freight, say=told.append) == ERROR
    assert not path.exists()
    killed = ("marks", "killed", "CancelledError: marks was killed, as its caller wished")
    assert [(said["function"], said["status"], said["error"]) for said in told] == [killed]


def test_nobody_waits_for_a_pool_that_starts_to_have_a_call_dropped(
    outpost: Outpost, monkeypatch: pytest.MonkeyPatch
):
    """It is in Dask's event loop that calls are dropped."""
    starts, may_start = threading.Event(), threading.Event()
    address = outpost._server.address

    def slow() -> Any:
        starts.set()
        assert may_start.wait(HANG_S)
        return address()

    monkeypatch.setattr(outpost._server, "address", slow)
    with ThreadPoolExecutor(2) as threads:
        future = threads.submit(run, outpost, "it", freight_of(os.getpid))
        assert starts.wait(HANG_S)
        try:
            threads.submit(outpost.drop, "it").result(HANG_S)
            assert not future.done()
        finally:
            may_start.set()
        assert future.result(HANG_S) == ERROR


def test_a_program_that_has_gone_is_forgotten_by_the_workers_too(
    outpost: Outpost, monkeypatch: pytest.MonkeyPatch
):
    """Their processes forget it once its last connection has ended."""
    monkeypatch.setattr("distribute_challenge.client.dask.outpost.MAX_PROGRAMS", 2)
    shipment = Shipment(abs)
    programs = [bytes([number]) * 16 for number in range(4)]
    for program in programs:
        parcel = shipment.parcel((-1,), {}, ANYWHERE._replace(program=program))
        freight = Freight(pack("abs", parcel), None, None, "", ())
        assert run(outpost, f"key-{program!r}", freight) == OUTCOME
    known = dict(outpost._programs)
    assert list(known) == programs[2:]
    outpost.forget(programs[3])
    assert list(outpost._programs) == [programs[2]]
    _, connections = known[programs[3]]
    assert connections._is_closed
    assert not connections._workers
