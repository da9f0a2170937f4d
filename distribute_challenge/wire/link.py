"""A connection that we make: it calls the methods of the peer's service, and lets the peer call nothing.

Methods are called by name, without asking for a reference first: on a slow network each question takes as
long as a function. So the peer must be a `Served` one.

A link belongs to one thread at a time.
"""

from __future__ import annotations

import itertools
import logging
import select
import socket
import time
from typing import Any

from rpyc.core import brine, consts, vinegar

from distribute_challenge.address import Address
from distribute_challenge.wire.access import Trust, check_listener, check_loopback
from distribute_challenge.wire.frames import FrameChannel, Garbled
from distribute_challenge.wire.messages import (
    EXCEPTION,
    FIRST_NUMBER,
    REQUEST,
    MethodCall,
    load_reply,
    number_part,
)
from distribute_challenge.wire.stream import GIBI, KIBI, TICK_S
from distribute_challenge.wire.tls import encrypt, stream_over

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0  # of a look-up; `ask` has no limit

_PING = brine.dump((consts.HANDLE_PING, (consts.LABEL_TUPLE, ((consts.LABEL_VALUE, b""),))))

NO_OTHERS = Trust()


class Refused(EOFError):
    """The peer takes no more connections, for the reason that it gives."""


class Answer:
    """The reply to a call that was sent, once it is here."""

    __slots__ = ("_link", "content", "is_error", "is_here")

    def __init__(self, link: Link) -> None:
        self.is_here = self.is_error = False
        self.content: Any = None  # as RPyC has it
        self._link = link

    @property
    def value(self) -> Any:
        """The value, waited for; or what the call raised is raised. EOFError if the connection ends."""
        while not self.is_here:
            self._link.serve()
        if self.is_error:
            raise _exception(self.content)
        label, value = self.content
        if label != consts.LABEL_VALUE:
            raise TypeError("the peer answered with a reference, and not with a value")
        return value


