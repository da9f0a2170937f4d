"""What a profile of a million rows costs: whether its last rows are as cheap as its first, and to draw it.

    python benchmarks/long_profile.py

Blocks of 1,000 rows are written alternately to a new file and to one that is a million rows long.
The promises: a ratio of about 1, and a drawing in under 30 s and 1.5 GB.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from distribute_challenge.profile.record import Change, Rows, open_profile  # noqa: E402  It is found only now.

WORKERS = 4
BLOCK = 1000
LONG = 1_000_000
PAIRS = 200


class Writer:
    """One profile."""

    def __init__(self, path: Path) -> None:
        self._file = open_profile(path)
        self._rows = Rows(WORKERS)
        self._written = 0

    def seconds_for_a_block(self) -> float:
        """Write 1,000 rows."""
        began = time.perf_counter()
        rows = []
        for number in range(self._written, self._written + BLOCK):
            event = "free" if number % 2 else "acquire"
            busy = 1 - number % 2
            worker = number // 2 % WORKERS
            rows.append(self._rows.change(Change(number / 1000, event, worker, busy, number // 2, 0, 0)))
        self._file.write("".join(rows).encode())
        self._written += BLOCK
        return time.perf_counter() - began

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.csv"
        long = Writer(path)
        for _ in range(LONG // BLOCK):
            long.seconds_for_a_block()
        ratios, rates = [], []
        for number in range(PAIRS):
            short = Writer(Path(folder) / f"short_{number}.csv")
            first, last = short.seconds_for_a_block(), long.seconds_for_a_block()
            short.close()
            ratios.append(last / first)
            rates.append(BLOCK / last)
        long.close()
        print(f"rows written: {statistics.median(rates):,.0f} per second after {LONG:,} rows")
        ratio = statistics.median(ratios)
        print(f"time of 1,000 rows after a million / at first, median of {PAIRS} pairs: {ratio:.3f}")

        size = path.stat().st_size / 2**20
        began = time.perf_counter()
        grapher = [sys.executable, str(ROOT / "grapher.py"), str(path), "--out", folder]
        subprocess.run(grapher, check=True, stdout=subprocess.DEVNULL)
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{size:.0f} MiB of profile drawn in {took:.1f} s, {peak:.0f} MiB (at most 30 s, 1,500 MiB)")


if __name__ == "__main__":
    main()
