"""Our side of RPyC's protocol, against RPyC's own, both ways."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import rpyc
from rpyc.core import brine, consts
from rpyc.utils.server import ThreadedServer

from distribute_challenge.address import Address
from distribute_challenge.wire.acceptor import Acceptor
from distribute_challenge.wire.link import Link
from distribute_challenge.wire.messages import FIRST_NUMBER, REPLY, MethodCall
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


def plain_server() -> ThreadedServer:
    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    threading.Thread(target=server.start, daemon=True).start()
    eventually(lambda: server.active, "it listens")
    return server


@pytest.fixture(params=["plain RPyC", "ours"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "plain RPyC":
        server = plain_server()
        yield server.port
        server.close()
        return
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
    add, give = link.method("add"), link.method("give")
    assert link.call(add, 1) == 11
    assert link.call(add, "a", "b") == "ab"
    assert link.call(give, "nothing") is None
    assert link.call(give, "values") == (1, 2.5, "text", b"bytes", (None, frozenset({1})))
    link.trust()
    assert link.call(add, b"x" * 100_000, b"y") == b"x" * 100_000 + b"y"


def test_calls_that_were_sent_together_are_answered_each(link: Link):
    add = link.method("add")
    answers = [link.ask(add, number) for number in range(300)]
    link.tell(add, 5)
    assert [answer.value for answer in answers] == [number + 10 for number in range(300)]
    assert link.call(add, 1) == 11


def test_what_the_peer_raises_is_raised_here(link: Link, caplog: pytest.LogCaptureFixture):
    fail, leave = link.method("fail"), link.method("exit")
    with pytest.raises(ValueError, match="so it is"):
        link.call(fail, "so it is")
    with pytest.raises(SystemExit):
        link.call(leave)
    link.tell(fail, "nobody waits for this")
    assert link.call(link.method("add"), 1) == 11
    assert "fail was refused: nobody waits for this" in caplog.text


def test_there_are_only_exposed_methods(link: Link):
    for name in ("hidden", "missing", "__class__"):
        with pytest.raises(AttributeError):
            link.method(name)


def test_references_are_refused(port: int, link: Link, request: pytest.FixtureRequest):
    with pytest.raises(TypeError, match=r"reference|dump"):
        link.call(link.method("give"), "list")
    assert link.call(link.method("add"), 1) == 11


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
                link.method("add")
            assert link.closed


def test_a_peer_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distribute_challenge.wire.link.ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(Address(*listener.getsockname()))
        with pytest.raises(TimeoutError):
            link.method("add")
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
        answer = link.ask(MethodCall(("builtins.method", 1, 2)), 1)
        assert link.flush()
        there, _ = listener.accept()
        with there:
            there.recv(1000)
            message = REPLY + brine.dump((FIRST_NUMBER, (consts.LABEL_VALUE, 11)))
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
