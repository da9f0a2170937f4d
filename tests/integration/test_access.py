"""Who is let in: the user who started the server, and nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge import AccessDenied, PoolExecutor, compute_this
from distribute_challenge.address import Address
from distribute_challenge.wire import access
from distribute_challenge.wire.access import check_owner
from tests.running import HANG_S, ROOT, RunningServer, eventually

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

# It becomes another user after it has loaded what it needs.
INTRUDER = f"""
import os, sys, rpyc
"x".encode("idna")
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    print(getattr(rpyc.connect("127.0.0.1", int(sys.argv[1])).root, sys.argv[2])(*sys.argv[3:]))
except (EOFError, ConnectionResetError):
    print("refused")
"""

# All that is needed is sent at once, and the connection closed before the server can look whose it is.
HASTY_INTRUDER = f"""
import contextlib, os, sys, socket, rpyc
from rpyc.core import brine, consts
"x".encode("idna")
os.setgid({NOBODY})
os.setuid({NOBODY})
for _ in range(20):
    # The server may be quicker, and have closed it.
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    with peer as sock, contextlib.suppress(EOFError, OSError):
        channel = rpyc.Channel(rpyc.SocketStream(sock), compress=False)
        channel.send(brine.dump((consts.MSG_REQUEST, 1, (consts.HANDLE_GETROOT, ()))))
        call = (consts.HANDLE_CALLATTR, ((4, ("", 0, 0)), (1, "find_free_worker"), (1, ()), (1, ())))
        channel.send(brine.dump((consts.MSG_REQUEST, 2, call)))
print("sent")
"""


# With our own client, which says why.
DENIED = f"""
import os, sys
from distribute_challenge import AccessDenied, compute_this
import distribute_challenge.client.executors, distribute_challenge.client.running.engine
"x".encode("idna")
call = compute_this(server="127.0.0.1:" + sys.argv[1])(divmod)(7, 3)
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    call.run()
except AccessDenied as error:
    print(error)
"""


# Somebody else's server, in place of the true one: it listens, and says that it is up.
SQUATTER = f"""
import os, socket, sys
os.setgid({NOBODY})
os.setuid({NOBODY})
host, port, how = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
listener = socket.create_server((host, int(port)), family=family)
print(listener.getsockname()[1], flush=True)
while how == "accepts":
    sock, _ = listener.accept()
    print(len(sock.recv(1000)), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def squatting(host: str, port: int, how: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process of another user that listens somewhere; its port."""
    command = [sys.executable, "-c", SQUATTER, host, str(port), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


@as_root
@pytest.mark.parametrize("how", ["accepts", "never accepts"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nothing_is_sent_to_another_users_server(host: str, how: str):
    with squatting(host, 0, how) as (port, process):
        address = str(Address(host, port))
        with pytest.raises(
            AccessDenied, match=f"nothing was sent to .* belongs to the user with the number {NOBODY}"
        ):
            compute_this(server=address)(divmod)(7, 3).run()
        with PoolExecutor(address) as pool:
            assert isinstance(pool.submit(divmod, 7, 3).exception(HANG_S), AccessDenied)
        if how == "accepts":
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"  # So many bytes came.


@as_root
def test_a_server_is_known_by_the_address_on_which_it_answered(server: RunningServer):
    """Its workers have that address, too: somebody else may have the other one that localhost means."""
    assert compute_this(server=f"localhost:{server.port}")(divmod)(7, 3).run() == (2, 1)
    with contextlib.ExitStack() as squatters:
        for port in server.ports:
            squatters.enter_context(squatting("::1", port, "accepts"))
        with PoolExecutor(f"localhost:{server.port}") as pool:
            assert list(pool.map(divmod, [7, 8], [3, 3])) == [(2, 1), (2, 2)]


@as_root
def test_another_users_server_is_trusted_if_the_program_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMPUTE_ALLOW_ANY_LOCAL_USER", "1")
    with squatting("127.0.0.1", 0, "accepts") as (port, process):
        calling = threading.Thread(
            target=lambda: compute_this(server=f"127.0.0.1:{port}")(divmod)(7, 3).submit(), daemon=True
        )
        calling.start()
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0  # It got the first message.


def test_a_server_elsewhere_is_not_trusted_without_tls():
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip(f"this machine has no other address than {own}")
    with (
        socket.create_server((own, 0)) as listener,
        pytest.raises(AccessDenied, match=r"is no loopback address.*use TLS"),
    ):
        compute_this(server=f"{own}:{listener.getsockname()[1]}")(divmod)(7, 3).run()


def intrude(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, check=True, env=environment
    )
    return result.stdout.strip()


@as_root
def test_another_user_is_refused_by_the_server_and_by_workers(server: RunningServer):
    assert intrude(INTRUDER, server.port, "find_free_worker") == "refused"
    assert intrude(INTRUDER, server.port, "status") == "refused"
    assert intrude(INTRUDER, server.ports[0], "run_code", "result = 1") == "refused"
    assert server.status()["busy"] == [0, 0]
    log = server.stderr()
    assert "belongs to the user with the number 65534" in log
    assert log.count("refused 127.0.0.1") == 1  # The server says it once a minute.


@as_root
def test_our_client_tells_another_user_so(server: RunningServer):
    message = intrude(DENIED, server.port)
    assert f"the server at 127.0.0.1:{server.port} closed the connection before any answer" in message
    assert "It lets in only the user who started it" in message
    assert "\n" not in message


@as_root
def test_another_user_who_sends_and_closes_at_once_is_refused_too(start_server: Callable[..., RunningServer]):
    server = start_server(2, "-v")
    assert intrude(HASTY_INTRUDER, server.port) == "sent"
    words = re.compile(r"refused 127\.0\.0\.1|closed before it could be told whose it is")
    eventually(lambda: words.search(server.stderr()), "they are refused")
    assert server.status()["busy"] == [0, 0]
    assert [row["Event"] for row in server.rows()] == ["start"]


@as_root
def test_everybody_on_this_machine_is_let_in_if_the_server_is_told_so(
    start_server: Callable[..., RunningServer],
):
    server = start_server(1, "--allow-any-local-user")
    assert intrude(INTRUDER, server.port, "find_free_worker") == str(server.ports[0])
    server.await_events("start", "acquire", "lost", "replaced")
    assert intrude(INTRUDER, server.ports[0], "run_code", "result = 1") == "1"


def test_an_end_that_belongs_to_nobody_is_nobodys(monkeypatch: pytest.MonkeyPatch):
    """The kernel names user 0 then, who may be the one who asks."""
    established, nobodys = 1, 0
    monkeypatch.setattr(access, "look_up", lambda *_: (established, os.getuid(), nobodys))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        with pytest.raises(AuthenticationError, match="closed before"):
            check_owner(accepted)
        with pytest.raises(EOFError, match="closed before"):
            access.check_listener(client)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_our_own_connection_is_let_in_while_it_is_open(family: int):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no {host} on this machine: {error}")
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with accepted:
            assert check_owner(accepted) == (accepted, os.getuid())
            client.sendall(b"more")
            client.close()
            with pytest.raises(AuthenticationError, match="closed before"):
                check_owner(accepted)
