"""The command `compute`: `compute server 2` is `python3 server.py 2`, and so on."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from importlib.metadata import version

from distribute_challenge import cli

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


def main() -> int:
    """Run the command that the user typed; the exit code."""
    parser = cli.Parser("Run Python functions on a shared pool of worker processes.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s COMMAND ..."
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('distribute-challenge')}")
    each = [f"  {name:10} {about}" for name, (about, _) in COMMANDS.items()]
    parser.epilog = "\n".join(["commands (each has its own --help):", *each])
    command = parser.parse_args(sys.argv[1:2]).command
    # From here on it is that program, which says its name as the user typed it.
    sys.argv[:2] = [f"{cli.program()} {command}"]
    program = importlib.import_module(f"distribute_challenge.{COMMANDS[command][1]}")
    try:
        code = int(program.main())
        sys.stdout.flush()
    except BrokenPipeError:  # Who reads what it prints has enough, as `head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return code
