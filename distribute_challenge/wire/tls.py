"""Mutual TLS for RPyC connections: who is admitted, how clients connect, and the stream over an SSL socket.

Certificates are checked by `ssl` and RPyC's own authenticator; nothing here does any cryptography.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from rpyc.lib import Timeout
from rpyc.utils.authenticators import AuthenticationError, SSLAuthenticator

from distribute_challenge.tls import Tls
from distribute_challenge.wire.access import Authenticator, check_loopback, check_owner
from distribute_challenge.wire.stream import KIBI, TICK_S, SocketStream

HANDSHAKE_S = 5.0
_RECORD_BYTES = 16 * KIBI  # OpenSSL gives no more at once.

T = TypeVar("T")


class CertificateAuthenticator(SSLAuthenticator):
    """RPyC's authenticator: lets in who has a certificate of the CA. A slow handshake is refused."""

    def __init__(self, tls: Tls) -> None:
        super().__init__(tls.key, tls.cert, ca_certs=tls.ca, cert_reqs=ssl.CERT_REQUIRED)

    def __call__(self, sock: socket.socket) -> tuple[ssl.SSLSocket, Any]:
        """The encrypted socket, and the other end's certificate. Raises AuthenticationError or OSError."""
        sock.settimeout(HANDSHAKE_S)  # For all of the handshake: who dribbles gains nothing.
        try:
            return cast(tuple[ssl.SSLSocket, Any], super().__call__(sock))
        except TimeoutError:
            raise AuthenticationError(f"no TLS handshake within {HANDSHAKE_S:g} s") from None


def authenticator(tls: Tls | None, *, any_local_user: bool = False) -> Authenticator:
    """The authenticator: with TLS by certificate; else this user, or any user of this machine."""
    if tls is not None:
        return CertificateAuthenticator(tls)
    return check_loopback if any_local_user else check_owner


def encrypt(sock: socket.socket, host: str, tls: Tls) -> ssl.SSLSocket:
    """A client's connection to `host`, encrypted, once its certificate has proved that this is `host`.

    Raises ssl.SSLError if it does not, EOFError if the peer closed the connection, TimeoutError; PoolError
    if our own certificate is of no use.
    """
    try:
        return tls.client_context().wrap_socket(sock, server_hostname=host)
    except (ssl.SSLEOFError, ConnectionError) as error:
        raise EOFError(f"closed in the middle of the TLS handshake: {error}") from None
    finally:
        sock.close()  # The encrypted socket has taken its descriptor over, unless this failed.


def stream_over(sock: socket.socket) -> SocketStream:
    """The stream for a socket, encrypted or not."""
    return TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else SocketStream(sock)


class TlsSocket:
    """An SSL socket that can do what streams ask of plain ones: flags, `sendmsg`, use by several threads.

    OpenSSL takes one call at a time. So no call waits inside of it: those that cannot go on wait outside,
    for what OpenSSL wants, which may be to read while we write.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._lock = threading.RLock()  # guards OpenSSL's state; again from within, when garbage is collected
        self.wait_s: float | None = None  # how long a `recv` may wait
        self.family = sock.family
        self.close, self.fileno = sock.close, sock.fileno
        self.setsockopt, self.getsockopt = sock.setsockopt, sock.getsockopt

    def settimeout(self, timeout_s: float | None) -> None:
        """Have no call wait in OpenSSL, whatever the limit: those that wait do so outside."""
        del timeout_s
        self._sock.setblocking(False)

    def recv(self, count: int, flags: int = 0) -> bytes:
        """At least one byte and at most `count`; none at the end. MSG_WAITALL asks for what may be less.

        BlockingIOError if there is nothing within `wait_s`, or with MSG_DONTWAIT at once.
        """
        return self._do(lambda: self._sock.recv(min(count, _RECORD_BYTES)), flags, self.wait_s)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        self.sendmsg([data])

    def sendmsg(
        self, parts: Iterable[bytes | memoryview], ancillary: Iterable[Any] = (), flags: int = 0
    ) -> int:
        """Send all of all parts; how many bytes that were. With MSG_DONTWAIT, as many as can go at once."""
        del ancillary
        sent = 0
        for part in parts:
            rest = memoryview(part)
            while rest:
                try:
                    count = self._do(functools.partial(self._sock.send, rest), flags)
                except BlockingIOError:
                    if sent:
                        return sent
                    raise
                rest = rest[count:]
                sent += count
        return sent

    def shutdown(self, how: int) -> None:
        """End the connection below TLS. (An SSL socket would take to plain text then.)"""
        socket.socket.shutdown(self._sock, how)

    def _do(self, step: Callable[[], T], flags: int, wait_s: float | None = None) -> T:
        timeout = Timeout(0 if flags & socket.MSG_DONTWAIT else wait_s)
        while True:
            descriptor = self.fileno()
            # In a forked child it is closed, and the lock may be held by a thread that is not there.
            if descriptor < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                with self._lock:
                    return step()
            except ssl.SSLWantReadError:
                event = select.POLLIN
            except ssl.SSLWantWriteError:
                event = select.POLLOUT
            poller = select.poll()
            poller.register(descriptor, event)
            if timeout.expired() or not poller.poll(timeout.timeleft() * 1000 if timeout.finite else None):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class TlsStream(SocketStream):
    """A stream over an SSL socket."""

    __slots__ = ()

    can_spin = False  # TLS takes longer.

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(cast(socket.socket, TlsSocket(sock)))  # As far as streams use it, it is one.

    def wait_in_ticks(self) -> None:
        """From now on no read waits longer than TICK_S."""
        self.sock.wait_s = TICK_S
