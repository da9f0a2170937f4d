"""How far away a pool is, and what is done about it: workers asked for at once, and tasks sent ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.distance import NEAR_S, Distance
from distribute_challenge.client.running.lane import TICK_S, Lane
from distribute_challenge.client.running.lanes import Lanes
from distribute_challenge.client.running.place import Place
from distribute_challenge.client.running.state import State
from distribute_challenge.client.tasks.task import Task
from tests.running import HANG_S, eventually
from tests.unit.test_pipeline import that_runs_a_task


def test_the_round_trip_is_the_shortest_time_that_an_answer_took():
    distance = Distance()
    assert distance.round_trip_s == 0
    for seconds in (0.3, 0.1, 0.15):
        distance.note(seconds)
    assert 0.1 < distance.round_trip_s < 0.11
    distance.note(0.08)
    assert distance.round_trip_s == 0.08


def test_what_has_waited_in_line_says_only_what_the_round_trip_is_at_most():
    distance = Distance()
    distance.note(0.1)
    for _ in range(100):
        distance.note(60, is_at_most=True)
    assert distance.round_trip_s == 0.1
    distance.note(0.09, is_at_most=True)
    assert distance.round_trip_s == 0.09


def test_a_network_that_has_become_slower_is_noticed():
    distance = Distance()
    distance.note(0.001)
    assert distance.round_trip_s == 0
    for _ in range(100):
        distance.note(0.2)
    assert distance.round_trip_s > 0.19


def test_a_server_that_was_slow_to_connect_to_is_near_once_it_answers_at_once():
    distance = Distance()
    distance.note(0.3)
    answers = SimpleNamespace(
        ask_for_free_worker=lambda: SimpleNamespace(is_here=True), port_in=lambda _: 18812
    )
    assert Place(cast(Any, answers), distance, None).port(time.monotonic()) == 18812
    assert distance.round_trip_s == 0


def test_a_lane_far_away_wakes_when_the_next_task_is_to_be_sent():
    distance, pace, now = Distance(), Pace(), time.monotonic()
    distance.note(0.05)
    server = SimpleNamespace(link=SimpleNamespace(never_wait=lambda: None))
    connections = SimpleNamespace(distance=distance)
    lane = Lane(
        cast(Any, connections), cast(Any, server), lambda: (0, b""), is_new=True, max_tasks=None, port=1
    )
    lane.state, lane.pipeline = State.WORKING, that_runs_a_task(pace, now)
    due_s = lane.pipeline.due_s(now, 0.05)
    assert lane.tick_s(now) == due_s < TICK_S
    distance.note(0)
    assert lane.tick_s(now) == TICK_S


class Connections:
    """Connections that take as long as is wished."""

    ports = ()  # None are known.

    def __init__(self, round_trip_s: float) -> None:
        self.distance = Distance()
        self.distance.note(round_trip_s)
        self.being_made = 0
        self.may_end = threading.Event()

    def take_idle_server(self) -> None:
        """There are none."""

    def new_server(self, _: Callable[..., Any]) -> Any:
        self.being_made += 1
        self.may_end.wait(HANG_S)
        return SimpleNamespace(close=lambda: None), -1

    def put_server(self, server: Any) -> None:
        """It is not kept."""


@pytest.mark.parametrize(("round_trip_s", "at_once"), [(NEAR_S / 2, 1), (0.1, 4)])
def test_far_away_all_workers_that_may_be_free_are_asked_for_at_once(round_trip_s: float, at_once: int):
    connections = Connections(round_trip_s)
    posted: list[Callable[[], None]] = []
    lanes = Lanes(cast(Any, connections), posted.append, None)
    lanes.max_lanes = 4
    for _ in range(40):
        lanes.add(Task("f", Shipment(len).parcel(("x",), {}), Pace()))
    for _ in range(3):
        lanes.step(set())
    eventually(lambda: connections.being_made >= at_once, "they are asked for")
    connections.may_end.set()
    eventually(lambda: len(posted) == at_once, "they have answered")
    assert connections.being_made == at_once
