"""What the record costs: four clients calling functions of 1 ms, with the profile and with `--profile none`.

    python benchmarks/recording.py [REPEATS]

Two servers side by side, measured alternately in one run; medians. The promise is a ratio of at least 0.97.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
CLIENTS = 4
CALLS = 500

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
for _ in range(int(sys.argv[3])):
    task(0.001).run()
"""


def start_server(folder: str, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A server and its address."""
    command = [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", "0", *options]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().split()[1].rstrip(",")


def calls_per_second(address: str) -> float:
    """What all clients together get done."""
    command = [sys.executable, "-c", CLIENT, str(ROOT), address, str(CALLS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    clients = [subprocess.Popen(command, **pipes) for _ in range(CLIENTS)]  # type: ignore[call-overload]
    for client in clients:
        client.stdout.readline()
    began = time.perf_counter()
    for client in clients:
        client.stdin.write("start\n")
        client.stdin.flush()
    for client in clients:
        client.communicate()
    return CLIENTS * CALLS / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        recording, recorded = start_server(folder)
        bare, unrecorded = start_server(folder, "--profile", "none")
        try:
            pairs = [(calls_per_second(recorded), calls_per_second(unrecorded)) for _ in range(repeats)]
        finally:
            for server in (recording, bare):
                server.terminate()
                server.wait()
    with_record, without = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"with the record: {with_record:.0f} calls/s; without: {without:.0f} calls/s")
    print(f"ratio, median of {repeats} pairs: {ratio:.3f} (at least 0.97)")


if __name__ == "__main__":
    main()
