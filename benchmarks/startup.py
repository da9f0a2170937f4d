"""How long a server with four workers takes to be ready, beside four bare imports of RPyC at once.

    python benchmarks/startup.py [REPEATS]

Alternating, in one run; medians. The promise is a ratio of at most 4.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 4


def server_ready(folder: str) -> float:
    """Seconds from starting the server to its `ready` line."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", "0", "--profile", "none"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        took = time.perf_counter() - began
        server.terminate()
    assert line.startswith("ready: "), line
    return took


def bare_imports() -> float:
    """Seconds for as many bare interpreters as workers, started together, to import RPyC and end."""
    began = time.perf_counter()
    bare = [subprocess.Popen([sys.executable, "-c", "import rpyc"]) for _ in range(WORKERS)]
    for process in bare:
        process.wait()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        server_ready(folder)
        bare_imports()
        pairs = [(server_ready(folder), bare_imports()) for _ in range(repeats)]
    ready, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"server with {WORKERS} workers ready: {ready * 1000:.0f} ms")
    print(f"{WORKERS} bare imports of rpyc together: {bare * 1000:.0f} ms")
    print(f"ratio, median of {repeats} pairs: {ratio:.2f} (at most 4)")


if __name__ == "__main__":
    main()
