"""What may be sent to a worker ahead of its turn."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any, cast

from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import INITIALIZER, VALUE, Outcome
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.failures import Killed, Overdue
from distribute_challenge.client.running.pipeline import AHEAD_S, SPARED_S, Pipeline
from distribute_challenge.client.tasks.task import Task, end_lost
from distribute_challenge.errors import WorkerLost


class Worker:
    """A worker that answers when told to."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.link = SimpleNamespace(
            never_wait=lambda: None,
            flush=lambda: True,
            serve_arrived=lambda: None,
            has_unsent=False,
            is_stuck=lambda _: False,
        )

    def start(self, _: Any) -> Any:
        self.answers.append(SimpleNamespace(is_here=False))
        return self.answers[-1]

    def answer(self, seconds: float) -> None:
        """The first call that has no answer yet took so long."""
        answer = next(answer for answer in self.answers if not answer.is_here)
        answer.is_here, answer.seconds = True, seconds

    def close(self) -> None:
        """It goes nowhere."""

    def outcome(self, _name: str, _parcel: Any, answer: Any) -> Outcome:
        return Outcome(VALUE, b"", answer.seconds)


def task(pace: Pace) -> Task:
    return Task("f", Shipment(len).parcel(("x",), {}), pace)


def that_runs_a_task(pace: Pace, now: float) -> Pipeline:
    """A pipeline on whose worker a task has just begun, which is expected to take 0.1 s."""
    pipeline = Pipeline(cast(Any, Worker()), max_functions=1000)
    pace.seconds = 0.1
    begun = task(pace)
    begun.begin(now)
    pipeline.send(begun)
    return pipeline


def sent_ahead(pipeline: Pipeline, pace: Pace, round_trip_s: float = 0) -> int:
    """How many tasks the pipeline takes now."""
    count = 0
    while not len(pipeline) or pipeline.can_send_ahead(task(pace), time.monotonic(), round_trip_s):
        pipeline.send(task(pace))
        count += 1
    return count


def test_more_is_sent_ahead_after_each_quick_task_and_nothing_after_a_slow_one():
    worker, pace = Worker(), Pace()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    assert sent_ahead(pipeline, pace) == 1  # Of which nothing is known.
    for depth in (2, 3, 4):
        worker.answer(AHEAD_S / 1000)
        assert len(list(pipeline.outcomes(time.monotonic()))) == 1
        sent_ahead(pipeline, pace)
        assert len(pipeline) == depth
    for _ in range(4):
        worker.answer(2 * AHEAD_S)
    assert len(list(pipeline.outcomes(time.monotonic()))) == 4
    pace.seconds = AHEAD_S / 1000  # As if others had been quick meanwhile.
    assert sent_ahead(pipeline, pace) == 1


def test_a_quick_initializer_says_nothing_of_the_tasks():
    worker, pace = Worker(), Pace()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    pipeline.send(Task("f", Shipment(len).parcel(("x",), {}, flags=INITIALIZER), Pace()))
    worker.answer(AHEAD_S / 1000)
    list(pipeline.outcomes(time.monotonic()))
    pace.seconds = AHEAD_S / 1000  # As if they had been quick elsewhere.
    assert sent_ahead(pipeline, pace) == 1


def test_what_waits_on_a_worker_is_no_more_than_is_done_in_a_moment():
    worker, pace = Worker(), Pace()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    for _ in range(20):
        sent_ahead(pipeline, pace)
        worker.answer(AHEAD_S / 8)
        list(pipeline.outcomes(time.monotonic()))
    sent_ahead(pipeline, pace)
    assert len(pipeline) == 1 + 8  # One that runs, and those of which all together take that long.


def test_a_task_that_has_ended_when_it_was_to_be_stopped_has_its_result():
    worker, pace = Worker(), Pace()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    pace.seconds = AHEAD_S / 1000
    first = task(pace)
    pipeline.send(first)
    first.is_unwanted = True
    now = time.monotonic()
    assert isinstance(pipeline.tick(now), Killed)
    assert pipeline.give_up(ends_task=True) == first.parcel.id
    pipeline.go_on()  # The server says that it runs no more.
    assert pipeline.tick(now) is None
    worker.answer(AHEAD_S / 1000)
    assert [one for one, _ in pipeline.outcomes(now)] == [first]
    assert sent_ahead(pipeline, pace) > 0


