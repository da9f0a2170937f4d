"""Who is let in: the user who started the server, and nobody else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from rpyc.utils.authenticators import AuthenticationError

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
import distribute_challenge.client.engine
"x".encode("idna")
call = compute_this(server="127.0.0.1:" + sys.argv[1])(divmod)(7, 3)
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    call.run()
except AccessDenied as error:
    print(error)
"""


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
def test_another_user_who_sends_and_closes_at_once_is_refused_too(server: RunningServer):
    assert intrude(HASTY_INTRUDER, server.port) == "sent"
    eventually(lambda: "refused 127.0.0.1" in server.stderr(), "they are refused")
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
