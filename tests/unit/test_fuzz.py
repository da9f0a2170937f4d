"""Whatever bytes arrive: a frame or a payload, or one kind of error, and never anything else."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from distribute_challenge.calls.buffers import Buffer, unpack
from distribute_challenge.calls.payload import Call, Outcome, Result, pack_outcome
from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.stream import SocketStream

MANY = settings(max_examples=10_000, deadline=None, database=None)
SOME = settings(max_examples=1000, deadline=None, database=None)
LIMIT = 4096

frames = st.builds(
    lambda length, compressed, data, end: struct.pack("!LB", length, compressed) + data + end,
    st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1)),
    st.integers(0, 255),
    st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(zlib.compress)),
    st.sampled_from([b"", b"\n", b"x"]),
)
good_frames = st.binary(max_size=64).map(lambda data: struct.pack("!LB", len(data), 0) + data + b"\n")
packed_frames = st.binary(max_size=64).map(
    lambda data: struct.pack("!LB", len(zlib.compress(data)), 1) + zlib.compress(data) + b"\n"
)
anything = st.one_of(
    st.binary(max_size=256), frames, st.lists(st.one_of(good_frames, packed_frames, frames)).map(b"".join)
)


def read_all(data: bytes, *, patiently: bool) -> tuple[list[bytes], bool]:
    """The frames that are read from `data`, and whether it ended with the one error there is."""
    ours, theirs = socket.socketpair()
    channel = FrameChannel(SocketStream(ours), LIMIT)
    theirs.sendall(data)
    theirs.close()
    found = []
    try:
        while True:
            found += [channel.recv()] if patiently else channel.recv_arrived()
    except EOFError:
        return found, True
    finally:
        channel.close()


@MANY
@given(anything)
def test_the_frame_reader(data: bytes):
    frames, has_ended = read_all(data, patiently=True)
    assert has_ended
    assert all(len(frame) <= LIMIT for frame in frames)
    assert read_all(data, patiently=False) == (frames, True)


@SOME
@given(st.lists(st.one_of(good_frames, packed_frames), max_size=5), st.data())
def test_frames_that_arrive_in_pieces(frames: list[bytes], data: st.DataObject):
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    ours, theirs = socket.socketpair()
    channel = FrameChannel(SocketStream(ours), LIMIT)
    try:
        theirs.sendall(whole[:cut])
        found = 0
        while channel.has_frame():
            channel.recv()
            found += 1
        theirs.sendall(whole[cut:])
        while found < len(frames):
            assert channel.has_frame()
            channel.recv()
            found += 1
        assert not channel.has_frame()
    finally:
        theirs.close()
        channel.close()


@MANY
@given(st.binary(max_size=128))
def test_the_payload_readers(data: bytes):
    for reader in (Call.unpack, Outcome.unpack, unpack_buffers, unpack_shared_buffers):
        with contextlib.suppress(ValueError):
            reader(data)


def unpack_buffers(data: bytes) -> list[Buffer]:
    return unpack(memoryview(data))


def unpack_shared_buffers(data: bytes) -> list[Buffer]:
    return unpack(memoryview(b"s" + data))


@SOME
@given(
    st.builds(
        Call, st.integers(0, 15), *[st.binary(min_size=n, max_size=n) for n in (8, 16)], *[st.binary()] * 3
    )
)
def test_a_call_comes_back_as_it_was(call: Call):
    assert Call.unpack(call.pack([b"buf", b"fers"])) == (call, b"buffers")


@SOME
@given(
    st.sampled_from([b"+", b"-", b"*", b"/"]),
    st.binary(),
    st.integers(0, 2**40),
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=16)), max_size=3),
)
def test_an_outcome_comes_back_as_it_was(
    kind: bytes, content: bytes, offset: int, output: list[tuple[int, bytes]]
):
    outcome = Outcome.unpack(pack_outcome(Result(kind, content, 1.5), offset, tuple(output), ()))
    assert outcome == Outcome(kind, content, 1.5, offset if output else 0, tuple(output))


def test_a_large_frame_that_arrives_slowly_is_read_without_waiting():
    ours, theirs = socket.socketpair()
    channel = FrameChannel(SocketStream(ours), 1 << 30)
    payload = b"x" * (8 << 20)
    sender = threading.Thread(
        target=theirs.sendall, args=(struct.pack("!LB", len(payload), 0) + payload + b"\n",), daemon=True
    )
    assert not channel.has_frame()
    sender.start()
    while not channel.has_frame():
        channel.stream.poll(1)
    assert channel.recv() == payload
    sender.join()
    theirs.close()
    channel.close()
