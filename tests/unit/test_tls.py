"""Frames over TLS: what streams do over plain sockets, they do over encrypted ones."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import rpyc

from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.tls import CertificateAuthenticator, encrypt, stream_over
from tests.certificates import Certificates
from tests.running import HANG_S, eventually
from tests.unit.test_frames import can_send

LIMIT = 1 << 24

Pair = tuple[ssl.SSLSocket, ssl.SSLSocket]


@pytest.fixture
def pair(certificates: Certificates) -> Iterator[Pair]:
    """The ends of a connection: the server's and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    admitted: list[ssl.SSLSocket] = []
    admit = CertificateAuthenticator(certificates.server)
    thread = threading.Thread(target=lambda: admitted.append(admit(here)[0]))
    thread.start()
    client = encrypt(there, "localhost", certificates.client)
    thread.join(HANG_S)
    with admitted[0], client:
        for end in (admitted[0], client):
            end.settimeout(HANG_S)
        yield admitted[0], client


def channel(sock: ssl.SSLSocket) -> FrameChannel:
    return FrameChannel(stream_over(sock), LIMIT)


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + b"\0" + data + b"\n"


@pytest.mark.parametrize("size", [0, 1, 16_378, 16_379, 32_768, 70_000, 5_000_000])
def test_a_frame_arrives_as_it_was_sent_at_either_end_of_plain_rpyc(pair: Pair, size: int):
    ours, theirs = channel(pair[0]), rpyc.Channel(rpyc.SocketStream(pair[1]), compress=False)
    data = bytes(number % 251 for number in range(size))
    for one, other in ((ours, theirs), (theirs, ours)):
        sender = threading.Thread(target=one.send, args=(data,))
        sender.start()
        assert other.recv() == data
        sender.join(HANG_S)


def test_what_is_still_inside_tls_counts_as_something_to_read(pair: Pair):
    ours = channel(pair[0])
    large = bytes(50_000)
    sender = threading.Thread(target=pair[1].sendall, args=(frame(large) + frame(b"more"),))
    sender.start()
    assert ours.recv() == large
    sender.join(HANG_S)
    assert ours.poll(0)
    assert ours.has_frame()
    assert ours.recv() == b"more"
    assert not ours.poll(0)
    assert not ours.has_frame()


def test_what_tls_says_to_itself_does_not(pair: Pair):
    """After the handshake a server sends tickets, which no program sees."""
    assert pair[1].version() == "TLSv1.3"
    assert select.select([pair[1]], [], [], HANG_S)[0]
    ours = channel(pair[1])
    assert not ours.poll(0)
    assert not ours.poll(0.01)
    assert not ours.has_frame()


def test_what_the_peer_does_not_take_yet_is_kept(pair: Pair):
    ours, theirs = channel(pair[0]), channel(pair[1])
    ours.stream.never_wait()
    large = bytes(number % 251 for number in range(10_000_000))
    ours.send(large)
    ours.send(b"and then")
    assert ours.stream.has_unsent
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend((theirs.recv(), theirs.recv())))
    reader.start()
    eventually(ours.stream.flush, "all is sent")
    reader.join(HANG_S)
    assert received == [large, b"and then"]
    assert not ours.stream.has_unsent


def test_one_thread_reads_while_another_writes(pair: Pair):
    """OpenSSL itself takes one call at a time."""
    ends = channel(pair[0]), channel(pair[1])
    data = [bytes([number]) * (number * 1000) for number in range(200)] * 5
    received: list[list[bytes]] = [[], []]
    threads = [threading.Thread(target=lambda end=end: [end.send(part) for part in data]) for end in ends]
    threads += [
        threading.Thread(target=lambda end=end, parts=parts: parts.extend(end.recv() for _ in data))
        for end, parts in zip(ends, received, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert received == [data, data]


def test_an_answer_that_is_there_can_be_read_after_the_peer_has_gone(pair: Pair):
    ours = channel(pair[0])
    pair[1].sendall(frame(b"answer"))
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # Closes with a reset.
    pair[1].close()
    eventually(lambda: not can_send(ours), "sending fails")
    assert ours.recv() == b"answer"
    for _ in range(2):
        with pytest.raises(EOFError):
            ours.recv()
    assert ours.closed


def test_the_end_of_the_connection_is_something_to_read_and_then_the_end(pair: Pair):
    ours = channel(pair[0])
    pair[1].close()
    assert ours.poll(HANG_S)
    assert ours.has_frame()
    # It closed without having read the session tickets, which newer versions of OpenSSL call a reset.
    with pytest.raises(EOFError, match=r"closed by peer|reset by peer"):
        ours.recv()


def test_a_tick_ends_whatever_has_arrived(pair: Pair):
    ours = channel(pair[0])
    ours.stream.wait_in_ticks()
    pair[1].sendall(frame(b"half")[:3])
    assert ours.tick(1)  # Something has arrived.
    assert not ours.has_frame()
    assert not ours.tick(1)
    assert not ours.tick(0.01)
    pair[1].sendall(frame(b"half")[3:])
    assert ours.tick(1)
    assert ours.recv_arrived() == [b"half"]


def test_a_closed_socket_is_not_waited_for(pair: Pair):
    """As in a forked child, where the lock of this one may be held by a thread that is not there."""
    ours = channel(pair[0])
    ours.stream.sock._lock = None
    ours.stream.sock.close()
    with pytest.raises(EOFError):
        ours.send(b"anything")
