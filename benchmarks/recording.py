"""What the record costs: four clients calling functions of 1 ms, with the profile and with `--profile none`.

    python benchmarks/recording.py [REPEATS]

Two servers side by side, measured in pairs in one run, the first of a pair being the second of the next;
medians. The promise is a ratio of at least 0.97; the exit code is 1 if it is missed.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
CLIENTS = 4
CALLS = 500
LEAST_RATIO = 0.97

# When it began and ended, each client says by the system's own clock, which is the same for all.
CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from distribute_challenge import compute_this

def sleep(seconds):
    time.sleep(seconds)

task = compute_this(server=sys.argv[2])(sleep)
task(0.001).run()
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
for _ in range(int(sys.argv[3])):
    task(0.001).run()
print(began, time.monotonic(), flush=True)
"""


@contextlib.contextmanager
def running_server(folder: str, *options: str) -> Iterator[str]:
    """A server, for as long as the block; its address."""
    command = [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", "0", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("ready: "):
                raise RuntimeError("the server did not start")
            yield line.split()[1].rstrip(",")
        finally:
            server.terminate()


def calls_per_second(address: str) -> float:
    """What all clients together get done, from the first call to the last result."""
    command = [sys.executable, "-c", CLIENT, str(ROOT), address, str(CALLS)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running_client(command)) for _ in range(CLIENTS)]
        for client in clients:
            answer(client)
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("start\n")
            client.stdin.flush()
        begins, ends = zip(*(map(float, answer(client).split()) for client in clients), strict=True)
    return CLIENTS * CALLS / (max(ends) - min(begins))


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
    pairs = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(folder) as recorded,
        running_server(folder, "--profile", "none") as unrecorded,
    ):
        for number in range(repeats):
            # What is measured second may find a warmer machine, or a busier one.
            order = (recorded, unrecorded) if number % 2 == 0 else (unrecorded, recorded)
            rates = {address: calls_per_second(address) for address in order}
            pairs.append((rates[recorded], rates[unrecorded]))
    with_record, without = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"with the record: {with_record:.0f} calls/s; without: {without:.0f} calls/s")
    print(f"ratio, median of {repeats} pairs: {ratio:.3f} (at least {LEAST_RATIO})")
    return int(ratio < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
