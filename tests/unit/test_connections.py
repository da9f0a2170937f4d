"""Which idle connections are kept for the next call."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from distribute_challenge import ServerUnavailable
from distribute_challenge.address import Address
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.client.peers.connections import MAX_IDLE, Connections, Facts


class Peer:
    """A connection, as far as it is kept: it is its own link."""

    def __init__(self) -> None:
        self.link, self.closed, self.has_gone = self, False, False

    def wait_again(self) -> None:
        if self.has_gone:
            raise EOFError

    def is_quiet(self) -> bool:
        return not self.has_gone

    def close(self) -> None:
        self.closed = True


def test_only_so_many_connections_stay_open_the_latest_ones():
    connections = Connections(Address("127.0.0.1", 18811))
    workers, servers = [Peer() for _ in range(3 * MAX_IDLE)], [Peer() for _ in range(3 * MAX_IDLE)]
    for port, worker in enumerate(workers):
        connections.put_worker(port, cast(Any, worker))
    for server in servers:
        connections.put_server(cast(Any, server))
    assert [worker.closed for worker in workers] == [True] * 2 * MAX_IDLE + [False] * MAX_IDLE
    assert sum(not server.closed for server in servers) == MAX_IDLE
    connections.close()
    assert all(peer.closed for peer in (*workers, *servers))


def test_as_many_stay_open_as_the_pool_has_workers(monkeypatch):
    connections = Connections(Address("127.0.0.1", 18811))
    monkeypatch.setattr(connections, "new_server", lambda *_: (Peer(), Facts("3.12", 3 * MAX_IDLE, None)))
    connections.facts()  # which leaves one
    workers, servers = [Peer() for _ in range(4 * MAX_IDLE)], [Peer() for _ in range(4 * MAX_IDLE)]
    for port, worker in enumerate(workers):
        connections.put_worker(port, cast(Any, worker))
    for server in servers:
        connections.put_server(cast(Any, server))
    assert [worker.closed for worker in workers] == [True] * MAX_IDLE + [False] * 3 * MAX_IDLE
    assert sum(not server.closed for server in servers) == 3 * MAX_IDLE - 1


def test_nothing_is_kept_of_what_comes_back_after_the_end():
    connections = Connections(Address("127.0.0.1", 18811))
    connections.close()
    worker, server = Peer(), Peer()
    connections.put_worker(1, cast(Any, worker))
    connections.put_server(cast(Any, server))
    assert worker.closed
    assert server.closed


def test_a_connection_takes_the_place_of_the_one_to_the_same_worker():
    connections = Connections(Address("127.0.0.1", 18811))
    first, second = Peer(), Peer()
    connections.put_worker(1, cast(Any, first))
    connections.put_worker(1, cast(Any, second))
    assert (first.closed, second.closed) == (True, False)
    assert connections.take_idle_worker(1) is second
    assert connections.take_idle_worker(1) is None


def test_a_connection_whose_peer_has_gone_is_not_given():
    connections = Connections(Address("127.0.0.1", 18811))
    gone = Peer()
    connections.put_worker(1, cast(Any, gone))
    gone.has_gone = True
    assert connections.take_idle_worker(1) is None
    assert gone.closed


def test_the_memory_that_is_kept_for_large_values_is_given_back_at_the_end():
    size = 7_654_321  # as nothing else has

    def files() -> int:
        count = 0
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # Closed between two looks.
                count += size <= entry.stat().st_size < size + 1024
        return count

    parts = Parts([bytes(size)], may_share=True)
    parts.pack(can_share=True)
    del parts
    assert files() == 1, "it was not kept"
    Connections(Address("127.0.0.1", 18811)).close()
    assert files() == 0


def test_what_is_known_of_a_server_that_has_gone_holds_until_another_one_says_more(monkeypatch):
    """Who waits for it, does that where a worker is asked for: no call is refused for want of facts."""
    connections = Connections(Address("127.0.0.1", 18811))
    with pytest.raises(ServerUnavailable):
        connections.facts()
    first, second = Facts("3.12", 2, None, max_frame=1000), Facts("3.12", 3, None)
    monkeypatch.setattr(connections, "new_server", lambda *_: (Peer(), first))
    assert connections.facts() == first
    connections.close()
    connections.doubt_facts()
    assert not connections.has_answered
    waits: list[float] = []

    def gone(_: Any, wait_s: float) -> Any:
        waits.append(wait_s)
        raise ServerUnavailable

    monkeypatch.setattr(connections, "new_server", gone)
    assert [connections.facts(60) for _ in range(3)] == [first] * 3
    assert waits == [0]  # It is asked again, but not at once.
    monkeypatch.setattr(connections, "_ask_again_at", 0.0)
    monkeypatch.setattr(connections, "new_server", lambda *_: (Peer(), second))
    assert connections.facts() == second
    assert connections.has_answered


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ENOTCONN, errno.EMFILE])
def test_a_private_server_that_is_just_ending_is_started_anew(number: int, monkeypatch: pytest.MonkeyPatch):
    """One that is killed after it took us into its queue, say, and before we looked who is there."""
    ended, started = Address("127.0.0.1", 1), Address("127.0.0.1", 2)
    private = Mock(**{"address.side_effect": [ended, started], "has_ended.return_value": True})

    def connect(address: Address, _: Any) -> Any:
        if address == started:
            return "connected"
        try:
            raise OSError(number, "as it is just ending")
        except OSError as error:
            raise ServerUnavailable(str(error)) from None

    monkeypatch.setattr("distribute_challenge.client.peers.connections.ServerConnection", connect)
    connections = Connections(ended, private=private)
    if number == errno.EMFILE:  # The server has nothing to do with it.
        with pytest.raises(ServerUnavailable):
            connections._open()
        private.has_ended.assert_not_called()
    else:
        assert connections._open() == "connected"