def test_a_task_that_was_spared_and_does_not_answer_is_stopped_all_the_same():
    pipeline = Pipeline(cast(Any, Worker()), max_functions=1000)
    first = task(Pace())
    pipeline.send(first)
    first.is_unwanted = True
    pipeline.give_up(ends_task=True)
    pipeline.go_on()
    now = time.monotonic()
    assert pipeline.tick(now) is None
    assert 0 < pipeline.due_s(now, 0) <= SPARED_S
    assert isinstance(pipeline.tick(now + 2 * SPARED_S), Killed)
    assert pipeline.give_up(ends_task=True) == b""


def test_an_outcome_that_comes_while_its_task_is_to_be_stopped_counts():
    worker = Worker()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    first = task(Pace())
    pipeline.send(first)
    pipeline.give_up(ends_task=True)
    worker.answer(0.1)
    assert [one for one, _ in pipeline.outcomes(time.monotonic())] == [first]
    assert pipeline.break_off(None) == ([], [], [])


def test_who_was_sent_ahead_is_lost_when_the_worker_is_stopped_for_another():
    """That one has ended while it was to be stopped, and the next one has begun: which may run again."""
    worker = Worker()
    pipeline = Pipeline(cast(Any, worker), max_functions=1000)
    first, second, third = (task(Pace()) for _ in range(3))
    for one in (first, second, third):
        pipeline.send(one)
    second.retries = 1
    pipeline.give_up(ends_task=True)
    worker.answer(0.1)
    assert [one for one, _ in pipeline.outcomes(time.monotonic())] == [first]
    ending = Ending(18812, 99, None, "SIGKILL", [], last_calls=[third.parcel.id.hex()])
    stopped, begun, rest = pipeline.break_off(ending)
    assert (stopped, begun, rest) == ([], [second, third], [])
    assert end_lost(stopped, begun, Overdue(1.0), ending) == [second]
    assert isinstance(third.future.exception(), WorkerLost)


def test_far_away_the_next_task_is_sent_when_the_worker_will_have_nothing_to_do_before_long():
    pace, now = Pace(), time.monotonic()
    pipeline = that_runs_a_task(pace, now)
    assert not pipeline.can_send_ahead(task(pace), now)
    assert not pipeline.can_send_ahead(task(pace), now, 0.02)
    assert not pipeline.can_send_ahead(task(pace), now + 0.05, 0.02)
    assert pipeline.can_send_ahead(task(pace), now + 0.08, 0.02)
    assert sent_ahead(pipeline, pace, round_trip_s=0.4) == 2
    assert not pipeline.can_send_ahead(task(pace), now, 0.4)


def test_far_away_it_is_known_when_the_next_task_can_be_sent():
    pace, now = Pace(), time.monotonic()
    pipeline = that_runs_a_task(pace, now)
    due_s = pipeline.due_s(now, 0.05)
    assert 0 < due_s < 0.1
    assert not pipeline.can_send_ahead(task(pace), now + due_s - 0.001, 0.05)
    assert pipeline.can_send_ahead(task(pace), now + due_s + 0.001, 0.05)
    assert pipeline.due_s(now + due_s + 0.001, 0.05) == math.inf  # Nothing is looked at again and again.
    assert pipeline.due_s(now, 0) == math.inf


def test_far_away_it_is_not_looked_again_and_again_where_only_an_outcome_can_tell():
    pace, now = Pace(), time.monotonic()
    pipeline = that_runs_a_task(pace, now)
    behind = task(pace)
    pace.seconds = 0.2
    pipeline.send(behind)
    assert pipeline.due_s(now + 0.15, 0.1) == math.inf
    assert not pipeline.can_send_ahead(task(pace), now + 0.15, 0.1)


def test_nothing_is_sent_behind_a_function_that_takes_longer_than_any_before():
    pace, now = Pace(), time.monotonic()
    pipeline = that_runs_a_task(pace, now)
    assert pipeline.can_send_ahead(task(pace), now + 0.2, 0.1)
    assert not pipeline.can_send_ahead(task(pace), now + 0.5, 0.1)


def test_nothing_is_sent_behind_a_function_of_which_nothing_is_known():
    pace, now = Pace(), time.monotonic()
    pipeline = Pipeline(cast(Any, Worker()), max_functions=1000)
    begun = task(pace)
    begun.begin(now)
    pipeline.send(begun)
    assert not pipeline.can_send_ahead(task(pace), now, 0.2)
    pace.seconds = 0.1  # As another worker has told meanwhile.
    assert pipeline.can_send_ahead(task(pace), now, 0.2)
