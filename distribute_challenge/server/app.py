"""The server's command line.

What server and workers need is imported first; then the template of workers is forked, and imports what only
they need while the server imports the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

from distribute_challenge import cli, processors
from distribute_challenge.address import DEFAULT_PORT
from distribute_challenge.server.workers.template import Template
from distribute_challenge.wire.stream import GIBI

MIN_MEMORY_BYTES = 64 << 20
MIN_FRAME_BYTES = 64 << 10
WORKERS_DESCRIPTORS = 6  # of this process, for each worker
OTHER_DESCRIPTORS = 40  # 11 of its own, 16 kept to say that there are none left, 3 for each of a few clients

for _name in ("record.flight", "record.stacks", "wire.acceptor", "wire.serving", "wire.tls"):
    importlib.import_module(f"distribute_challenge.{_name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a pool until a signal; the exit code."""
    cli.open_standard_descriptors()
    if any(word.startswith("--engine") for word in (sys.argv[1:] if arguments is None else arguments)):
        return int(importlib.import_module("distribute_challenge.cluster.app").main(arguments))
    options = parse(arguments)
    raise_descriptor_limit()
    check_descriptors(options.workers)
    template = Template()
    from distribute_challenge.server.wiring import serve_pool

    return serve_pool(options, template)


def parse(arguments: Sequence[str] | None) -> Any:
    """The command line."""
    parser = cli.Parser(
        "Start a pool of N workers and serve it; or record a Dask cluster (--engine dask --help)."
    )
    add = parser.add_argument
    workers = "how many workers (as many as this process may use processors)"
    count = cli.number_of("workers")
    add("workers", metavar="N", nargs="?", type=count, default=processors.usable(), help=workers)
    add("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    engine = "record a Dask cluster instead: see --engine dask --help"
    add("--engine", metavar=("dask", "ADDRESS"), nargs="+", help=engine)
    port = f"its port ({DEFAULT_PORT}); the workers' follow it. 0: the system picks all"
    add("--port", type=cli.port_number, default=DEFAULT_PORT, help=port)
    add("--profile", metavar="FILE", help="where the record goes (profiling/results_N.csv), or `none`")
    interval = "seconds between samples of what the workers take (0.5)"
    where = "serve a live page there (like 127.0.0.1:8787; port 0: the system picks one)"
    add("--dashboard-address", metavar="HOST:PORT", type=cli.place, help=where)
    add("--interval", metavar="S", type=cli.interval, default=0.5, help=interval)
    grace = "how many seconds running functions have when the server stops (10)"
    add("--grace", metavar="S", type=cli.duration, default=10, help=grace)
    limit = "kill a worker that takes more, its child processes included (like 2G or 500M)"
    enough = size_from(MIN_MEMORY_BYTES, ": a worker takes 30M, give 64M")
    add("--memory-limit", metavar="SIZE", type=enough, help=limit)
    tasks = "replace a worker that has run so many functions"
    add("--max-tasks", metavar="N", type=cli.number_of("functions"), help=tasks)
    threads = "threads that libraries (BLAS, OpenMP) use in each worker (its share of the processors)"
    add("--threads", metavar="K", type=cli.number_of("threads"), help=threads)
    add("--fresh", action="store_true", help="a new worker process where a worker passes to another program")
    frame = "the largest call workers take (1G)"
    enough = size_from(MIN_FRAME_BYTES, " for most functions: give 64K")
    add("--max-frame", metavar="SIZE", type=enough, default=GIBI, help=frame)
    anybody = "let in every user of this machine: each can then run any code as you"
    add("--allow-any-local-user", action="store_true", help=anybody)
    cli.add_tls(parser)
    # A pipe that whoever started the server holds open: when it closes, the server ends.
    add("--owner", type=int, help=argparse.SUPPRESS)
    metrics = "serve metrics for Prometheus on this port, like 9464 (extra [metrics])"
    add("--metrics-port", metavar="PORT", type=cli.port_number, help=metrics)
    add("-q", dest="quiet", action="store_true", help="no status line on the terminal")
    add("-v", dest="verbose", action="store_true", help="log what happens, on stderr")
    options = parser.parse_args(arguments)
    if options.metrics_port is not None:
        with cli.extra("metrics"):
            importlib.import_module("prometheus_client")
    if options.port and options.port + options.workers > 65535:
        parser.error(f"{options.workers} workers do not fit above port {options.port}: choose a lower --port")
    return options


def size_from(least: int, why: str) -> Callable[[str], int]:
    """The type of an argument that is a size, and what is wrong with less than the `least`."""

    def size(text: str) -> int:
        count = cli.size(text)
        if count < least:
            raise argparse.ArgumentTypeError(f"{text!r} is too little{why} or more")
        return count

    return size


def check_descriptors(workers: int) -> None:
    """End the script if there cannot be enough descriptors for so many workers."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = (limit - OTHER_DESCRIPTORS) // WORKERS_DESCRIPTORS
    if limit != resource.RLIM_INFINITY and workers > most:
        cli.fail(
            f"{workers} workers need more descriptors than the {limit} that this process may have: start at "
            f"most {most}, or raise the limit (ulimit -n)"
        )


def raise_descriptor_limit() -> None:
    """Let this process open as many descriptors as the system lets it: a waiting client takes three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(
            ValueError, OSError
        ):  # Some systems have a lower limit that they do not tell.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
