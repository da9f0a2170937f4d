"""joblib on this pool, beside joblib on loky, in one run; and what a scattered value takes of memory.

    python benchmarks/backends.py [--rounds N]

Both have two workers, which run already. They take turns, the first of a round being the second of the next;
medians. At the end 1,000 calls use one value of 800 MB by its handle: what this machine has less of, then.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from distribute_challenge import PoolExecutor, register_joblib

WORKERS = 2
BACKENDS = {"compute": {"server": f"local://{WORKERS}"}, "loky": {}}
CALLS, ARRAY_CALLS = 10_000, 100
ARRAY_ITEMS, SCATTERED_ITEMS = 10_000_000, 100_000_000  # of 8 bytes
SCATTERED_CALLS = 1_000
MB = 10**6


def ends(array: np.ndarray) -> float:
    """A short function of a large array."""
    return float(array[0] + array[-1])


def short_calls() -> None:
    """10,000 functions of 1 ms."""
    joblib.Parallel(WORKERS)(joblib.delayed(time.sleep)(0.001) for _ in range(CALLS))


def search() -> None:
    """GridSearchCV of a support vector machine on digits: 60 fits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    grid = {"C": [0.1, 1, 10], "gamma": [1e-4, 3e-4, 1e-3, 3e-3]}
    GridSearchCV(SVC(), grid, cv=5, n_jobs=WORKERS).fit(*load_digits(return_X_y=True))


def array_calls() -> None:
    """An array of 80 MB, given to 100 calls."""
    array = np.ones(ARRAY_ITEMS)
    results = joblib.Parallel(WORKERS)(joblib.delayed(ends)(array) for _ in range(ARRAY_CALLS))
    if results != [2.0] * ARRAY_CALLS:
        raise RuntimeError("a wrong result came back")


CASES: dict[str, Callable[[], None]] = {
    "10,000 calls of 1 ms": short_calls,
    "GridSearchCV on digits": search,
    "80 MB given to 100 calls": array_calls,
}


def measure(case: Callable[[], None], rounds: int) -> dict[str, float]:
    """The median seconds on each backend."""
    times: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for number in range(rounds):
        for name in list(BACKENDS)[:: 1 if number % 2 else -1]:
            with joblib.parallel_config(backend=name, **BACKENDS[name]):
                joblib.Parallel(WORKERS)(joblib.delayed(int)() for _ in range(WORKERS))
                began = time.perf_counter()
                case()
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def scattered() -> tuple[float, int]:
    """Seconds of 1,000 calls with one value of 800 MB by its handle, and by how much free memory shrank."""
    with PoolExecutor(f"local://{WORKERS}") as pool:
        pool.submit(ends, np.ones(2)).result()
        value = np.ones(SCATTERED_ITEMS)
        before = psutil.virtual_memory().available
        handle = pool.scatter(value)
        began = time.perf_counter()
        futures = [pool.submit(ends, handle) for _ in range(SCATTERED_CALLS)]
        least = before
        for future in futures:
            future.result()
            least = min(least, psutil.virtual_memory().available)
        return time.perf_counter() - began, before - least


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("error")
    register_joblib()
    print("| two workers | this pool | loky | ratio |\n|---|---:|---:|---:|")
    for what, case in CASES.items():
        took = measure(case, options.rounds)
        ratio = took["compute"] / took["loky"]
        print(f"| {what} | {took['compute']:.2f} s | {took['loky']:.2f} s | {ratio:.2f} |", flush=True)
    took_s, memory = scattered()
    print(
        f"\n{SCATTERED_CALLS:,} calls with a handle of {8 * SCATTERED_ITEMS / MB:.0f} MB: {took_s:.2f} s, "
        f"{memory / MB:.0f} MB of memory"
    )


if __name__ == "__main__":
    main()
