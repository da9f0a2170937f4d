"""RPyC connections: settings, and those that we make.

Everything here is built on RPyC's public extension points (Stream, Channel, `connect_channel`, config). It
refuses to know what is called over a connection.
"""

from __future__ import annotations

import socket
from typing import Any

import rpyc

from distribute_challenge.address import Address
from distribute_challenge.tls import Tls
from distribute_challenge.wire.stream import GIBI, KIBI, FrameChannel
from distribute_challenge.wire.tls import encrypt, stream_over

CONNECT_TIMEOUT_S = 10.0

# Both sides: no attribute but the exposed calls, and nothing unpickled on a peer's word.
_STRICT = {"allow_safe_attrs": False, "allow_pickle": False, "propagate_KeyboardInterrupt_locally": False}

# What a client asks and waits for is answered at once, or the peer is not well. (Calls that may take any
# time, those that wait for a worker or run a function, are made with `rpyc.async_`, which has no limit.)
CLIENT_CONFIG = {**_STRICT, "sync_request_timeout": CONNECT_TIMEOUT_S}

# A server asks its peer for nothing but a goodbye, and does not wait long for that.
SERVER_CONFIG = {**_STRICT, "sync_request_timeout": 1, "include_local_traceback": False}


class Answer:
    """What a call that was sent will give."""

    __slots__ = ("_result", "is_here")

    def __init__(self, result: rpyc.AsyncResult) -> None:
        self.is_here = False
        self._result = result
        result.add_callback(self._arrive)

    @property
    def value(self) -> Any:
        """The value, waited for; or what the call raised is raised. EOFError if the connection ends."""
        return self._result.value

    def _arrive(self, result: rpyc.AsyncResult) -> None:
        del result
        self.is_here = True


class Link:
    """A connection that we made: `root` calls the peer's exposed methods.

    Raises OSError if there is nothing to connect to. With TLS, also what `encrypt` raises.
    """

    def __init__(self, address: Address, tls: Tls | None = None, max_frame_bytes: int = 4 * GIBI) -> None:
        sock = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
        stream = stream_over(sock if tls is None else encrypt(sock, address.host, tls))
        self._socket = stream.sock
        self._max_frame_bytes = max_frame_bytes
        self._channel = FrameChannel(stream, 64 * KIBI)
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        self._connection = rpyc.connect_channel(self._channel, config=CLIENT_CONFIG)

    def trust(self) -> None:
        """From now on frames may be large and answers take any time: the peer has shown what it is.

        Who knows what listens at an address? What speaks another protocol may claim anything, and go quiet.
        """
        self._channel.max_frame_bytes = self._max_frame_bytes
        self._socket.settimeout(None)

    @property
    def root(self) -> Any:
        """The peer's service. Hold the methods taken from it: each look-up is a round trip."""
        return self._connection.root

    @property
    def has_heard(self) -> bool:
        """Whether the peer has said anything."""
        return bool(self._channel.stream.has_heard)

    @property
    def closed(self) -> bool:
        """Whether the connection is known to have ended."""
        return bool(self._channel.closed)

    def fileno(self) -> int:
        """The socket's descriptor, to be polled."""
        return int(self._socket.fileno())

    def serve(self, timeout_s: float | None) -> bool:
        """Take in one message; False if none came within `timeout_s` seconds. EOFError at the end."""
        return bool(self._connection.serve(timeout_s))

    def serve_arrived(self) -> None:
        """Take in all messages that have arrived whole. EOFError at the end of the connection."""
        while self._channel.has_frame():
            self._connection.serve(0)

    def never_wait(self) -> None:
        """From now on what is sent may be kept here, until `flush`."""
        self._channel.stream.never_wait()

    def wait_again(self) -> None:
        """The opposite of `never_wait`."""
        self._channel.stream.wait_again()

    def flush(self) -> bool:
        """Send what was kept; whether all of it has gone. EOFError if the peer has gone."""
        return bool(self._channel.stream.flush())

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._channel.stream.has_unsent)

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing arrived unasked, the end of the connection included."""
        try:
            return not self.closed and not self._channel.poll(0)
        except (OSError, ValueError):  # Closed under our hands, as in a forked child.
            return False

    def close(self) -> None:
        """Close at once. (Closing the RPyC connection alone would wait for a peer that is busy.)"""
        self._channel.close()
        self._connection.close()
