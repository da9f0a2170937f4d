"""What a function prints, as it is asked for over a second connection; and a server that goes meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from distribute_challenge import ServerUnavailable
from distribute_challenge.address import Address
from distribute_challenge.client.peers import worker as peers
from distribute_challenge.client.peers.failures import Dead
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection
from distribute_challenge.client.running.lane import Lane
from distribute_challenge.client.running.state import State
from distribute_challenge.wire import link as links


class Link:
    """A connection on which each call is answered at once, with nothing."""

    closed, host = False, "127.0.0.1"

    def __init__(self, *_: Any) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.has_ended = False

    def ask(self, _method: Any, *args: Any) -> Any:
        self.asked.append(args)
        return SimpleNamespace(is_here=True, value=(0, ()))

    def close(self) -> None:
        self.has_ended = True

    def serve_arrived(self) -> None:
        """All is here."""

    wait_in_ticks = serve_arrived


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> WorkerConnection:
    monkeypatch.setattr(peers, "Link", Link)
    return WorkerConnection(Address("127.0.0.1", 1))


def test_who_runs_after_one_that_was_to_be_killed_is_read_as_any_other(worker: WorkerConnection):
    """The first had ended before it was: its worker goes on, and the connection for its output with it."""
    printer = cast(Any, Mock(seen=0))
    worker._is_opening = True
    worker._open_reader()
    while not worker.show_output(b"first", printer, is_last=True):
        pass
    reader = worker._reader
    assert reader is not None
    asked = reader.link.asked  # type: ignore[attr-defined]
    asked.clear()
    worker.show_output(b"second", printer)
    assert asked == [(0, b"second", False)]


def test_of_two_connections_for_output_that_were_made_at_once_one_is_closed(
    worker: WorkerConnection, monkeypatch: pytest.MonkeyPatch
):
    made: list[Link] = []
    monkeypatch.setattr(peers, "Link", lambda *_: made.append(Link()) or made[-1])
    worker._is_opening = True
    worker._open_reader()
    worker._open_reader()
    assert [link.has_ended for link in made] == [False, True]


@pytest.mark.parametrize("counts", [{}, {"finished": 1}, {"failed": 1}])
def test_a_server_that_goes_while_a_worker_is_to_be_replaced_is_said(
    counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distribute_challenge.client.peers.server.Link", lambda *_: Mock())
    server = ServerConnection(Address("127.0.0.1", 1))
    server.link = Mock(**{"is_silent.return_value": False, "ask.side_effect": EOFError("closed")})
    with pytest.raises(ServerUnavailable):
        server.recycle(2, Dead("f"), **counts)


def test_answers_that_come_together_are_all_taken_in():
    """Else a lane waits for one that is there."""
    server = SimpleNamespace(link=SimpleNamespace(never_wait=lambda: None))
    connections = SimpleNamespace(distance=Mock())
    lane = Lane(
        cast(Any, connections), cast(Any, server), lambda: (0, b""), is_new=True, max_tasks=None, port=1
    )
    lane.state, lane.pipeline = State.ENDING, Mock(is_dead=False)
    lane._recycling, lane._keeping = (
        cast(links.Answer, Mock(is_here=True, value=value)) for value in ("", 0)
    )
    lane._take_answers(0.0)
    assert (lane.state, lane._recycling, lane._keeping) == (State.WORKING, None, None)


@pytest.mark.parametrize(("is_silent", "most"), [(False, 20.0), (True, 5.0)])
def test_a_server_that_is_cut_off_is_not_waited_for_as_one_that_is_there(
    is_silent: bool, most: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distribute_challenge.client.peers.server.Link", lambda *_: Mock())
    server = ServerConnection(Address("127.0.0.1", 1))
    server.link = Mock(**{"is_silent.return_value": is_silent, "wait.side_effect": TimeoutError})
    with pytest.raises(ServerUnavailable):
        server.recycle(2, Dead("f"))
    assert server.link.wait.call_args.args[1] == most
