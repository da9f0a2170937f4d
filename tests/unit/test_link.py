"""Our side of RPyC's protocol, against RPyC's own, both ways."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import rpyc
from rpyc.core import brine, consts
from rpyc.utils.server import ThreadedServer

from distribute_challenge.address import Address
from distribute_challenge.wire.acceptor import Acceptor
from distribute_challenge.wire.link import Link
from distribute_challenge.wire.messages import FIRST_NUMBER, REPLY, MethodCall
from distribute_challenge.wire.stream import SocketStream
from tests.running import HANG_S, eventually

# Stock RPyC's threads may fall over a connection that ends while they look at it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Service(rpyc.Service):
    def exposed_add(self, one, other=10):
        return one + other

    def exposed_give(self, what):
        return {"nothing": None, "values": (1, 2.5, "text", b"bytes", (None, frozenset({1}))), "list": [1]}[
            what
        ]

    def exposed_fail(self, text):
        raise ValueError(text)

    def exposed_exit(self):
        raise SystemExit(3)

    def hidden(self):
        return "secret"


ADD, GIVE, FAIL, EXIT = (MethodCall(name) for name in ("add", "give", "fail", "exit"))


@pytest.fixture
def port() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = Acceptor(listener, Service, max_frame_bytes=1 << 20)
    acceptor.start("accept")
    yield listener.getsockname()[1]
    acceptor.close()
    listener.close()


@pytest.fixture
def link(port: int) -> Iterator[Link]:
    link = Link(Address("127.0.0.1", port))
    yield link
    link.close()


def test_values_go_there_and_back(link: Link):
    assert link.call(ADD, 1) == 11
    assert link.call(ADD, "a", "b") == "ab"
    assert link.call(GIVE, "nothing") is None
    assert link.call(GIVE, "values") == (1, 2.5, "text", b"bytes", (None, frozenset({1})))


def test_the_first_answer_that_a_caller_sees_may_be_large(link: Link):
    assert link.call(ADD, b"x" * 100_000, b"y") == b"x" * 100_000 + b"y"


def test_calls_that_were_sent_together_are_answered_each(link: Link):
    answers = [link.ask(ADD, number) for number in range(300)]
    link.tell(ADD, 5)
    assert [answer.value for answer in answers] == [number + 10 for number in range(300)]
    assert link.call(ADD, 1) == 11


def test_what_the_peer_raises_is_raised_here(link: Link, caplog: pytest.LogCaptureFixture):
    with pytest.raises(ValueError, match="so it is"):
        link.call(FAIL, "so it is")
    with pytest.raises(SystemExit):
        link.call(EXIT)
    link.tell(FAIL, "nobody waits for this")
    assert link.call(ADD, 1) == 11
    assert "fail was refused: nobody waits for this" in caplog.text


def test_there_are_only_exposed_methods(link: Link):
    for name in ("hidden", "missing", "__class__", "exposed_add"):
        with pytest.raises(KeyError):
            link.call(MethodCall(name))
    assert link.call(ADD, 1) == 11


def test_references_are_refused(port: int, link: Link):
    with pytest.raises(TypeError, match=r"reference|dump"):
        link.call(GIVE, "list")
    assert link.call(ADD, 1) == 11


def test_stock_rpyc_knows_no_method_by_name_and_the_link_goes_on():
    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    threading.Thread(target=server.start, daemon=True).start()
    eventually(lambda: server.active, "it listens")
    link = Link(Address("127.0.0.1", server.port))
    for _ in range(2):
        with pytest.raises(KeyError):
            link.call(ADD, 1)
    link.close()
    server.close()


def test_a_plain_client_finds_all_of_rpyc(port: int):
    client = rpyc.connect("127.0.0.1", port)
    add = client.root.add
    assert (add(1), add(one=1, other=2), client.root.add(3), rpyc.async_(add)(4).value) == (11, 3, 13, 14)
    client.ping()
    with pytest.raises(ValueError, match="plainly"):
        client.root.fail("plainly")
    client.close()


@pytest.mark.parametrize(
    "message", [b"", b"\1", b"\2", b"\2junk", b"\2\x16\x50", b"\3\0", b"\7hello"], ids=repr
)
def test_a_peer_that_speaks_no_rpyc_ends_the_link(message: bytes):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Address(*listener.getsockname()))
        there, _ = listener.accept()
        with there:
            there.sendall(len(message).to_bytes(4, "big") + b"\0" + message + b"\n")
            with pytest.raises(EOFError):
                link.hear()
            assert link.closed


def test_a_peer_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distribute_challenge.wire.link.ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Address(*listener.getsockname()))
        with pytest.raises(TimeoutError):
            link.hear()
        with pytest.raises(TimeoutError):
            link.call(ADD, 1)
        assert link.is_stuck(time.monotonic())
        link.close()


def test_a_goodbye_is_the_end(port: int):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Address(*listener.getsockname()))
        there, _ = listener.accept()
        peer = rpyc.connect_stream(rpyc.SocketStream(there), config={"sync_request_timeout": 0.1})
        closing = threading.Thread(target=peer.close)
        closing.start()
        with pytest.raises(EOFError):
            link.serve()
        closing.join(HANG_S)
        assert not link.is_quiet()


def test_the_last_answer_and_the_end_may_come_together():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Address(*listener.getsockname()))
        link.never_wait()
        answer = link.ask(ADD, 1)
        assert link.flush()
        there, _ = listener.accept()
        with there:
            there.recv(1000)
            message = REPLY + brine.dump((FIRST_NUMBER + 1, (consts.LABEL_VALUE, 11)))
            there.sendall(len(message).to_bytes(4, "big") + b"\0" + message + b"\n")
        eventually(lambda: has_ended(link), "the end is told, too")
        assert answer.is_here
        assert answer.value == 11


def has_ended(link: Link) -> bool:
    try:
        link.serve_arrived()
    except EOFError:
        return True
    return False


def test_what_has_not_left_this_system_is_known():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    stream = SocketStream(here)
    with there:
        assert stream.unsent_bytes == 0
        stream.never_wait()
        stream.write(bytes(10 << 20))
        assert stream.unsent_bytes == 10 << 20
        while not stream.flush():
            assert 0 < stream.unsent_bytes <= 10 << 20
            there.recv(1 << 20)
        while stream.unsent_bytes:
            there.recv(1 << 20)
        stream.close()
    assert stream.unsent_bytes == 0
