"""`compute top`: what each worker of a pool does, as it changes."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distribute_challenge import cli
from distribute_challenge.record.statusline import Rate
from distribute_challenge.terminal import words
from distribute_challenge.terminal.pool import Pool
from distribute_challenge.terminal.status import row

if TYPE_CHECKING:
    from rich.console import RenderableType

COLORS = {"free": "green", "leased": "yellow", "starting": "red"}
AROUND_LINES = 5  # of what is shown around the workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the pool until the user has enough; the exit code."""
    parser = cli.Parser("Watch what each worker of a pool does. Press q to end.")
    every = "seconds between two looks (1)"
    parser.add_argument("--interval", metavar="S", type=cli.interval, default=1, help=every)
    cli.add_server(parser)
    options = parser.parse_args(arguments)
    with cli.extra("top"):
        from rich.console import Console
        from rich.live import Live

    console = Console()
    with cli.pool_errors_in_one_line():
        pool = Pool(options)
        status = pool.status()
        rate = Rate()
        if not console.is_terminal:
            console.print(picture(str(pool.address), status, 0.0, len(status["workers"])))
            return 0
        with keys(), contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True) as live:
            while True:
                speed = rate.per_second(status["uptime"], status["finished"] + status["failed"])
                room = console.height - AROUND_LINES
                live.update(picture(str(pool.address), status, speed, room), refresh=True)
                if is_enough(options.interval):
                    break
                status = pool.status()
    return 0


def picture(address: str, status: dict[str, Any], speed: float, room: int) -> RenderableType:
    """The state of a pool that gets `speed` tasks per second done, with at most so many workers."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold reverse")
    for heading, how in (
        ("WORKER", {"justify": "right"}),
        ("STATE", {}),
        ("CPU", {"justify": "right", "min_width": 5}),
        ("MEMORY", {"justify": "right", "min_width": 7}),
        ("FOR", {"justify": "right", "min_width": 6}),
        ("FUNCTION", {"ratio": 3}),
        ("CLIENT", {"ratio": 2}),
    ):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", **how)
    workers, others = shown(status["workers"], room)
    for worker in workers:
        place, _, state, *numbers, client, function = row(worker, status["now"])
        color = COLORS.get(state, "")
        table.add_row(Text(place), Text(state, color), *numbers, Text(function, "bold"), Text(client))
    up = f"{address}, up {words.duration(status['uptime'])}, {speed:,.1f} tasks/s"
    lines: list[RenderableType] = [Text(up, "bold"), Text(words.counts(status)), Text(""), table]
    if others:
        lines.append(
            Text(f"and {others} more workers: make the window higher, or see `compute status`", "dim")
        )
    return Group(*lines)


def shown(workers: list[dict[str, Any]], room: int) -> tuple[list[dict[str, Any]], int]:
    """The workers for which there is room, and how many others there are.

    If there is not enough for all, those go first that have been busy longest.
    """
    if len(workers) <= max(room, 1):
        return workers, 0
    latest = float("inf")
    order = sorted(workers, key=lambda it: it["running"][0]["since"] if it["running"] else latest)
    first = order[: max(room, 1)]
    return sorted(first, key=lambda it: int(it["port"])), len(workers) - len(first)


@contextlib.contextmanager
def keys() -> Iterator[None]:
    """Get keys at once, and do not show them, if there is a keyboard."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def is_enough(wait_s: float) -> bool:
    """Whether `q` is pressed within `wait_s` seconds; another key ends the wait."""
    keyboard = [0] if os.isatty(0) else []
    return bool(select.select(keyboard, [], [], wait_s)[0]) and os.read(0, 64) in (b"q", b"Q", b"")
