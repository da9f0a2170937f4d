"""Access by user: on a loopback address, a server lets in its own user only, and a client trusts no other.

Linux knows to whom the other end of a connection belongs. It is asked for that very pair of addresses, with
one netlink message (`sock_diag(7)`), which needs no privilege. An end that is closed already has no owner:
the kernel then shows user 0 and inode 0, while the bytes that were sent can still be read. So only an end
that is established and has an inode counts. Nor has an end that was not accepted yet: then the listener, in
whose queue it is, tells the owner.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge.address import ANY_USER_VARIABLE
from distribute_challenge.tls import Tls
from distribute_challenge.wire.descriptors import NONE_LEFT

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states; then the socket's identity
_PORTS = struct.Struct("!HH")  # source, destination; in the order of the network, as the addresses are
_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
_ANSWER = struct.Struct("=BBBB48xIIIII")  # family, state, 2 ignored; expires, queues, uid, inode
_ESTABLISHED, _LISTENING = 1, 10
_NO_ENDS = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # what a listener is connected to
_ROOT = 0
_TIMEOUT_S = 2.0
_ANYWAY = "start the server with --allow-any-local-user to let in everybody on this machine"


class PeerGone(AuthenticationError):
    """Whoever it was has gone."""


class Trust(NamedTuple):
    """The peers that a client trusts: with TLS, those that prove their name; else those of its own user.

    With `any_local_user`, those of every user of this machine.
    """

    tls: Tls | None = None
    any_local_user: bool = False

    @classmethod
    def choose(cls, tls: Tls | None = None) -> Trust:
        """As is given, and else as the environment says. Raises PoolError if that says half of it."""
        return cls(Tls.choose(tls), os.environ.get(ANY_USER_VARIABLE, "") not in ("", "0"))


# An authenticator in RPyC's sense: takes the socket of a connection, gives the one to serve and who is there.
Authenticator = Callable[[socket.socket], tuple[socket.socket, Any]]


def check_loopback(sock: socket.socket) -> tuple[socket.socket, None]:
    """Raise AuthenticationError unless the other end is on this machine."""
    host = sock.getpeername()[0]
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise AuthenticationError(f"{host} is no loopback address")
    return sock, None


def check_owner(sock: socket.socket) -> tuple[socket.socket, int]:
    """Raise AuthenticationError unless the other end is on this machine, and a process of our own user."""
    check_loopback(sock)
    peer, here = sock.getpeername()[:2], sock.getsockname()[:2]
    try:
        state, uid, inode = look_up(sock.family, peer, here)
    except OSError as error:
        if error.errno in NONE_LEFT:
            raise
        text = f"the system does not tell who is at the other end ({error}): {_ANYWAY}"
        raise AuthenticationError(text) from None
    if state != _ESTABLISHED or inode == 0:
        raise PeerGone("the other end was closed before it could be told whose it is")
    if uid != os.getuid():
        text = f"the other end belongs to the user with the number {uid}, not to {os.getuid()}"
        raise AuthenticationError(text)
    return sock, uid


def check_listener(sock: socket.socket) -> None:
    """Raise AuthenticationError unless `sock` is connected to a process of our own user, or of root's, here.

    Whatever listens there gets functions, and its answers are unpickled. Raises EOFError if it has gone.
    """
    check_loopback(sock)
    here, peer = sock.getsockname()[:2], sock.getpeername()[:2]
    try:
        state, uid, inode = look_up(sock.family, peer, here)
        if inode == 0 and state == _ESTABLISHED:
            state, uid, inode = look_up(sock.family, peer, (_NO_ENDS[sock.family], 0))
    except FileNotFoundError:
        raise EOFError("closed before it was accepted") from None
    except OSError as error:
        if error.errno in NONE_LEFT:
            raise
        raise AuthenticationError(f"the system does not tell whose process listens there ({error})") from None
    if state not in (_ESTABLISHED, _LISTENING) or inode == 0:
        raise EOFError("closed before it was accepted")
    if uid not in (os.getuid(), _ROOT):
        raise AuthenticationError(f"it belongs to the user with the number {uid}, not to {os.getuid()}")


def look_up(family: int, source: tuple[str, int], destination: tuple[str, int]) -> tuple[int, int, int]:
    """State, owner's uid and inode of the TCP socket with these two ends. Raises OSError."""
    if not sys.platform.startswith("linux"):
        raise OSError("only Linux does")
    addresses = (
        socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0") for host, _ in (source, destination)
    )
    identity = _PORTS.pack(source[1], destination[1]) + b"".join(addresses) + _COOKIE
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + identity
    header = _NLMSG_HEADER.pack(_NLMSG_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.sendto(header + body, (0, 0))
        answer = netlink.recv(4096)
    _, kind, _, _, _ = _NLMSG_HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        number = -struct.unpack_from("=i", answer, _NLMSG_HEADER.size)[0]
        raise OSError(number, os.strerror(number))
    _, state, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _NLMSG_HEADER.size)
    return state, uid, inode
