"""The command `compute`, and the scripts: `compute server 2` is `python3 server.py 2`, and so on."""

from __future__ import annotations

import importlib
import io
import os
import select
import signal
import sys

# What each is, and the module whose `main` it is: imported when it is needed, since some take a second.
COMMANDS = {
    "server": ("start a pool, and serve it", "server.app"),
    "worker": ("run one worker by hand", "worker.app"),
    "graph": ("draw what the workers did", "pictures.app"),
    "benchmark": ("measure the pool with more and more workers and clients", "sweep.app"),
    "live": ("watch a pool in the browser", "pictures.live.app"),
    "top": ("watch a pool in the terminal", "terminal.top"),
    "status": ("show the state of a pool", "terminal.status"),
    "stack": ("show where the functions are that run now", "terminal.stack"),
}


def run(command: str | None = None) -> int:
    """Run the program of a command, by default of the one that the user typed; the exit code.

    Ctrl-C ends it, also while it is imported.
    """
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names may be in letters that a terminal lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        _, module = COMMANDS[command or _typed()]
        code = int(importlib.import_module(f"distribute_challenge.{module}").main())
        sys.stdout.flush()
    except KeyboardInterrupt:  # Programs that clean up on Ctrl-C have done so.
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return code


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has enough, as `head`."""
    output = select.poll()
    output.register(1, 0)
    return bool(output.poll(0))


def _typed() -> str:
    """The command that the user typed. What follows it is left for its program."""
    import argparse  # These are late since the scripts need none of them.
    from importlib.metadata import PackageNotFoundError, version

    from distribute_challenge import cli

    parser = cli.Parser("Run Python functions on a shared pool of worker processes.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s COMMAND ..."
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    try:
        known = version("distribute-challenge")
    except PackageNotFoundError:
        known = "of a clone that is not installed"
    parser.add_argument("--version", action="version", version=f"%(prog)s {known}")
    each = [f"  {name:10} {about}" for name, (about, _) in COMMANDS.items()]
    parser.epilog = "\n".join(["commands (each has its own --help):", *each])
    command: str = parser.parse_args(sys.argv[1:2]).command
    # From here on it is that program, which says its name as the user typed it.
    sys.argv[:2] = [f"{cli.program()} {command}"]
    return command
