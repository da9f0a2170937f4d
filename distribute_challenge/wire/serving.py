"""A connection that is served: an `rpyc.Connection`, and a short way past it for calls of exposed methods.

These come by name, or by a reference that the peer holds.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.core import brine, consts, vinegar
from rpyc.lib import get_id_pack

from distribute_challenge.wire.frames import FrameChannel
from distribute_challenge.wire.messages import EXCEPTION, REPLY, REQUEST, MethodCall, value_content

log = logging.getLogger(__name__)

_REFUSING_S = 2.0

# No attribute but the exposed calls, and nothing unpickled on a peer's word. A server asks its peer for
# nothing but a goodbye, and does not wait long for that.
SERVER_CONFIG = {
    "allow_safe_attrs": False,
    "allow_pickle": False,
    "propagate_KeyboardInterrupt_locally": False,
    "sync_request_timeout": 1,
    "include_local_traceback": False,
}


class Served:
    """One peer and the service that it is given."""

    def __init__(self, channel: FrameChannel, service: rpyc.Service, config: dict[str, Any]) -> None:
        self.channel, self.service = channel, service
        self._shows_traceback = bool(config.get("include_local_traceback"))
        self._methods: list[tuple[MethodCall, Callable[..., Any]]] = []  # the one called last first
        for name in dir(service):
            if name.startswith("exposed_"):
                method = getattr(service, name)
                setattr(service, name, method)  # So that each look-up finds this same object.
                by_name = MethodCall(name.removeprefix("exposed_"))
                self._methods += [(by_name, method), (MethodCall(get_id_pack(method)), method)]
        self._connection = rpyc.connect_channel(channel, service=service, config=config)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return bool(self._connection.closed)

    def next_call(self) -> str | None:
        """The method that the next message calls, "" for another message, None if none has arrived whole.

        EOFError at the end of the connection.
        """
        if not self.channel.has_frame():
            return None
        data = self.channel.recv()
        self.channel.put_back(data)
        for call, method in self._methods:
            if call.read(data) is not None:
                return method.__name__.removeprefix("exposed_")
        return ""

    def serve(self) -> None:
        """Take in one message, and answer it. Waits for it. EOFError at the end of the connection."""
        data = self.channel.recv()
        if data[:1] != REQUEST or not self._call_held(data):
            self.channel.put_back(data)
            self._connection.serve(None)

    def serve_all(self) -> None:
        """Take in messages until the connection ends."""
        while not self.closed:
            self.serve()

    def close(self) -> None:
        """End the connection at once, and let the service know."""
        self.channel.close()  # First: closing the connection then says no goodbye, and waits for none.
        self._connection.close()
        self._methods.clear()

    def _call_held(self, data: bytes) -> bool:
        """Do what a message asks for, if it is a call of a held method; whether it was one."""
        for place, (call, method) in enumerate(self._methods):  # noqa: B007  It is used below.
            if (found := call.read(data)) is not None:
                break
        else:
            return False
        number, args = found
        if place:
            self._methods.insert(0, self._methods.pop(place))
        try:
            kind, content = REPLY, value_content(method(*args))
        except BaseException:  # As RPyC has it: whatever that is, it is the caller's.
            exception = vinegar.dump(
                *sys.exc_info(), include_local_traceback=self._shows_traceback, include_local_version=True
            )
            kind, content = EXCEPTION, (brine.dump(exception),)
        self.channel.send(b"".join((kind, number, *content)))
        return True


def refuse(channel: FrameChannel, reason: str) -> None:
    """Answer the first request with a RuntimeError, wait for the peer to leave, and end the connection."""
    try:
        if channel.poll(_REFUSING_S):
            number, (handler, _) = brine.load(channel.recv()[1:])
            if handler == consts.HANDLE_CLOSE:
                return
            error = vinegar.dump(RuntimeError, RuntimeError(reason), None, False, False)
            channel.send(EXCEPTION + brine.dump((number, error)))
        while channel.poll(_REFUSING_S):  # Closed with something unread, it would take the answer along.
            channel.recv()
    except Exception as end:
        log.debug("a peer that was refused has gone: %s", end)
    finally:
        channel.close()
