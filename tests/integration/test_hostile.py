"""What a hostile, or a broken, peer can do to the server: nothing, but end its own connection."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable

import psutil
import pytest
import rpyc
from rpyc.core import brine, consts

from distribute_challenge import PoolError, compute_this
from tests.running import HANG_S, RunningServer, eventually


def frame(payload: bytes) -> bytes:
    return struct.pack("!LB", len(payload), 0) + payload + b"\n"


def request(handler: int, *arguments: object) -> bytes:
    return frame(brine.dump((consts.MSG_REQUEST, 1, (handler, arguments))))


def nested(depth: int) -> bytes:
    """A brine tuple in a tuple in a tuple; the format's bytes are written by hand."""
    one = brine.dump(((),))[: -len(brine.dump(()))]
    return frame(one * depth + brine.dump(()))


def many_pings() -> bytes:
    return frame(brine.dump((consts.MSG_REQUEST, 1, (consts.HANDLE_PING, ((1, b"x"),))))) * 20_000


ATTACKS: dict[str, Callable[[], bytes]] = {
    "random bytes": lambda: random.Random(1).randbytes(5000),
    "an HTTP request": lambda: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS greeting": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a frame of 4 GiB": lambda: b"\xff\xff\xff\xff\0" + bytes(1000),
    "a frame just too large": lambda: struct.pack("!LB", (64 << 10) + 1, 0) + bytes((64 << 10) + 2),
    "random frames": lambda: b"".join(frame(random.Random(n).randbytes(20)) for n in range(50)),
    "deep nesting": lambda: nested(30_000),
    "an unknown message": lambda: frame(brine.dump((99, 1, ()))),
    "an unknown handler": lambda: request(99),
    "a reply to nothing": lambda: frame(brine.dump((consts.MSG_REPLY, 7, (1, 1)))),
    "an exception for nothing": lambda: frame(
        brine.dump((consts.MSG_EXCEPTION, 7, (("os", "_exit"), (), (), "")))
    ),
    "a pickle": lambda: request(consts.HANDLE_PICKLE, (consts.LABEL_VALUE, 1), (consts.LABEL_VALUE, 5)),
    "a class that is not there": lambda: request(consts.HANDLE_INSPECT, (consts.LABEL_VALUE, ("os", 1, 2))),
    "many messages whose answers nobody reads": many_pings,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_that_one_connection(start_server: Callable[..., RunningServer], attack: str):
    server = start_server(1)
    process = psutil.Process(server.pid)
    holder = server.connect()
    port = holder.root.find_free_worker()
    threads = process.num_threads()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.settimeout(HANG_S)
            try:
                sock.sendall(ATTACKS[attack]())
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    continue
            except TimeoutError:
                raise
            except OSError:  # Reset, or no longer connected.
                continue  # The server closed first.
    eventually(lambda: process.num_threads() <= threads, "the threads of those connections have ended")
    # Who was connected notices nothing.
    assert holder.root.keep_worker(port) == 0
    holder.root.free_worker(port)
    assert server.status()["busy"] == [0]
    log = server.stderr()
    assert "Traceback" not in log
    assert len(log) < 20_000
    holder.close()


def test_half_a_frame_and_silence_hold_up_nobody(server: RunningServer):
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for sock in silent[10:]:
        sock.sendall(b"\0\0\0\5\0ab")
    with server.connect() as client:
        assert client.root.find_free_worker() == server.ports[0]
    for sock in silent:
        sock.close()
    server.await_busy([0, 0])


def test_a_remote_object_as_an_argument_is_refused_by_its_type(server: RunningServer):
    class Liar:
        """Says of itself what is not so."""

        def __class__(self) -> type:  # type: ignore[override]
            return int

    with server.connect() as client:
        for call in ("free_worker", "keep_worker", "recycle_worker", "acquire_worker"):
            arguments = (Liar(), "reason") if call == "recycle_worker" else (Liar(),)
            with pytest.raises(ValueError):  # noqa: PT011  Each says it in its own words.
                getattr(client.root, call)(*arguments)
    assert server.status()["busy"] == [0, 0]


def test_a_million_small_messages(server: RunningServer):
    """The first that is no RPyC ends the connection: the rest is never looked at."""

    def send_all(sock: socket.socket) -> None:
        for _ in range(1000):
            sock.sendall(frame(b"x") * 1000)

    with socket.create_connection(("127.0.0.1", server.port)) as sock, pytest.raises(ConnectionError):
        send_all(sock)
    assert server.status()["busy"] == [0, 0]
    assert isinstance(server.connect().root, rpyc.core.netref.BaseNetref)


def test_workers_refuse_calls_that_are_larger_than_they_may_be(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--max-frame", "100K")
    task = compute_this(server=server.address)(len)
    assert task(b"x" * 50_000).run() == 50_000
    with pytest.raises(PoolError):
        task(b"x" * 200_000).run()
    server.await_busy([0])
    assert task(b"x").run() == 1
