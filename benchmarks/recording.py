"""What the record costs: profile and tasks, beside `--profile none`, or beside another checkout.

    python benchmarks/recording.py [REPEATS] [CHECKOUT]

Three kinds of work: four clients at once, each calling functions of 1 ms; 5,000 no-ops through `submit`;
50,000 no-ops through `map`. Two servers stand side by side and are measured in pairs in one run, the first of
a pair being the second of the next; medians. With `--profile none`, workers still write what they run into
memory; CHECKOUT, of a version from before there were tasks files, does without that as well.

The promise is a ratio of at least 0.97 for each; the exit code is 1 if one is missed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WORKERS = 2
LEAST_RATIO = 0.97

# When it began and ended, each client says by the system's own clock, which is the same for all.
CLIENT = """
import operator, sys, time
sys.path.insert(0, sys.argv[1])
from distribute_challenge import PoolExecutor, compute_this

def sleep(seconds):
    time.sleep(seconds)

kind, count = sys.argv[3], int(sys.argv[4])
task = compute_this(server=sys.argv[2])(sleep)
with PoolExecutor(sys.argv[2]) as pool:
    work = {
        "run": lambda: [task(0.001).run() for _ in range(count)],
        "submit": lambda: [task.result() for task in [pool.submit(operator.index, 1) for _ in range(count)]],
        "map": lambda: list(pool.map(operator.index, range(count))),
    }[kind]
    count, whole = 20, count
    work()
    print("ready", flush=True)
    sys.stdin.readline()
    count = whole
    began = time.monotonic()
    work()
    print(began, time.monotonic(), flush=True)
"""


class Kind(NamedTuple):
    """A kind of work, by so many clients at once, each of so many calls."""

    name: str
    clients: int
    calls: int


KINDS = (Kind("run", 4, 500), Kind("submit", 1, 5_000), Kind("map", 1, 50_000))


class Pool(NamedTuple):
    """A running server, and the checkout that it and its clients are of."""

    checkout: Path
    address: str


@contextlib.contextmanager
def running_server(checkout: Path, folder: str, *options: str, workers: int = WORKERS) -> Iterator[Pool]:
    """A server, for as long as the block."""
    owned, owner = os.pipe()  # It ends with us, however that comes.
    command = [sys.executable, str(checkout / "server.py"), str(workers), "--port", "0", *options]
    command += ["--owner", str(owned)]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, pass_fds=(owned,)
    ) as server:
        os.close(owned)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("ready: "):
                raise RuntimeError("the server did not start")
            yield Pool(checkout, line.split()[1].rstrip(","))
        finally:
            os.close(owner)
            server.terminate()


def calls_per_second(pool: Pool, kind: Kind) -> float:
    """What all clients together get done, from the first call to the last result."""
    command = [sys.executable, "-c", CLIENT, str(pool.checkout), pool.address, kind.name, str(kind.calls)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running_client(command)) for _ in range(kind.clients)]
        for client in clients:
            answer(client)
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("start\n")
            client.stdin.flush()
        begins, ends = zip(*(map(float, answer(client).split()) for client in clients), strict=True)
    return kind.clients * kind.calls / (max(ends) - min(begins))


@contextlib.contextmanager
def running_client(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A client, ended with the block."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            yield client
        finally:
            client.terminate()


def answer(client: subprocess.Popen[str]) -> str:
    """The next line that a client prints."""
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise RuntimeError("a client ended too early")
    return line


def main() -> int:
    """Measure and print; the exit code."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    other = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    is_kept = True
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as other_folder,
        running_server(ROOT, folder) as recorded,
        running_server(other or ROOT, other_folder, *([] if other else ["--profile", "none"])) as unrecorded,
    ):
        for kind in KINDS:
            pairs = []
            for number in range(repeats):
                # What is measured second may find a warmer machine, or a busier one.
                order = (recorded, unrecorded) if number % 2 == 0 else (unrecorded, recorded)
                rates = {pool: calls_per_second(pool, kind) for pool in order}
                pairs.append((rates[recorded], rates[unrecorded]))
            with_record, without = (statistics.median(rates) for rates in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            is_kept &= ratio >= LEAST_RATIO
            print(
                f"{kind.name}, {kind.clients} clients: {with_record:.0f} calls/s with the record, "
                f"{without:.0f} without; ratio, median of {repeats} pairs: {ratio:.3f} "
                f"(at least {LEAST_RATIO})",
                flush=True,
            )
    return int(not is_kept)


if __name__ == "__main__":
    sys.exit(main())
