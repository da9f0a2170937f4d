"""A server that is far away: a proxy here, over which all takes its time, or nothing comes any more."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

from tests.running import RunningServer

HOST = "127.0.0.2"


class Talk:
    """One connection: whether its client has heard something since it spoke last."""

    has_heard = True


class FarAway:
    """A server and its workers at another address, with the same ports: `delay_s` there, and as much back.

    `workers_delay_s` is for the workers alone.
    """

    def __init__(self, server: RunningServer, delay_s: float, workers_delay_s: float | None = None) -> None:
        self.address = f"{HOST}:{server.port}"
        self.connections: list[int] = []  # the port of each that was made
        self.questions = 0  # how often a client has said something since it heard something
        self._speaks = threading.Event()
        self._speaks.set()
        self._sockets: list[socket.socket] = []
        delays = dict.fromkeys(server.ports, delay_s if workers_delay_s is None else workers_delay_s)
        for port, delay in {server.port: delay_s, **delays}.items():
            listener = socket.create_server((HOST, port))
            self._sockets.append(listener)
            _start(self._accept, listener, port, delay)

    def be_silent(self) -> None:
        """From now on nothing comes through; but no connection ends."""
        self._speaks.clear()

    def close(self) -> None:
        """End all connections."""
        self._speaks.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self, listener: socket.socket, port: int, delay_s: float) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:  # It is closed.
                return
            self.connections.append(port)
            self._sockets.append(here)
            _start(self._connect, here, port, delay_s)

    def _connect(self, here: socket.socket, port: int, delay_s: float) -> None:
        time.sleep(2 * delay_s)  # The connection itself goes there and back.
        self._speaks.wait()
        try:
            there = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:  # What was here has ended meanwhile.
            here.close()
            return
        self._sockets.append(there)
        talk = Talk()
        for source, target in ((here, there), (there, here)):
            under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            _start(self._take, source, under_way, delay_s, talk if source is here else None)
            _start(self._deliver, target, under_way, talk if target is here else None)

    def _take(
        self, source: socket.socket, under_way: queue.SimpleQueue, delay_s: float, talk: Talk | None
    ) -> None:
        data = b"something"
        while data:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            if data and talk is not None and talk.has_heard:
                talk.has_heard = False
                self.questions += 1
            under_way.put((time.monotonic() + delay_s, data))

    def _deliver(self, target: socket.socket, under_way: queue.SimpleQueue, talk: Talk | None) -> None:
        data = b"something"
        while data:
            due, data = under_way.get()
            time.sleep(max(due - time.monotonic(), 0))
            self._speaks.wait()
            if talk is not None:
                talk.has_heard = True
            try:
                target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
            except OSError:  # It has gone.
                return


def _start(step, *args) -> None:  # type: ignore[no-untyped-def]
    threading.Thread(target=step, args=args, daemon=True).start()


@contextlib.contextmanager
def far_away(
    server: RunningServer, delay_s: float, workers_delay_s: float | None = None
) -> Iterator[FarAway]:
    """The server as if it were that far away, for a while."""
    network = FarAway(server, delay_s, workers_delay_s)
    try:
        yield network
    finally:
        network.close()