class Link:
    """A connection to the RPyC service at an address, or at `host`, which is then one of its addresses.

    Raises OSError or EOFError if there is none; AuthenticationError, before anything is sent, if it is not
    to be trusted. With TLS, also what `encrypt` raises. A peer that speaks another protocol, or does not let
    us in, ends the link when something is waited for.
    """

    def __init__(self, address: Address, trust: Trust = NO_OTHERS, host: str | None = None) -> None:
        try:
            sock = socket.create_connection((host or address.host, address.port), timeout=ANSWER_TIMEOUT_S)
        except socket.gaierror:
            socket.socket().close()  # Raises another error if the name is unknown for want of descriptors.
            raise
        self.host: str = sock.getpeername()[0]  # the address that answered
        if trust.tls is not None:
            sock = encrypt(sock, address.host, trust.tls)
        else:
            try:
                check_loopback(sock) if trust.any_local_user else check_listener(sock)
            except BaseException:
                sock.close()
                raise
        self._stream = stream_over(sock)
        self._socket = self._stream.sock
        self._channel = FrameChannel(self._stream, 4 * GIBI, first_frame_bytes=64 * KIBI)
        self.never_wait, self.wait_again = self._stream.never_wait, self._stream.wait_again
        self.flush, self.wait_in_ticks = self._stream.flush, self._stream.wait_in_ticks
        self.end_if_not_taken, self.is_silent = self._stream.end_if_not_taken, self._stream.is_peer_silent
        self._numbers = itertools.count(FIRST_NUMBER)
        # By their numbers, as they are written. Of those not waited for it is the method's name.
        self._answers: dict[bytes, Answer | str] = {}
        self.has_heard = False  # whether the peer has said anything
        self._made_at = time.monotonic()
        # The first answer is a small one: see `FrameReader`.
        number = number_part(next(self._numbers))
        self._greeting = self._answers[number] = Answer(self)
        try:
            self._channel.send(REQUEST + number + _PING)
        except BaseException:
            self.close()
            raise

    def hear(self) -> None:
        """Wait for the first answer, which shows what the peer is. EOFError or TimeoutError if none comes."""
        self.wait(self._greeting)

    def is_stuck(self, now: float) -> bool:
        """Whether the peer has failed, as far as that shows while an answer that may take long is awaited."""
        if not self.has_heard and now - self._made_at > ANSWER_TIMEOUT_S:
            return True
        return self._stream.is_peer_gone()

    def ask(self, method: MethodCall, *args: Any) -> Answer:
        """Send a call, of plain values. EOFError if the connection has ended."""
        answer = Answer(self)
        self._call(answer, method, args)
        return answer

    def tell(self, method: MethodCall, *args: Any) -> None:
        """Send a call whose answer holds nothing; that it was refused is logged."""
        self._call(method.reference, method, args)

    def call(self, method: MethodCall, *args: Any) -> Any:
        """Make a call that is answered at once. EOFError, or TimeoutError, if it is not."""
        answer = self.ask(method, *args)
        self.wait(answer)
        return answer.value

    def wait(self, answer: Answer, limit_s: float | None = None) -> None:
        """Wait for an answer, by default ANSWER_TIMEOUT_S. TimeoutError; EOFError if the peer has gone."""
        limit_s = ANSWER_TIMEOUT_S if limit_s is None else limit_s
        deadline = time.monotonic() + limit_s
        while not answer.is_here:
            if not self._channel.poll(max(deadline - time.monotonic(), 0)):
                raise TimeoutError(f"no answer within {limit_s:g} s")
            self._take(self._channel.recv())

    @property
    def closed(self) -> bool:
        """Whether the connection is known to have ended."""
        return bool(self._channel.closed)

    def fileno(self) -> int:
        """The socket's descriptor, to be polled; -1 once it is closed."""
        return int(self._socket.fileno())

    def serve(self) -> None:
        """Take in one message, waited for. EOFError at the end of the connection."""
        self._channel.spin()
        self._take(self._channel.recv())

    def serve_for_a_tick(self, wait_s: float = TICK_S) -> bool:
        """Take in what has arrived whole; False if nothing came within TICK_S. EOFError at the end.

        It waits not longer than `wait_s`. Only after `wait_in_ticks`.
        """
        if not self._channel.tick(wait_s):
            return False
        for message in self._channel.taken_in():
            self._take(message)
        return True

    def serve_arrived(self) -> None:
        """Take in all messages that have arrived whole. EOFError at the end of the connection."""
        for message in self._channel.recv_arrived():
            self._take(message)
        if self._channel.closed:  # The end has come together with the last messages.
            raise EOFError("connection closed by peer")

    def flush_for_a_tick(self, wait_s: float) -> bool:
        """Send what was kept, as far as the peer takes it within TICK_S, or `wait_s` if that is less.

        Whether all of it has gone.
        """
        if not self.flush():
            poller = select.poll()
            poller.register(self, select.POLLOUT)
            poller.poll(max(min(wait_s, TICK_S), 0) * 1000)
        return not self.has_unsent or self.flush()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for `flush`."""
        return self._stream.has_unsent

    @property
    def unsent_bytes(self) -> int:
        """How many bytes have not left this system yet, as far as it tells."""
        return self._stream.unsent_bytes

    def is_quiet(self) -> bool:
        """Whether the connection is open, and nothing arrived unasked: the end of the connection, say."""
        try:
            self.serve_arrived()  # Answers that nobody waited for, perhaps.
            return True
        except (EOFError, OSError, ValueError):  # Closed under our hands, as in a forked child.
            return False

    def close(self) -> None:
        """Close at once, without a goodbye, which would wait for a peer that is busy."""
        self._channel.close()

    def _call(self, answer: Answer | str, method: MethodCall, args: tuple[Any, ...]) -> None:
        number, message = method.request(next(self._numbers), args)
        self._answers[number] = answer
        self._channel.send(message)

    def _take(self, data: bytes) -> None:
        self.has_heard = True
        kind, refusal = data[:1], None
        if kind == REQUEST:  # The peer says goodbye; there is nothing else that it may ask for.
            self.close()
            raise EOFError("connection closed by peer")
        try:
            number, content = load_reply(data)
            answer = self._answers.pop(number)
            if kind == EXCEPTION and not isinstance(answer, Answer):
                refusal = _exception(content)
        except Exception as error:
            self.close()
            raise Garbled(f"the peer sent what no RPyC peer sends ({error!r})") from error
        if answer is self._greeting and kind == EXCEPTION:
            self.close()
            raise Refused(*_exception(content).args)
        if isinstance(answer, Answer):
            answer.content, answer.is_error, answer.is_here = content, kind == EXCEPTION, True
        elif refusal is not None:
            log.warning("%s was refused: %s", answer, refusal)


def _exception(content: Any) -> BaseException:
    """The exception that the peer raised, if it is of a built-in type."""
    error = vinegar.load(
        content,
        import_custom_exceptions=False,
        instantiate_custom_exceptions=False,
        instantiate_oldstyle_exceptions=False,
    )
    return error if isinstance(error, BaseException) else RuntimeError(f"the peer raised {error!r}")
