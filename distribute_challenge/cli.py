"""Shared by the scripts: bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, time
from typing import NoReturn

from distribute_challenge.address import DASK, LOCAL, SERVER_VARIABLE, Address, bind, check_address, chosen
from distribute_challenge.errors import PoolError
from distribute_challenge.tls import Tls, environment

LOOPBACK = "127.0.0.1"
PAGE_PORT = 8787  # of the live page
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
BACKLOG = 1024  # connections that may wait to be accepted


def program() -> str:
    """The name by which this program was started: `server.py`, or `compute server`."""
    folder, _, name = sys.argv[0].rpartition("/")
    # So does one process of ours start another.
    return f"{folder.rpartition('/')[2]}.py" if name == "__main__.py" else name or "python"


def fail(problem: str) -> NoReturn:
    """Leave the program because of what the user gave it: say what is wrong and what to do, in one line."""
    sys.stderr.write(f"{program()}: {' '.join(problem.split())}\n")
    sys.exit(2)


@contextlib.contextmanager
def pool_errors_in_one_line() -> Iterator[None]:
    """A script's use of the pool: what goes wrong with the pool ends the script like bad input."""
    try:
        yield
    except PoolError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def stop_signals() -> list[int]:
    """Those that stop a program: Ctrl-C, SIGTERM, and its terminal's end, unless `nohup` has that ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return [int(number) for number in numbers]


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra of this package brings. Ends the script if that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        fail(
            f"{error.name} is not installed: install it with `pip install 'distribute-challenge[{name}]'` "
            f"or, in a clone, `pip install -e '.[{name}]'`"
        )


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports a mistake in one line, with what to do."""

    def __init__(self, description: str) -> None:
        super().__init__(prog=program(), description=description)

    def error(self, message: str) -> NoReturn:
        fail(f"{message} (see `{self.prog} --help`)")


