"""The threads of a cluster's workers: which task is on which, as the observer's notes tell it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from distribute_challenge.cluster.slots import Done, Slots, Step

A, B = "tcp://10.0.0.5:4000", "tcp://10.0.0.6:4000"


def take(slots: Slots, *notes: tuple[Any, ...]) -> list[Step | Done]:
    return [it for note in notes for it in slots.take(note)]


def events(found: list[Step | Done]) -> list[tuple[str, int]]:
    return [(it.event, it.slot) for it in found if isinstance(it, Step)]


def done(found: list[Step | Done]) -> list[Done]:
    return [it for it in found if isinstance(it, Done)]


@pytest.fixture
def slots() -> Slots:
    """Two Dask workers: one of two threads, one of one."""
    slots = Slots()
    take(slots, ("joined", 1.0, A, "a", 2), ("joined", 1.0, B, "b", 1))
    return slots


def begun(task: str, address: str, time: float = 2.0) -> tuple[Any, ...]:
    return ("begun", time, task, "Client-x", "func", address)


def ended(task: str, how: str = "memory", time: float = 5.0, **rest: Any) -> tuple[Any, ...]:
    ran = rest.get("ran", (3.0, 4.0))
    return ("ended", time, task, how, ran, 28, rest.get("told"), rest.get("error", ""))


def test_each_thread_is_a_worker_of_the_record(slots: Slots):
    assert slots.count == 3
    found = take(slots, begun("t1", B), begun("t2", A), begun("t3", A))
    assert events(found) == [("acquire", 2), ("acquire", 0), ("acquire", 1)]
    assert sorted(slot for slot, _ in slots.running()) == [0, 1, 2]


def test_what_finds_no_free_thread_waits_for_the_next_one(slots: Slots):
    found = take(slots, ("known", 1.5, "t2", "Client-x", "func"), begun("t1", B), begun("t2", B))
    assert events(found) == [("acquire", 2)]
    assert (slots.tasks, slots.waiting) == (1, 1)
    found = take(slots, ended("t1", time=5.0, ran=(2.1, 4.9)))
    assert events(found) == [("free", 2), ("acquire", 2)]
    assert (slots.tasks, slots.waiting) == (0, 0)
    (second,) = done(take(slots, ended("t2", ran=(5.0, 6.0), time=6.1)))
    assert (second.queued, second.started, second.ended) == (1.5, 5.0, 6.0)


def test_one_that_ends_before_it_was_thought_to_begin_has_a_place(slots: Slots):
    take(slots, begun("t1", B), begun("t2", B))
    found = take(slots, ended("t2"))
    assert [it.slot for it in done(found)] == [2]
    assert events(found) == []  # The other one is still there.
    assert events(take(slots, ended("t1"))) == [("free", 2)]


def test_several_that_end_before_they_were_thought_to_begin_have_places_of_their_own(slots: Slots):
    take(slots, *(begun(task, A) for task in ("t1", "t2", "t3", "t4")))
    found = done(take(slots, *(ended(task, time=12.0, ran=(10.0, 12.0)) for task in ("t3", "t4"))))
    assert {it.slot for it in found} == {0, 1}
    found = done(take(slots, *(ended(task, time=14.0, ran=(12.0, 14.0)) for task in ("t1", "t2"))))
    assert {it.slot for it in found} == {0, 1}


def test_what_never_ran_is_no_row(slots: Slots):
    take(slots, begun("t1", B), begun("t2", B))
    assert take(slots, ended("t2", "released", ran=None)) == []
    assert take(slots, ("known", 2.0, "t3", "Client-x", "func"), ended("t3", "released", ran=None)) == []
    assert slots.tasks == 0


@pytest.mark.parametrize(
    ("how", "status", "error"),
    [
        ("memory", "done", ""),
        ("erred", "failed", "ValueError('no')"),
        ("released", "killed", "CancelledError: its client wants it no more"),
        ("lost", "lost", "WorkerLost: the Dask worker has gone"),
    ],
)
def test_how_a_task_of_another_program_ended(slots: Slots, how: str, status: str, error: str):
    (it,) = done(take(slots, begun("t1", B), ended("t1", how, error="ValueError('no')\nmore")))
    assert (it.status, it.error, it.finished + it.failed) == (status, error, 1)
    assert (slots.finished, slots.failed) == (int(status == "done"), int(status != "done"))


def test_what_a_call_of_this_package_says_goes_first(slots: Slots):
    told = {
        "function": "mine",
        "client": "a.py:7",
        "queued": 1.25,
        "sent": 100,
        "returned": 14,
        "finished": 30,
        "failed": 2,
        "seconds": 0.5,
        "status": "done",
        "error": "ValueError: two",
    }
    (it,) = done(take(slots, begun("t1", B), ended("t1", told=told)))
    assert it == Done(
        2, "t1", "mine", "a.py:7", 1.25, 3.0, 4.0, 0.5, 30, 2, "done", 100, 14, "ValueError: two"
    )
    told = {**told, "queued": math.nan, "seconds": None}
    (it,) = done(take(slots, begun("t2", B, 2.5), ended("t2", told=told)))
    assert (it.queued, it.seconds) == (2.5, 1.0)


def test_a_worker_that_is_lost_and_comes_back_has_its_numbers(slots: Slots):
    take(slots, begun("t1", A))
    found = take(slots, ended("t1", "lost", ran=None), ("left", 5.0, A))
    assert events(found) == [("free", 0), ("lost", 0), ("lost", 1)]
    assert slots.lost == 2
    found = take(slots, ("joined", 9.0, "tcp://10.0.0.5:4001", "a", 2))
    assert events(found) == [
        *(("joined 10.0.0.5:4001", 0), ("replaced", 0)),
        *(("joined 10.0.0.5:4001", 1), ("replaced", 1)),
    ]
    assert slots.count == 3


def test_what_waited_on_a_worker_that_is_lost_never_ran(slots: Slots):
    """Dask calls all of them lost, in any order."""
    take(slots, begun("t1", B), begun("t2", B), begun("t3", B))
    how: Any = {"how": "lost", "ran": None}
    found = take(slots, ended("t2", **how), ended("t1", **how), ended("t3", **how), ("left", 5.0, B))
    assert [(it.task, it.status) for it in done(found)] == [("t1", "lost")]
    assert events(found) == [("free", 2), ("lost", 2)]
    assert (slots.finished, slots.failed, slots.waiting) == (0, 1, 0)


def test_one_that_leaves_in_order_is_no_loss_and_others_get_new_numbers(slots: Slots):
    assert events(take(slots, ("left", 5.0, B))) == [("left", 2)]
    assert slots.lost == 0
    assert events(take(slots, ("joined", 6.0, "tcp://10.0.0.7:1", "c", 1))) == [("joined 10.0.0.7:1", 3)]


def test_notes_of_workers_that_are_not_known_are_passed_over():
    slots = Slots()
    assert take(slots, begun("t1", A), ended("t1"), ("left", 3.0, A)) == []
    assert (slots.tasks, slots.finished) == (0, 0)


def test_what_was_stolen_runs_on_the_thief(slots: Slots):
    take(slots, begun("t1", B), begun("t2", B))
    found = take(slots, ("moved", 3.0, "t2", A))
    assert events(found) == [("acquire", 0)]
    found = take(slots, ("moved", 3.5, "t1", A))
    assert events(found) == [("free", 2), ("acquire", 1)]
    assert [it.slot for it in done(take(slots, ended("t1"), ended("t2")))] == [1, 0]


def test_what_ends_after_its_worker_has_left_is_a_row_all_the_same(slots: Slots):
    take(slots, begun("t1", B), ("left", 4.0, B))
    (it,) = done(take(slots, ended("t1", ran=(2.0, 3.9))))
    assert (it.status, it.slot) == ("done", 2)
    assert slots.finished == 1


def test_one_that_dask_tries_again_has_failed(slots: Slots):
    (it,) = done(take(slots, begun("t1", B), ended("t1", "retried", ran=None)))
    assert (it.status, it.error) == ("failed", "it raised, and Dask runs it again")


def test_of_many_that_are_cancelled_at_once_only_what_ran_is_a_row(slots: Slots):
    tasks = [f"t{number}" for number in range(5)]
    take(slots, *(begun(task, B) for task in tasks))
    found = take(slots, *(ended(task, "released", 9.0 + 0.001 * n, ran=None) for n, task in enumerate(tasks)))
    assert [(it.task, it.status) for it in done(found)] == [("t0", "killed")]
    assert (slots.failed, slots.tasks, list(slots.running())) == (1, 0, [])


def test_workers_without_names_take_the_places_of_others_of_their_host(slots: Slots):
    found = take(
        slots,
        ("joined", 1.0, "tcp://10.0.0.9:1", "tcp://10.0.0.9:1", 1),
        ("left", 2.0, "tcp://10.0.0.9:1"),
        ("joined", 3.0, "tcp://10.0.0.9:2", "tcp://10.0.0.9:2", 1),
    )
    assert events(found)[-1] == ("joined 10.0.0.9:2", 3)
    assert slots.count == 4


def test_a_task_ends_no_earlier_than_it_began_though_a_clock_was_put_back(slots: Slots):
    (it,) = done(take(slots, begun("t1", B), ended("t1", ran=(5.0, 4.5))))
    assert (it.started, it.ended, it.seconds) == (5.0, 5.0, 0.0)
