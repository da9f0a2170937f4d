"""What a profile of a million rows costs: whether its last rows are as cheap as its first, and to draw it.

    python benchmarks/long_profile.py

Blocks of 1,000 rows, half of them samples, are written alternately to a new file and to one that is a
million rows long. The promises: a ratio of at most 1.2, and a drawing in at most 30 s and 1,500 MiB. The
exit code is 1 if one is missed.
"""

from __future__ import annotations

import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from distribute_challenge.record.files import RecordFile  # noqa: E402  It is found only now.
from distribute_challenge.record.profile import HEADER, Change, Rows, Usage  # noqa: E402

WORKERS = 4
BLOCK = 1000
LONG = 1_000_000
PAIRS = 200
MOST_RATIO = 1.2
MOST_S = 30
MOST_MIB = 1500


class Writer:
    """One profile."""

    def __init__(self, path: Path) -> None:
        self._file = RecordFile(path, HEADER)
        self._rows = Rows(WORKERS)
        self._written = 0
        self._chance = random.Random(1)

    def seconds_for_a_block(self) -> float:
        """Write 1,000 rows. Of four, one is an acquire, one a free, and two are samples."""
        samples = [[self._usage() for _ in range(WORKERS)] for _ in range(BLOCK // 2)]
        began = time.perf_counter()
        rows = []
        for number, usages in enumerate(samples, start=self._written // 2):
            event, busy = ("free", 0) if number % 2 else ("acquire", 1)
            worker = number // 2 % WORKERS
            rows.append(
                self._rows.change(Change(number / 500, event, worker, busy, (number + 1) // 2, 0, 0, 0))
            )
            rows.append(self._rows.sample(number / 500, usages))
        self._file.write("".join(rows))
        self._written += BLOCK
        return time.perf_counter() - began

    def _usage(self) -> Usage:
        return Usage(self._chance.uniform(0, 100), self._chance.randrange(2**25, 2**30, 4096))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def main() -> int:
    """Measure and print; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.csv"
        ratio, rate = row_cost(path)
        print(f"rows written: {rate:,.0f} per second after {LONG:,} rows")
        print(
            f"time of {BLOCK:,} rows after a million / at first, median of {PAIRS} pairs: {ratio:.3f} "
            f"(at most {MOST_RATIO})"
        )
        size = path.stat().st_size / 2**20
        took, peak = drawing(path)
        print(
            f"{size:.0f} MiB of profile drawn in {took:.1f} s, {peak:,.0f} MiB "
            f"(at most {MOST_S} s, {MOST_MIB:,} MiB)"
        )
    return int(ratio > MOST_RATIO or took > MOST_S or peak > MOST_MIB)


def row_cost(path: Path) -> tuple[float, float]:
    """The time of rows at the end of a long profile beside those of a new one; how many go in a second."""
    long = Writer(path)
    for _ in range(LONG // BLOCK):
        long.seconds_for_a_block()
    ratios, rates = [], []
    for number in range(PAIRS):
        short = Writer(path.with_name(f"short_{number}.csv"))
        first, last = short.seconds_for_a_block(), long.seconds_for_a_block()
        short.close()
        ratios.append(last / first)
        rates.append(BLOCK / last)
    long.close()
    return statistics.median(ratios), statistics.median(rates)


def drawing(path: Path) -> tuple[float, float]:
    """How long the grapher takes, in seconds, and its memory, in MiB."""
    began = time.perf_counter()
    grapher = [sys.executable, str(ROOT / "grapher.py"), str(path), "--out", str(path.parent)]
    subprocess.run(grapher, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
