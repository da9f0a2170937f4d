"""What moving costs: the same functions on a pool and on a Dask cluster, two workers each, in one run.

    python benchmarks/engines.py

Both are of this program's own, on this machine. Functions sleep; each engine runs as many as take two workers
two seconds, through `submit` and through `map`, and then lone calls, one after another.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from distribute_challenge import PoolExecutor
from tests.clusters import RunningCluster

WORKERS = 2
LENGTHS_S = (0.001, 0.01, 0.1, 1.0)
TOTAL_S = 2.0  # that each worker sleeps
LONE = 20


def measured(pool: PoolExecutor) -> Iterator[tuple[str, str]]:
    """What was measured, and how it came out."""
    pool.submit(time.sleep, 0).result()
    for length_s in LENGTHS_S:
        count = round(WORKERS * TOTAL_S / length_s)
        began = time.perf_counter()
        for future in [pool.submit(time.sleep, length_s) for _ in range(count)]:
            future.result()
        submitted = time.perf_counter() - began
        began = time.perf_counter()
        for _ in pool.map(time.sleep, [length_s] * count):
            pass
        mapped = time.perf_counter() - began
        yield f"{count:,} of {length_s:g} s, `submit`", f"{submitted:.2f} s"
        yield f"{count:,} of {length_s:g} s, `map`", f"{mapped:.2f} s"
    times = []
    for _ in range(LONE):
        began = time.perf_counter()
        pool.submit(time.sleep, 0).result()
        times.append(time.perf_counter() - began)
    yield "a lone call, there and back", f"{1000 * statistics.median(times):.2f} ms"


def main() -> None:
    """Measure both, and print a table."""
    with PoolExecutor(f"local://{WORKERS}") as pool:
        here = dict(measured(pool))
    with tempfile.TemporaryDirectory() as folder:
        cluster = RunningCluster(WORKERS, folder=Path(folder))
        with PoolExecutor(cluster.address) as pool:
            there = dict(measured(pool))
        cluster.close()
    print("| two workers, 2 s of work for each | a pool | a Dask cluster |\n|---|---:|---:|")
    for what, took in here.items():
        print(f"| {what} | {took} | {there[what]} |")


if __name__ == "__main__":
    main()
