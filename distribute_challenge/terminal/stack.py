"""`compute stack`: where the functions are that run now."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from distribute_challenge import cli
from distribute_challenge.pictures.words import printable
from distribute_challenge.terminal import words
from distribute_challenge.terminal.pool import Pool


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the stacks; the exit code."""
    parser = cli.Parser("Show where the functions are that run now: Python stacks, innermost frame first.")
    parser.add_argument("port", metavar="PORT", nargs="?", type=cli.port_number, help="of one worker (all)")
    cli.add_server(parser)
    options = parser.parse_args(arguments)
    with cli.pool_errors_in_one_line():
        pool = Pool(options)
        status = pool.status()
        workers = [worker for worker in status["workers"] if options.port in (None, worker["port"])]
        if not workers:
            known = ", ".join(str(worker["port"]) for worker in status["workers"])
            cli.fail(f"no worker of this pool has the port {options.port}: give one of {known}")
        for worker in workers:
            sys.stdout.write(what_runs(worker, status["now"]) + "\n")
            sys.stdout.writelines(f"  {line}\n" for line in stack(pool, worker["port"]))
    return 0


def what_runs(worker: dict[str, Any], now: float) -> str:
    """A worker, and the function that runs there."""
    name = f"worker {words.place(worker)}"
    if worker["pid"]:
        name += f" (process {worker['pid']})"
    if not worker["running"]:
        return f"{name}: {words.function(worker) or 'no function runs'}"
    return f"{name}: {words.function(worker)}, for {words.since(worker, now)}, of {words.client(worker)}"


def stack(pool: Pool, port: int) -> list[str]:
    """The frames of the function on a worker; or why they cannot be told."""
    try:
        return [printable(frame) for frame in pool.stack(port).splitlines()]
    except RuntimeError as error:
        return [str(error.args[0])]  # Its text has the server's traceback, too.
