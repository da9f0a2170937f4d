"""Connections that are made in threads, some of them before their worker is leased."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from distribute_challenge.client.peers.connections import MAX_IDLE
from distribute_challenge.client.peers.opening import Opener
from tests.running import HANG_S


class Worker:
    """A connection to a worker."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Connections:
    """Connections that are made when told to."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.idle: dict[int, Worker] = {}
        self.asked: list[int] = []
        self.may_be_made = threading.Event()
        self.error: Exception | None = None

    def has_idle_worker(self, port: int) -> bool:
        return port in self.idle

    def take_idle_worker(self, port: int) -> Worker | None:
        return self.idle.pop(port, None)

    def put_worker(self, port: int, worker: Worker) -> None:
        self.idle[port] = worker

    def new_worker(self, port: int) -> Worker:
        self.asked.append(port)
        assert self.may_be_made.wait(HANG_S)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return Worker()


class Opening:
    """An opener, whose results are taken in when told to."""

    def __init__(self, *ports: int) -> None:
        self.connections = Connections(*ports)
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.opener = Opener(cast(Any, self.connections), self._posted.put)
        self.got: list[Any] = []

    def reach(self, *leased: int, wanted: int = 1000) -> None:
        self.opener.reach_ahead(wanted, set(leased))

    def lease(self, port: int) -> None:
        self.opener.open_worker(port, self.got.append)

    def take_in(self, count: int = 1) -> None:
        self.connections.may_be_made.set()
        for _ in range(count):
            self._posted.get(timeout=HANG_S)()


def test_a_connection_that_is_coming_is_waited_for():
    opening = Opening(1)
    opening.reach()
    opening.lease(1)
    assert opening.got == []
    opening.take_in()
    assert opening.connections.asked == [1]
    assert [type(got) for got in opening.got] == [Worker]


def test_a_connection_that_came_before_its_lease_is_taken():
    opening = Opening(1)
    opening.reach()
    opening.take_in()
    opening.lease(1)
    assert opening.connections.asked == [1]
    assert [type(got) for got in opening.got] == [Worker]


@pytest.mark.parametrize("is_leased", [False, True])
def test_a_connection_that_could_not_be_made_before_the_lease_is_made_after_it(is_leased: bool):
    opening = Opening(1)
    opening.connections.error = ConnectionRefusedError()
    opening.reach()
    if is_leased:
        opening.lease(1)
    opening.take_in()
    if not is_leased:
        opening.lease(1)
    opening.take_in()
    assert opening.connections.asked == [1, 1]
    assert [type(got) for got in opening.got] == [Worker]


def test_why_a_leased_worker_cannot_be_reached_is_told():
    opening = Opening(1)
    error = opening.connections.error = ConnectionRefusedError()
    opening.lease(1)
    opening.take_in()
    assert opening.got == [error]


def test_a_connection_that_was_used_meanwhile_stays_in_its_place():
    """Its worker may have been prepared by an initializer, as only that connection knows."""
    opening = Opening(1)
    opening.reach()
    used = opening.connections.idle[1] = Worker()
    opening.take_in()
    opening.lease(1)
    assert opening.got == [used]
    assert not used.is_closed


def test_workers_that_are_leased_or_were_used_are_not_reached_ahead():
    opening = Opening(1, 2, 3)
    opening.connections.idle[2] = Worker()
    opening.reach(1)
    opening.take_in()
    assert opening.connections.asked == [3]


def test_workers_are_reached_ahead_once_and_only_if_all_are_wanted():
    opening = Opening()
    opening.reach()  # Which there are is not known.
    opening.connections.ports = (1, 2, 3)
    opening.reach(wanted=2)
    assert opening.connections.asked == []
    opening.reach(wanted=3)
    opening.take_in(3)
    opening.connections.idle.clear()
    opening.reach()
    assert sorted(opening.connections.asked) == [1, 2, 3]


def test_of_many_workers_some_are_reached_ahead():
    opening = Opening(*range(100))
    opening.reach()
    opening.take_in(MAX_IDLE)
    assert len(opening.connections.asked) == MAX_IDLE


def test_without_threads_only_what_is_leased_is_connected_to(monkeypatch: pytest.MonkeyPatch):
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    opening = Opening(1, 2)
    opening.connections.may_be_made.set()
    opening.reach()
    assert opening.connections.asked == []
    opening.lease(1)
    opening.take_in()
    assert opening.connections.asked == [1]
    assert [type(got) for got in opening.got] == [Worker]
