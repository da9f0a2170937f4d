"""The command line: measure, write the results, and draw and tell them."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import alone, figure, results, table
from benchmarks.peers.beside import Comparison
from benchmarks.peers.cases import CASES
from benchmarks.peers.rivals import PEERS
from benchmarks.peers.running import PeerFailed, is_installed
from benchmarks.recording import ROOT, running_server


def main() -> int:
    """Measure; the exit code says whether that went well, not whether the promises are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, and less of it: three minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="CASE or PEER",
        choices=[*CASES, *PEERS],
        help=f"only these: {', '.join([*CASES, *PEERS])} (this pool is always measured)",
    )
    parser.add_argument(
        "--busy", action="store_true", help="with a program beside it that keeps a processor busy"
    )
    parser.add_argument("--write", action="store_true", help="put a whole run into the README and its figure")
    parser.add_argument("--show", action="store_true", help="only draw and tell the results that are there")
    options = parser.parse_args()
    if options.show:
        return publish(results.read())
    if options.write and (options.quick or options.only or options.busy):
        parser.error("--write takes a whole run, and nothing beside it: nothing else takes the place of that")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that all that was started is ended.
    measured = results.Results()
    began = time.monotonic()
    cases = {name for name in options.only if name in CASES} or set(CASES)
    names = [name for name in PEERS if name in options.only and name in PEERS] or list(PEERS)
    names = [name for name in PEERS if name == "pool" or name in names]
    for name in names:
        if not is_installed(PEERS[name]):
            print(f"{PEERS[name].title} is not installed here: measured without it")
    names = [name for name in names if is_installed(PEERS[name])]
    rounds = 1 if options.quick else options.rounds
    try:
        with (
            neighbour() if options.busy else contextlib.nullcontext(),
            tempfile.TemporaryDirectory() as name,
            running_server(ROOT, name) as pool,
        ):
            folder, server = Path(name), pool.address
            Comparison(measured, folder, server, names, cases, options.quick).run(rounds)
            print("this pool alone", flush=True)
            alone.measure(measured, folder, server, cases, rounds, options.quick)
    except PeerFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"measured in {time.monotonic() - began:.0f} s\n")
    if not options.write:
        print(table.text(measured))
        return 0
    measured.write()
    return publish(measured)


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A program that keeps a processor busy, for as long as the block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def publish(measured: results.Results) -> int:
    """Put the results where they are read."""
    print(table.text(measured))
    table.put_into_readme(measured)
    figure.save(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
