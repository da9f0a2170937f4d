"""What happens when each worker's BLAS takes all processors: matrix products, here and in a process pool.

    python benchmarks/threads.py [REPEATS]

Twice as many products as workers, at once, on as many workers as there are processors, alternating with
`ProcessPoolExecutor`, whose processes take as many threads as there are processors, each; medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from distribute_challenge import PoolExecutor  # noqa: E402  It is found only now.
from distribute_challenge.processors import usable  # noqa: E402

SIZE = 1500


def product(seed: int) -> float:
    """The sum of a product of two matrices."""
    rows = np.random.default_rng(seed).random((SIZE, SIZE))
    return float((rows @ rows).sum())


def seconds(pool: Executor, count: int) -> float:
    """How long so many products take."""
    began = time.perf_counter()
    list(pool.map(product, range(count), chunksize=1))
    return time.perf_counter() - began


def main() -> int:
    """Measure and print; the exit code."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    workers = usable()
    with PoolExecutor(f"local://{workers}") as ours, ProcessPoolExecutor(workers) as theirs:
        for pool in (ours, theirs):
            seconds(pool, 2 * workers)  # Processes start, and import NumPy.
        pairs = [[seconds(pool, 2 * workers) for pool in (ours, theirs)] for _ in range(repeats)]
    own, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{2 * workers} products of {SIZE} x {SIZE} on {workers} workers: {own:.3f} s")
    print(f"ProcessPoolExecutor: {other:.3f} s; ratio {own / other:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
