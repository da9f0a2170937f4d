"""`compute status`: the state of a pool, once, as text or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from distribute_challenge import cli
from distribute_challenge.terminal import words
from distribute_challenge.terminal.pool import Pool

HEADINGS = ("worker", "process", "state", "cpu", "memory", "since", "client", "function")


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the state; the exit code."""
    parser = cli.Parser("Show the state of a pool.")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    cli.add_server(parser)
    options = parser.parse_args(arguments)
    with cli.pool_errors_in_one_line():
        pool = Pool(options)
        status = pool.status()
    if options.json:
        sys.stdout.write(json.dumps(status, indent=2) + "\n")
    else:
        sys.stdout.write(f"{pool.address}, up {words.duration(status['uptime'])}: {words.counts(status)}\n")
        sys.stdout.writelines(table(status))
    return 0


def table(status: dict[str, Any]) -> Iterator[str]:
    """A line for each worker, below one of headings."""
    rows = [HEADINGS, *(row(worker, status["now"]) for worker in status["workers"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        yield "  ".join(padded).rstrip() + "\n"


def row(worker: dict[str, Any], now: float) -> tuple[str, ...]:
    """The cells of a worker."""
    return (
        words.place(worker),
        str(worker["pid"] or ""),
        worker["state"],
        words.percent(worker["cpu"]),
        words.memory(worker["memory"]),
        words.since(worker, now),
        words.client(worker),
        words.function(worker),
    )
