"""The dispatcher's promises to callers who wait, or have gone. Their connections are socket pairs."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from distribute_challenge.server.caller import Caller
from distribute_challenge.server.dispatcher import Dispatcher
from distribute_challenge.server.workers.supervisor import turn_away_callers
from tests.running import HANG_S, eventually


class Client:
    """A caller, and the client's end of its connection."""

    def __init__(self, name: str) -> None:
        self.server_end, self.client_end = socket.socketpair()
        self.caller = Caller(name, self.server_end.fileno())

    def hang_up(self) -> None:
        self.client_end.close()

    def close(self) -> None:
        self.caller.close()
        self.server_end.close()
        self.client_end.close()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made = [Client(name) for name in ("ann", "bob", "eve")]
    yield made
    for client in made:
        client.close()


@pytest.fixture
def processes() -> list[Mock]:
    return [Mock(port=1), Mock(port=2)]


@pytest.fixture
def dispatcher(processes: list[Mock]) -> Dispatcher:
    pool = Dispatcher(1, processes.__getitem__, record=Mock(), on_all_up=Mock(), on_idle=Mock())
    pool.worker_up(0)
    return pool


def waiting(dispatcher: Dispatcher) -> Any:
    return dispatcher.snapshot()[1]["waiting"]


def test_who_has_hung_up_is_not_handed_a_worker_even_before_it_has_noticed(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock], monkeypatch: pytest.MonkeyPatch
):
    """Its own thread is kept from waking, as a busy machine might."""
    ann, bob, eve = clients
    dispatcher.find(ann.caller)
    may_wake = threading.Event()
    monkeypatch.setattr(bob.caller, "await_bell", lambda _: may_wake.wait(HANG_S))
    answers: dict[str, int | None] = {}
    threads = []
    for client in (bob, eve):
        call = lambda client=client: answers.update(  # noqa: E731
            {client.caller.name: dispatcher.acquire(client.caller, None)}
        )
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        eventually(lambda: waiting(dispatcher) == len(threads), "it waits")
    bob.hang_up()
    dispatcher.free(ann.caller, 0, 1, 0)
    threads[1].join(HANG_S)
    assert answers == {"eve": 0}
    may_wake.set()
    threads[0].join(HANG_S)
    assert answers == {"eve": 0, "bob": None}
    assert not processes[0].kill.called


def test_what_a_worker_printed_is_forgotten_each_time_it_is_handed_out(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock]
):
    """Else the next client might be told what the one before has printed, as the last words of a worker."""
    ann, bob, _ = clients
    for number, client in enumerate((ann, bob), start=1):
        dispatcher.find(client.caller)
        assert processes[0].forget_output.call_count == number
        dispatcher.free(client.caller, 0, 1, 0)
        assert processes[0].forget_output.call_count == number


def test_who_hangs_up_leaves_the_line(dispatcher: Dispatcher, clients: list[Client]):
    ann, bob, _ = clients
    dispatcher.find(ann.caller)
    answers: list[int | None] = []
    thread = threading.Thread(target=lambda: answers.append(dispatcher.acquire(bob.caller, None)))
    thread.start()
    eventually(lambda: waiting(dispatcher) == 1, "it waits")
    bob.hang_up()
    thread.join(HANG_S)
    assert (answers, waiting(dispatcher)) == ([None], 0)


def test_who_is_dismissed_while_it_is_stopped_does_not_come_back_to_the_line(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
):
    """It goes on in the very moment in which it has been taken out of the line."""
    ann, bob, _ = clients
    is_leaving, goes_on = threading.Event(), threading.Event()

    def record(*_: object) -> None:
        if is_leaving.is_set():
            goes_on.set()

    dispatcher = Dispatcher(1, lambda _: Mock(port=1), record=record, on_all_up=Mock(), on_idle=Mock())
    dispatcher.worker_up(0)
    monkeypatch.setattr(bob.caller, "is_away", lambda: not goes_on.is_set())
    dispatcher.find(ann.caller)
    answers: list[int | str | None] = []

    def acquire() -> None:
        try:
            answers.append(dispatcher.acquire(bob.caller, None))
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=acquire)
    thread.start()
    eventually(lambda: waiting(dispatcher) == 1, "it waits")
    dispatcher.free(ann.caller, 0, 1, 0)
    assert dispatcher.snapshot()[1]["busy"] == [0]  # It is passed over.
    is_leaving.set()
    dispatcher.close()
    thread.join(HANG_S)
    assert answers == ["RuntimeError: the server is stopping: it hands out no more workers"]
    assert (dispatcher.snapshot()[1]["busy"], waiting(dispatcher)) == ([0], 0)


