"""When the time of a function is over."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from distribute_challenge.client.running.limit import TimeLimit


def limit(seconds: float, link: Any, round_trip_s: float = 0) -> TimeLimit:
    return TimeLimit(seconds, cast(Any, link), round_trip_s)


def test_a_function_has_the_time_that_it_was_given():
    now = time.monotonic()
    its = limit(5, SimpleNamespace(unsent_bytes=0))
    assert 0 < its.left_s(now + 4.9) < 0.2
    assert its.left_s(now + 5.1) < 0


def test_the_way_there_and_back_does_not_count():
    now = time.monotonic()
    its = limit(5, SimpleNamespace(unsent_bytes=0), 0.5)
    assert its.left_s(now + 5.9) > 0
    assert its.left_s(now + 6.1) < 0


def test_as_long_as_its_call_is_being_sent_its_time_does_not_begin():
    now = time.monotonic()
    link = SimpleNamespace(unsent_bytes=3000)
    its = limit(5, link)
    for number in (2000, 1000, 0):
        now += 5.1
        assert its.left_s(now) == 5
        link.unsent_bytes = number
    now += 5.1
    assert its.left_s(now) == 5  # The last of it may have left just now.
    assert its.left_s(now + 5.1) < 0


def test_a_worker_that_takes_no_more_of_the_call_has_its_time_too():
    now = time.monotonic()
    its = limit(5, SimpleNamespace(unsent_bytes=3000))
    assert its.left_s(now + 5.1) == 5
    assert its.left_s(now + 10.2) < 0
