"""`compute status`: the state of a pool, once, as text or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from distribute_challenge import cli
from distribute_challenge.pictures.words import shortened
from distribute_challenge.terminal import words
from distribute_challenge.terminal.pool import Pool

HEADINGS = ("worker", "process", "state", "cpu", "memory", "since", "client", "function")
GAP = "  "
MIN_NAME = 10  # characters of a name that has to be cut


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
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        sys.stdout.writelines(table(status, columns))
    return 0


def table(status: dict[str, Any], columns: int = sys.maxsize) -> Iterator[str]:
    """A line for each worker, below one of headings. Long names are cut, so that lines fit in a terminal."""
    rows = [HEADINGS, *(row(worker, status["now"]) for worker in status["workers"])]
    *widths, client, function = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = max(columns - sum(widths) - len(GAP) * (len(widths) + 1), 2 * MIN_NAME)
    client = min(client, max(left - function, left // 2))
    widths += [client, min(function, left - client)]
    problems = [False, *("problem" in worker for worker in status["workers"])]  # It stands there, whole.
    for cells, is_whole in zip(rows, problems, strict=True):
        cut = cells if is_whole else map(shortened, cells, widths)
        padded = [cell.ljust(width) for cell, width in zip(cut, widths, strict=True)]
        yield GAP.join(padded).rstrip() + "\n"


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