def test_the_same_caller_can_wait_again_after_each_way_of_waking(
    dispatcher: Dispatcher, clients: list[Client]
):
    ann, bob, _ = clients
    dispatcher.find(ann.caller)
    for _ in range(3):
        assert dispatcher.acquire(bob.caller, 0.01) is None
        answers: list[int | None] = []
        thread = threading.Thread(target=lambda: answers.append(dispatcher.acquire(bob.caller, HANG_S)))  # noqa: B023
        thread.start()
        eventually(lambda: waiting(dispatcher) == 1, "it waits")
        dispatcher.free(ann.caller, 0, 1, 0)
        thread.join(HANG_S)
        assert answers == [0]
        dispatcher.free(bob.caller, 0, 1, 0)
        assert dispatcher.find(ann.caller) == 0


def test_a_worker_that_died_under_its_lease_is_not_killed_again_while_it_starts(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock]
):
    ann = clients[0]
    dispatcher.find(ann.caller)
    dead = processes[0]
    dispatcher.worker_down(0, dead)
    processes[0] = starting = Mock(port=1)
    assert dispatcher.recycle(ann.caller, 0)[0] is dead
    assert not starting.kill.called


def test_the_worker_of_a_caller_that_has_gone_is_killed(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock]
):
    ann = clients[0]
    dispatcher.find(ann.caller)
    dispatcher.abandon(ann.caller)
    dispatcher.abandon(ann.caller)
    assert processes[0].kill.call_count == 1
    assert dispatcher.snapshot()[0] == ["starting"]


def test_no_descriptors_for_one_more_who_waits_is_said(
    dispatcher: Dispatcher, clients: list[Client], monkeypatch: pytest.MonkeyPatch
):
    ann, bob, _ = clients
    dispatcher.find(ann.caller)
    monkeypatch.setattr("os.pipe", Mock(side_effect=OSError(24, "Too many open files")))
    with pytest.raises(RuntimeError, match=r"cannot let one more client wait \(Too many open files\)"):
        dispatcher.acquire(bob.caller, None)
    assert waiting(dispatcher) == 0


def test_callers_of_a_dead_worker_are_turned_away():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        callers = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        turn_away_callers(listener)
        for caller in callers:
            with caller:
                caller.settimeout(HANG_S)
                assert caller.recv(1) == b""
        assert listener.getblocking()
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        assert poller.poll(0) == []


def test_who_says_what_no_client_does_leaves_the_line(dispatcher: Dispatcher, clients: list[Client]):
    ann, bob, _ = clients
    dispatcher.find(ann.caller)
    bob.caller.next_call = Mock(side_effect=TypeError("it is no call"))
    bob.client_end.send(b"?")
    with pytest.raises(TypeError, match="it is no call"):
        dispatcher.acquire(bob.caller, None, 7)
    assert waiting(dispatcher) == 0
    assert dispatcher.snapshot()[1]["tasks"] == 0
    bob.caller.close()
    dispatcher.free(ann.caller, 0, 1, 0)
    assert dispatcher.snapshot()[0] == ["free"]


def test_what_a_process_is_told_to_have_run_is_not_its_successors(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock]
):
    """Else the server would take functions of the successor for some that were counted before."""
    ann, bob, eve = (client.caller for client in clients)
    dispatcher.find(ann)
    dispatcher.free(ann, 0, 5, 0)
    dispatcher.find(bob)
    dispatcher.worker_down(0, processes[0])
    processes[0] = Mock(port=1)
    dispatcher.worker_up(0)
    dispatcher.free(bob, 0, 1, 0)  # It had ended before its process did.
    dispatcher.find(eve)
    dispatcher.keep(eve, 0, 2, 0, 0, b"")
    assert dispatcher.recycle(eve, 0)[2] == 2


def test_all_that_died_under_a_lease_are_told(
    dispatcher: Dispatcher, clients: list[Client], processes: list[Mock]
):
    """What the first of them had begun is lost: it may not be begun again, and counts."""
    ann, bob, _ = (client.caller for client in clients)
    dispatcher.find(bob)
    dispatcher.free(bob, 0, 5, 0)
    dispatcher.find(ann)
    first, second, third = processes[0], Mock(port=1), Mock(port=1)
    dispatcher.worker_down(0, first)
    processes[0] = second
    dispatcher.worker_up(0)
    dispatcher.worker_down(0, second)
    processes[0] = third
    assert dispatcher.recycle(ann, 0) == (second, [first, third], 5)