def open_standard_descriptors() -> None:
    """Have what is opened later get other numbers than 0 to 2, if the program was started without those."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _whole(text: str) -> int:
    """The number in a text of digits; -1 if it is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def port_number(text: str) -> int:
    """An argument that is a TCP port, 0 meaning that the system picks one."""
    port = _whole(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return port


def place(text: str) -> Address:
    """An argument that says where the live page is to be: `HOST:PORT` or one of the two; port 0: any."""
    host, _, port = text.rpartition(":")
    try:
        if _whole(port) == 0:
            return Address.parse(f"{host or LOOPBACK}:1")._replace(port=0)
        if not port.isdigit():
            return Address.parse(text)._replace(port=PAGE_PORT)
        return Address.parse(f"{host or LOOPBACK}:{port}")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def number_of(things: str) -> Callable[[str], int]:
    """The type of an argument that is a number of things, 1 or more."""

    def number(text: str) -> int:
        count = _whole(text)
        if not 1 <= count < 10**9:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {things}: give 1 or more")
        return count

    return number


def duration(text: str) -> int | float:
    """An argument that is a duration: a finite number of seconds, zero or more."""
    try:
        seconds = int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: give a number of seconds, 0 or more")
    return seconds


def positive_duration(text: str) -> int | float:
    """An argument that is a duration, and not zero."""
    seconds = duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is too short: give more than 0 seconds")
    return seconds


def moment(text: str) -> time | datetime:
    """An argument that is a time of day, or with its date; where this program runs."""
    for kind in (time, datetime):
        try:
            return kind.fromisoformat(text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a time: give it like 14:30, 14:30:05 or '2026-01-31 14:30'"
    )


def length_of_time(text: str) -> float:
    """An argument that is a length of time, in seconds.

    >>> length_of_time("90"), length_of_time("10m"), length_of_time("1.5h")
    (90.0, 600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", text, re.ASCII)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time: give it like 90s, 10m or 2h")
    return seconds


def size(text: str) -> int:
    """An argument that is a size of memory, in bytes or with K, M or G: like `2G`."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1:].upper(), 1)
    count = _whole(text if unit == 1 else text[:-1])
    if not 1 <= count * unit < 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of memory: give it like 2G or 500M")
    return count * unit


def add_tls(parser: Parser) -> None:
    """The arguments of mutual TLS, which `tls_in` takes from what was parsed."""
    parser.add_argument("--tls-cert", metavar="FILE", help="mutual TLS: this end's certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="the certificate's private key")
    parser.add_argument("--tls-ca", metavar="FILE", help="the CA that signed the other end's certificate")


def tls_in(options: argparse.Namespace) -> Tls | None:
    """The files of mutual TLS that were given. Ends the script if some are missing, or of no use."""
    paths = [options.tls_cert, options.tls_key, options.tls_ca]
    if paths.count(None) == len(paths):
        return None
    if None in paths:
        fail("mutual TLS takes --tls-cert, --tls-key and --tls-ca: give all three, or none")
    if vars(options).get("allow_any_local_user"):
        fail("with TLS everybody needs a certificate: leave out --allow-any-local-user")
    tls = Tls(*paths)
    try:
        tls.client_context()
    except PoolError as error:
        fail(str(error))
    return tls


def add_server(parser: Parser) -> None:
    """The arguments that say where the pool is, which `server_in` takes from what was parsed."""
    where = "where the pool is ($COMPUTE_SERVER, or localhost:18811)"
    parser.add_argument("--server", metavar="HOST:PORT", default=chosen(), help=where)
    add_tls(parser)


def server_in(options: argparse.Namespace) -> tuple[Address, Tls | None]:
    """Where the pool is, and the files by which it is reached. Ends the script if they are of no use."""
    if options.server.startswith((LOCAL, DASK)):
        fail(f"{options.server} is no server that can be asked: give the HOST:PORT of one with --server")
    try:
        return Address.parse(options.server), Tls.choose(tls_in(options))
    except (ValueError, PoolError) as error:
        fail(str(error))


def listen(
    host: str,
    port: int,
    other: str = "another --port",
    *,
    other_host: str = "another --host",
    danger: str = "runs any code",
    with_tls: bool = False,
) -> socket.socket:
    """A listening socket on a loopback address; with TLS, on any.

    Ends the script if that cannot be had; `other` and `other_host` are what to try then, and `danger` is what
    everybody could do who connects.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        fail(f"cannot find the host {host} ({error}): choose {other_host}")
    try:
        if not (with_tls or ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback):
            fail(
                f"will not listen on {host}: other machines reach that, and whoever connects {danger}. "
                "Listen on 127.0.0.1, and reach it from elsewhere through an ssh tunnel, "
                "or give --tls-cert, --tls-key and --tls-ca"
            )
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(sock, address)
        sock.listen(BACKLOG)
    except OSError as error:
        fail(
            f"cannot listen on {Address(host, port)} ({error.strerror}): "
            f"stop what listens there, or choose {other}"
        )
    return sock


def listen_for_page(place: Address, option: str, *, with_tls: bool) -> socket.socket:
    """A listening socket for the live page, whose place an option says. Ends the script as `listen` does."""
    other = f"another {option}"
    danger = "sees what the pool does"
    return listen(*place, other, other_host=other, danger=danger, with_tls=with_tls)


def number_range(text: str) -> range:
    """An argument like `1-4`, or `2`: whole numbers from 1."""
    first, dash, last = text.partition("-")
    numbers = range(_whole(first), _whole(last if dash else first) + 1)
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range: give it like 1-4")
    return numbers


def interval(text: str) -> int | float:
    """An argument that is a time between samples: long enough for the system's own count of CPU time."""
    seconds = duration(text)
    if seconds < 0.05:
        raise argparse.ArgumentTypeError(f"{text!r} is too short: give 0.05 seconds or more")
    return seconds


def example_argument(description: str, default: int) -> int | float:
    """The command line of an example: a duration, and `--server` and `--tls-...` for where the pool is."""
    parser = Parser(description)
    parser.add_argument("x", nargs="?", type=duration, default=default, help=f"seconds ({default})")
    add_server(parser)
    arguments = parser.parse_args()
    try:
        check_address(arguments.server)
        tls = Tls.choose(tls_in(arguments))
    except (ValueError, PoolError) as error:
        fail(str(error))
    os.environ.update({SERVER_VARIABLE: arguments.server, **environment(tls)})
    return arguments.x  # type: ignore[no-any-return]
