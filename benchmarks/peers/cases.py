"""What is measured, and what is promised of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One thing that peers do.

    `count` is how many calls make a turn, `turns` how many turns the light peers have in each round. With
    `by_chunk`, the peers' best chunk size is looked for.
    """

    name: str
    title: str
    unit: str
    count: int = 0
    turns: int = 0
    by_chunk: bool = False

    @property
    def is_time(self) -> bool:
        """Whether less is better."""
        return not self.unit.endswith("/s")


@dataclass(frozen=True)
class Target:
    """A promise: the ratio of `one` to `other` in a case is at most, or at least, `limit`."""

    case: str
    other: str
    limit: float
    one: str = "pool"
    at_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Whether the promise is kept."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


# Beside peers
COMPARED = [
    Case("startup", "from nothing to the first result", "s"),
    Case("lone", "a lone no-op, there and back", "µs", count=200, turns=5),
    Case("submit", "5,000 no-ops through `submit`", "calls/s", count=5000, turns=3),
    Case("map", "100,000 no-ops through `map`", "calls/s", count=100_000, turns=5, by_chunk=True),
    Case("short", "2,000 functions of 1 ms through `map`", "calls/s", count=2000, turns=2, by_chunk=True),
    Case("short_submit", "2,000 functions of 1 ms through `submit`", "calls/s", count=2000, turns=1),
    Case("medium", "400 functions of 10 ms through `submit`", "calls/s", count=400, turns=1),
    Case("array", "an 8 MB array there, another back", "ms", count=10, turns=3),
    Case("large", "an 80 MB array there, another back", "ms", count=3, turns=1),
    Case("fit", "10 ms of scikit-learn on 720 kB", "ms", count=10, turns=3),
]

# This pool alone
ALONE = [
    Case("clients", "no-ops of four clients at once, beside one client", "calls/s", count=10_000, turns=2),
    Case("names", "a lone function that uses names of libraries and of its script", "µs", count=20, turns=50),
    Case("scatter", "a short function of an 8 MB value, 500 submitted", "µs", count=500, turns=1),
    Case("lost", "from the end of a worker to its successor's first answer", "ms", turns=4),
    Case("scheduler", "acquire and free in the scheduler alone", "µs", count=2000, turns=3),
    Case("lease_time", "processor time of a server for a lease, over 100,000", "µs", count=100_000),
    Case("lease_memory", "memory of that server", "MiB", count=100_000),
    Case("move_time", "time of a lease in the scheduler alone, over a million", "µs", count=1_000_000),
    Case("move_memory", "memory of that scheduler", "KiB", count=1_000_000),
    Case("memory", "memory of an idle worker, beside a bare `import rpyc`", "MiB"),
    Case("idle", "processor time while nobody calls", "s"),
]

CASES = {case.name: case for case in COMPARED + ALONE}

TARGETS = [
    Target("startup", "loky", 0.9),
    Target("lone", "raw", 2.2),
    Target("lone", "processpool", 1.1),
    Target("lone", "raw", 1.3, one="private"),
    Target("lone", "processpool", 0.8, one="private"),
    Target("lone", "ray", 0.2),
    Target("lone", "dask", 0.05),
    Target("submit", "processpool", 2, at_least=True),
    Target("submit", "ray", 10, at_least=True),
    Target("submit", "dask", 10, at_least=True),
    Target("map", "processpool", 1.2, at_least=True),
    Target("short", "direct", 0.97, at_least=True),
    Target("short_submit", "processpool", 1.03, at_least=True),
    Target("short_submit", "loky", 1.03, at_least=True),
    Target("medium", "direct", 0.985, at_least=True),
    Target("array", "processpool", 0.1),
    Target("array", "ray", 0.3),
    Target("large", "processpool", 0.3),
    Target("fit", "processpool", 1.05),
    Target("clients", "one client", 0.97, one="four clients", at_least=True),
    Target("names", "one that uses nothing", 1.2, one="one that uses names"),
    Target("scatter", "the value as an argument", 0.02, one="the value scattered"),
    Target("lost", "import rpyc", 0.5, one="a lost worker"),
    Target("scheduler", "100 workers", 2, one="100,000 workers"),
    Target("lease_time", "the first", 1.2, one="the last"),
    Target("lease_memory", "the first", 1.05, one="the last"),
    Target("move_time", "the first", 1.2, one="the last"),
    Target("move_memory", "the first", 1.05, one="the last"),
    Target("memory", "a bare interpreter", 1.3, one="a worker"),
    Target("idle", "the time", 0.002, one="a server with 4 workers"),
    Target("idle", "the time", 0.0002, one="a client with an executor"),
]

# A value is measured in seconds, calls per second or bytes, and shown in its unit.
SCALES = {"s": 1.0, "ms": 1e3, "µs": 1e6, "calls/s": 1.0, "MiB": 2.0**-20, "KiB": 2.0**-10}
