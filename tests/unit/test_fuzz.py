"""Whatever bytes arrive: a frame or a payload, or one kind of error, and never anything else."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from distribute_challenge.calls.buffers import Buffer, unpack
from distribute_challenge.calls.payload import Call, Outcome
from distribute_challenge.wire.frames import FrameChannel, FrameReader
from distribute_challenge.wire.stream import SocketStream

EXAMPLES = int(os.environ.get("EXAMPLES", "300"))  # More, for a run of their own: EXAMPLES=10000.
MANY = settings(max_examples=EXAMPLES, deadline=None, database=None)
SOME = settings(max_examples=EXAMPLES // 2, deadline=None, database=None)
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


def frames_in(data: bytes) -> tuple[list[bytes], bool]:
    """The frames at the beginning of `data`, and whether what follows can never become one."""
    found = []
    while len(data) >= 5:
        length, is_compressed = struct.unpack("!LB", data[:5])
        if length > LIMIT:
            return found, True
        if len(data) < 5 + length + 1:
            break
        content, end = data[5 : 5 + length], data[5 + length : 6 + length]
        if is_compressed:
            try:
                content = zlib.decompress(content)
            except zlib.error:
                return found, True
        if end != b"\n" or len(content) > LIMIT:
            return found, True
        found.append(content)
        data = data[6 + length :]
    return found, False


def read_all(pieces: Iterable[bytes], reader: FrameReader) -> tuple[list[bytes], bool]:
    """What a reader makes of pieces, and whether it refused one."""
    found: deque[bytes] = deque()
    try:
        for piece in pieces:
            reader.feed(piece, found)
    except EOFError:
        return list(found), True
    return list(found), False


@MANY
@given(anything, st.data())
def test_the_frame_reader(data: bytes, draw: st.DataObject):
    """However the bytes are cut into pieces."""
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    pieces = [data[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(data)])]
    assert read_all(pieces, FrameReader(LIMIT)) == frames_in(data)


@SOME
@given(anything)
def test_the_frame_reader_wants_no_more_than_it_needs(data: bytes):
    """Who receives no more than is wanted never takes anything of what comes after a frame."""
    reader, left = FrameReader(LIMIT), io.BytesIO(data)
    pieces = iter(lambda: left.read(reader.wanted), b"")
    assert read_all(pieces, reader) == frames_in(data)


@SOME
@given(anything)
def test_the_channel_gives_what_the_reader_does_and_then_the_end(data: bytes):
    for read in (lambda channel: [channel.recv()], FrameChannel.recv_arrived):
        ours, theirs = socket.socketpair()
        channel = FrameChannel(SocketStream(ours), LIMIT)
        theirs.sendall(data)
        theirs.close()
        found: list[bytes] = []
        with contextlib.suppress(EOFError):
            while True:
                found += read(channel)
        assert found == frames_in(data)[0]
        assert channel.closed
        assert channel.has_frame()
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
        Call,
        *(st.integers(0, 15), *[st.binary(min_size=n, max_size=n) for n in (8, 16)]),
        *(st.floats(allow_nan=False), st.integers(0, 2**32 - 1), *[st.binary()] * 5),
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
    outcome = Outcome.unpack(Outcome(kind, content, 1.5, offset, tuple(output)).pack(()))
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
