"""The live page's command line: a record -> a page on this machine, which only reads its files."""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from distribute_challenge import cli
from distribute_challenge.address import Address
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.app import find, what_is_wrong

DEFAULT = Address("127.0.0.1", cli.PAGE_PORT)
TOKEN_BYTES = 24
FIRST_ROW_S = 0.05  # How often is looked for the first row, which a cluster's has once a worker comes.


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until a signal, or the end of whoever started it; the exit code."""
    options = parse(arguments)
    path = find(options.file)
    tls = cli.tls_in(options)
    if options.listener is None:
        listener = cli.listen_for_page(options.address, "--address", with_tls=tls is not None)
        token = secrets.token_urlsafe(TOKEN_BYTES)
    else:  # The server has made both. It is gone when its end of the pipe, our standard input, is closed.
        listener = socket.socket(fileno=options.listener)
        token = sys.stdin.readline().strip()
    listener.setblocking(False)
    # Who is refused is told, and nobody else; what is not our fault is not logged.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")

    # Late: they take a second, and a mistake takes none.
    with cli.extra("live"):
        from tornado.ioloop import PeriodicCallback

        from distribute_challenge.pictures.live.session import EVERY_MS, Session
        from distribute_challenge.pictures.live.site import Site
    from distribute_challenge.pictures.live.data.record import Record
    from distribute_challenge.pictures.reading import NO_ROW

    def read() -> Record:
        while True:
            try:
                return Record.read(path)
            except ProfileFormatError as error:
                if options.listener is None or str(error) != NO_ROW.format(path):
                    cli.fail(str(error))
                if select.select([sys.stdin], [], [], FIRST_ROW_S)[0]:
                    sys.exit()
            except OSError as error:
                cli.fail(what_is_wrong(error))

    record = read()

    def update() -> None:
        nonlocal record
        if record.is_replaced:
            with contextlib.suppress(ProfileFormatError, OSError):  # Its first row may come later.
                record = Record.read(path)
        record.update()

    def show(document: Any) -> None:
        Session(document, lambda: record)

    address = Address(*listener.getsockname()[:2])
    if tls is not None:
        address = address.as_named(options.address.host)
    site = Site(listener, address, tls, token, show)
    for number in (signal.SIGINT, signal.SIGTERM):
        site.loop.asyncio_loop.add_signal_handler(number, site.loop.stop)
    if options.listener is None:
        print(f"live: {site.url}", flush=True)
    else:
        site.loop.add_handler(sys.stdin.fileno(), lambda *_: site.loop.stop(), site.loop.READ)
    PeriodicCallback(update, EVERY_MS).start()
    site.serve()
    return 0


def parse(arguments: Sequence[str] | None) -> Any:
    """The command line."""
    parser = cli.Parser(description="Watch a pool in the browser: what its server has recorded, as it grows.")
    add = parser.add_argument
    what = "a profile: a path, or a name in profiling/ (the newest there)"
    add("file", metavar="FILE", nargs="?", help=what)
    where = f"where the page is ({DEFAULT}); port 0: the system picks one"
    add("--address", metavar="HOST:PORT", type=cli.place, default=DEFAULT, help=where)
    cli.add_tls(parser)
    add("--listener", type=int, help=argparse.SUPPRESS)  # used by the server: its socket, for us
    return parser.parse_args(arguments)
