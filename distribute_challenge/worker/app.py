"""A worker's command line and its life: bind or inherit a socket, say `ready`, run functions."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import mmap
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence

from distribute_challenge import cli
from distribute_challenge.calls.flights import recorder
from distribute_challenge.record import stacks
from distribute_challenge.record.flight import MEMORY_BYTES
from distribute_challenge.wire.acceptor import Acceptor
from distribute_challenge.wire.serving import SERVER_CONFIG
from distribute_challenge.wire.stream import GIBI
from distribute_challenge.wire.tls import authenticator
from distribute_challenge.worker.execution import Execution
from distribute_challenge.worker.output import Streams
from distribute_challenge.worker.processes import carry_names
from distribute_challenge.worker.service import Worker, WorkerService


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until it is killed, or interrupted while idle."""
    cli.open_standard_descriptors()
    parser = cli.Parser("One worker of a pool. The server starts its workers itself.")
    parser.add_argument("port", metavar="PORT", type=cli.port_number)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument(
        "--listener", type=int, help="used by the server: the descriptor of a listening socket"
    )
    parser.add_argument(
        "--allow-any-local-user", action="store_true", help="let in every user of this machine"
    )
    parser.add_argument(
        "--max-frame", metavar="SIZE", type=cli.size, default=GIBI, help="the largest message taken (1G)"
    )
    cli.add_tls(parser)
    parser.add_argument("--owner", type=int, help="used by the server: a pipe that ends when the server does")
    parser.add_argument("--flight", type=int, help="used by the server: the memory of the flight recorder")
    parser.add_argument("--stacks", type=int, help="used by the server: a socket for stacks that it asks for")
    options = parser.parse_args(arguments)
    del sys.argv[1:]  # Functions that look for options of their program find none, rather than ours.

    if options.owner is not None:
        die_with_owner(options.owner)
    tls = cli.tls_in(options)
    faulthandler.enable(all_threads=False)  # The function runs in the thread that crashes.
    # A decorated function that calls itself takes three levels for one: it gets as deep as a plain one.
    # (Not on Python 3.12, which has another limit.)
    sys.setrecursionlimit(3 * sys.getrecursionlimit())
    if options.listener is None:
        listener = cli.listen(options.host, options.port, "another PORT", with_tls=tls is not None)
    else:
        listener = socket.socket(fileno=options.listener)
        listener.set_inheritable(False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]

    carry_names()
    streams = Streams()
    execution = Execution(streams.make)
    if options.flight is not None:
        recorder.write_to(mmap.mmap(options.flight, MEMORY_BYTES))
        os.close(options.flight)
    if options.stacks is not None:
        stacks.tell_when_asked(options.stacks)
    worker = Worker(execution, streams)
    # Whoever can call a worker runs any code there: a traceback tells them nothing new.
    admit = authenticator(tls, any_local_user=options.allow_any_local_user)
    config = {**SERVER_CONFIG, "include_local_traceback": True}
    Acceptor(
        listener,
        lambda: WorkerService(worker),
        max_frame_bytes=options.max_frame,
        admit=admit,
        config=config,
        serve=execution.serve,
    ).start("accept")
    host, port = listener.getsockname()[:2]
    print(f"ready: {host}:{port}", flush=True)
    # Whatever ends the main thread ends the process at once: threads that functions have left would keep it
    # alive, and nobody would run what is still accepted.
    try:
        execution.serve_forever()
    except KeyboardInterrupt:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def die_with_owner(pipe: int) -> None:
    """Have this process group killed as soon as the other end of `pipe` is closed, kill -9 included."""
    os.set_inheritable(pipe, False)
    if hasattr(fcntl, "F_SETSIG"):
        # Linux: the kernel itself sends the signal, whatever the function that runs here is doing.
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):  # The owner lives.
            _await_end(pipe)  # It ended before we asked.
        return
    threading.Thread(target=_await_end, args=(pipe,), name="owner", daemon=True).start()


def _await_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)
