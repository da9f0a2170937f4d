"""Frames over a pair of connected sockets: the same bytes as plain RPyC's, and limits on what is read."""

from __future__ import annotations

import itertools
import select
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rpyc

from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.stream import SocketStream
from tests.running import HANG_S, eventually

LIMIT = 1 << 24


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    with here, there:
        here.settimeout(HANG_S)
        there.settimeout(HANG_S)
        yield here, there


def channel(sock: socket.socket, limit: int = LIMIT) -> FrameChannel:
    return FrameChannel(SocketStream(sock), limit)


@pytest.mark.parametrize("size", [0, 1, 5, 32_760, 32_768, 65_530, 70_000, 5_000_000])
def test_a_frame_arrives_as_it_was_sent_at_either_end_of_plain_rpyc(pair, size: int):
    ours, theirs = channel(pair[0]), rpyc.Channel(rpyc.SocketStream(pair[1]))
    data = bytes(number % 251 for number in range(size))
    sender = threading.Thread(target=lambda: (ours.send(data), theirs.send(data)))
    sender.start()
    if size < 10_000:
        sender.join(HANG_S)
        assert (theirs.recv(), ours.recv()) == (data, data)
        return
    assert theirs.recv() == data
    assert ours.recv() == data  # Compressed by the plain channel.
    sender.join(HANG_S)


def test_frames_that_arrive_together_or_in_pieces_are_told_apart(pair):
    ours = channel(pair[0])
    frames = [bytes([number]) * (number * 7) for number in range(1, 50)]
    stream = b"".join(len(frame).to_bytes(4, "big") + b"\0" + frame + b"\n" for frame in frames)
    pair[1].sendall(stream)
    assert [ours.recv() for _ in frames] == frames

    def dribble() -> None:
        for byte in stream:
            pair[1].sendall(bytes([byte]))

    sender = threading.Thread(target=dribble)
    sender.start()
    assert [ours.recv() for _ in frames] == frames
    sender.join(HANG_S)


def test_what_was_read_ahead_counts_as_something_to_read(pair):
    ours = channel(pair[0])
    pair[1].sendall((b"\0\0\0\1\0a\n") * 2)
    assert ours.recv() == b"a"
    assert ours.poll(0)
    assert ours.recv() == b"a"
    assert not ours.poll(0)


@pytest.mark.parametrize(
    "data",
    [
        (LIMIT + 1).to_bytes(4, "big") + b"\0",
        b"\xff\xff\xff\xff\0",
        b"\0\0\0\1\0ab",
        b"\0\0\0\4\1junk\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\2\0a",
        b"\0\0",
        b"",
    ],
    ids=["too large", "4 GiB", "no end", "not zlib", "HTTP", "half a frame", "half a header", "nothing"],
)
def test_what_is_no_frame_ends_the_connection(pair, data: bytes):
    ours = channel(pair[0])
    pair[1].sendall(data)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        ours.recv()
    assert ours.closed


def test_a_frame_that_unpacks_to_more_than_the_limit_is_refused(pair):
    ours = channel(pair[0], limit=100_000)
    bomb = zlib.compress(bytes(50_000_000))
    pair[1].sendall(len(bomb).to_bytes(4, "big") + b"\1" + bomb + b"\n")
    with pytest.raises(EOFError, match="more than the 100000 bytes"):
        ours.recv()


def test_an_answer_that_is_there_can_be_read_after_the_peer_has_gone(pair):
    ours = channel(pair[0])
    pair[1].sendall(b"\0\0\0\6\0answer\n")
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # Closes with a reset.
    pair[1].close()
    eventually(lambda: not can_send(ours), "sending fails")
    assert ours.recv() == b"answer"
    with pytest.raises(EOFError):
        ours.recv()


def can_send(ours: FrameChannel) -> bool:
    try:
        ours.send(b"question")
    except EOFError:
        return False
    return True


class Unanswered(socket.socket):
    """A socket whose packets get no answer any more."""

    silent_ms = 0

    def getsockopt(self, *option: Any) -> Any:
        info = bytearray(super().getsockopt(*option))
        struct.pack_into("=I28xI", info, 24, 1, self.silent_ms)
        return bytes(info)


def test_a_peer_whose_system_has_not_answered_for_a_minute_is_gone(pair):
    sock = Unanswered(fileno=pair[0].detach())
    with sock:
        stream = SocketStream(sock)
        for sock.silent_ms, is_gone in ((59_000, False), (61_000, True)):
            assert stream.is_peer_gone() == is_gone
    assert not stream.is_peer_gone()


def test_a_peer_that_does_not_read_is_there(pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distribute_challenge.wire.stream.GONE_S", 0.2)
    stream = SocketStream(pair[0])
    stream.never_wait()
    stream.write(bytes(50_000_000))
    assert not stream.flush()
    assert select.select([], [pair[0]], [], 0.5) == ([], [], [])
    assert not stream.is_peer_gone()


def test_a_connection_can_end_when_its_peer_does_not_read(pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distribute_challenge.wire.stream.GONE_S", 0.5)
    ours = channel(pair[0])
    ours.stream.end_if_not_taken()
    with pytest.raises(EOFError):
        ours.send(bytes(50_000_000))


def test_the_kernel_is_to_find_ends_that_are_gone_without_a_word():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as sock:
        SocketStream(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


class Processor:
    """One of which we give up a turn of `turn_s` each time; `goes_by` happens meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, turn_s: float) -> None:
        self.now = 0.0
        self.turn_s = turn_s
        self.turns = 0
        self.goes_by: dict[int, Callable[[], None]] = {}  # in which turn
        monkeypatch.setattr("distribute_challenge.wire.frames.time.perf_counter", lambda: self.now)
        monkeypatch.setattr("distribute_challenge.wire.frames.os.sched_yield", self.give_up)

    def give_up(self) -> None:
        self.turns += 1
        self.now += self.turn_s
        self.goes_by.get(self.turns, lambda: None)()


def test_a_frame_is_looked_for_as_long_as_nobody_else_needs_the_processor(pair, monkeypatch):
    ours, theirs = channel(pair[0]), channel(pair[1])
    processor = Processor(monkeypatch, 1e-6)
    for turn in (200, 400):  # As long as a peer takes that has to wake; and again, since it has come.
        processor.goes_by[turn] = lambda: theirs.send(b"frame")
        assert ours.spin()
        assert processor.turns in range(turn, turn + 10)
        assert ours.recv() == b"frame"


def test_a_frame_that_comes_while_another_one_has_the_processor_is_slept_for_the_next_times(
    pair, monkeypatch
):
    ours, theirs = channel(pair[0]), channel(pair[1])
    processor = Processor(monkeypatch, 80e-6)
    tries = []
    for number in range(20):
        processor.goes_by[processor.turns + 1] = lambda: theirs.send(b"frame")
        before = processor.turns
        if ours.spin():
            assert processor.turns == before + 1
            assert ours.recv() == b"frame"
            tries.append(number)
    assert tries == [0, 2, 6, 14]


def test_what_does_not_come_is_looked_for_more_and_more_rarely(pair, monkeypatch):
    ours = channel(pair[0])
    processor = Processor(monkeypatch, 1e-6)
    turns = []
    for _ in range(20):
        assert not ours.spin()
        turns.append(processor.turns)
    tried = [
        number for number, (before, after) in enumerate(itertools.pairwise([0, *turns])) if after > before
    ]
    assert tried == [0, 2, 6, 14]
    assert turns[0] < 300
