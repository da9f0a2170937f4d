"""Bytes: RPyC's socket stream, with other reads and writes. What they mean is `frames.py`'s business."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import socket
import struct
import sys
import weakref
from collections import deque

import rpyc

KIBI = 1 << 10
MEBI = 1 << 20
GIBI = 1 << 30

TICK_S = 0.1
_READ_AHEAD = 32 * KIBI
_MAX_PARTS = 256  # that go to the system at once; it takes 1024
_TCP_NOTSENT_LOWAT = 25  # In Linux; the socket module does not have it everywhere.
_SIOCOUTQNSD = 0x894B  # in Linux
_TIMEVAL = struct.Struct("@ll")  # of the C library

GONE_S = 60.0  # An end whose system has not answered for so long is gone. (One that is closed shows at once.)
_PROBE_AFTER_S, _PROBE_EVERY_S, _PROBES = 30, 10, 3  # while nothing is sent
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18)
# Probes, and packets, without an answer; milliseconds since the last one.
_TCP_INFO = struct.Struct("=3xB20xI28xI")

_open_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def not_for_children(sock: socket.socket) -> None:
    """Have a forked child close its copy: while it did not, no peer would see the connection end."""
    _open_sockets.add(sock)


def _close_inherited_sockets() -> None:
    for sock in list(_open_sockets):
        sock.close()


os.register_at_fork(after_in_child=_close_inherited_sockets)


class SocketStream(rpyc.SocketStream):
    """RPyC's socket stream with whole writes, which need not wait, and reads of whatever has arrived."""

    __slots__ = ("_is_patient", "_is_tcp", "_outbox", "_sent_poller")

    can_spin = hasattr(os, "sched_yield")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(None)
        self._is_tcp = sock.family != getattr(socket, "AF_UNIX", None)
        if self._is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                ("TCP_KEEPIDLE", _PROBE_AFTER_S),
                ("TCP_KEEPINTVL", _PROBE_EVERY_S),
                ("TCP_KEEPCNT", _PROBES),
            ):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._sent_poller: select.poll | None = None
        self._is_patient = True
        self._outbox: deque[bytes | memoryview] = deque()
        not_for_children(sock)

    # Whether the other end is there. The system's probes run while nothing is sent; without what follows, a
    # connection over which something was sent that gets no answer would last for a quarter of an hour.

    def end_if_not_taken(self) -> None:
        """Have the connection end if the peer does not take what is sent for GONE_S.

        Only for a peer that always reads: one that is stopped, or busy, is as good as gone to this.
        """
        if self._is_tcp:
            with contextlib.suppress(OSError):  # Not every system has it.
                self.sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(GONE_S * 1000))

    def is_peer_gone(self) -> bool:
        """Whether the peer's system has not answered for GONE_S, although something was sent to it.

        That of a peer which is stopped, or busy, does answer.
        """
        _, packets, silent_s = self._unanswered()
        return bool(packets and silent_s >= GONE_S)

    def is_peer_silent(self) -> bool:
        """Whether the peer's system has not answered a probe for some time: it may be gone before long."""
        probes, _, silent_s = self._unanswered()
        return bool(probes and silent_s >= _PROBE_AFTER_S + _PROBE_EVERY_S)

    def _unanswered(self) -> tuple[int, int, float]:
        """How many probes and packets have no answer, and the seconds since the last one."""
        if not self._is_tcp or not hasattr(socket, "TCP_INFO"):
            return 0, 0, 0.0
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:  # It was closed: reading tells.
            return 0, 0, 0.0
        probes, packets, silent_ms = _TCP_INFO.unpack(info)
        return probes, packets, silent_ms / 1000

    # Reading

    def wait_in_ticks(self) -> None:
        """From now on no read waits longer than TICK_S."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, int(TICK_S * 1e6)))

    def receive(self, wanted: int, flags: int = 0) -> bytes | None:
        """Wait for data; all that has arrived, or of a large message at most `wanted` bytes.

        None if nothing came within a tick, or with MSG_DONTWAIT at once. EOFError at the connection's end.
        """
        if wanted <= _READ_AHEAD:
            wanted = _READ_AHEAD
        elif flags:
            wanted = min(wanted, MEBI)
        else:  # The kernel fills one buffer as far as it can: memory that a lie claims is not touched.
            flags = socket.MSG_WAITALL
        try:
            data: bytes = self.sock.recv(wanted, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError(f"connection lost: {error}") from None
        if not data:
            raise EOFError("connection closed by peer")
        return data

    # Writing

    def never_wait(self) -> None:
        """From now on what is written is kept for `flush`."""
        self._is_patient = False

    def wait_again(self) -> None:
        """The opposite of `never_wait`. EOFError if something was kept and the peer has gone."""
        self._is_patient = True
        while self._outbox:
            self.write(self._outbox.popleft())

    def write(self, *parts: bytes | memoryview) -> None:
        """All parts, one after another. EOFError if the peer has gone; what it had sent can still be read."""
        if not self._is_patient:
            self._outbox.extend(parts)
            return
        try:
            if len(parts) == 1:
                self.sock.sendall(parts[0])
                return
            sent = self.sock.sendmsg(parts)
        except OSError as error:
            raise EOFError(f"connection lost: {error}") from None
        if sent < sum(map(len, parts)):  # Only a signal in between stops it early.
            self.write(b"".join(parts)[sent:])

    def flush(self) -> bool:
        """Send what was kept; whether all of it has gone. EOFError if the peer has gone."""
        outbox = self._outbox
        while outbox:
            parts = list(itertools.islice(outbox, _MAX_PARTS))
            try:
                sent = self.sock.sendmsg(parts, (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError as error:
                raise EOFError(f"connection lost: {error}") from None
            for part in parts:
                if sent < len(part):
                    outbox[0] = memoryview(part)[sent:]
                    break
                sent -= len(part)
                outbox.popleft()
        return True

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._outbox)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait for `flush`, or in the system to be sent, as far as it tells."""
        queued = bytearray(4)
        with contextlib.suppress(OSError, EOFError):  # Not every system has it; or the connection is closed.
            fcntl.ioctl(self.sock.fileno(), _SIOCOUTQNSD, queued)
        return int.from_bytes(queued, sys.byteorder) + sum(memoryview(part).nbytes for part in self._outbox)

    def is_sent(self, wait_ms: float | None = 0) -> bool:
        """Whether all that was written is with the peer's system, within so many milliseconds; None: wait.

        If our end comes before, it takes the rest away.
        """
        if self._sent_poller is None:
            with contextlib.suppress(OSError):  # Where there is no such option, answers may be lost.
                # Writable then means: all is sent.
                self.sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 1)
            self._sent_poller = select.poll()
            self._sent_poller.register(self.sock, select.POLLOUT)
        return bool(self._sent_poller.poll(wait_ms))
