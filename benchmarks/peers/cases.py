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
    Case("array", "an 8 MB array there, another back", "ms", count=10, turns=3),
]

# This pool alone
ALONE = [
    Case("clients", "no-ops of four clients at once, beside one client", "calls/s", count=10_000, turns=2),
    Case("scheduler", "acquire and free in the scheduler alone", "µs", count=2000, turns=3),
    Case("lease_time", "time of a lease on a server, over 100,000 leases", "µs", count=100_000),
    Case("lease_memory", "memory of that server", "MiB", count=100_000),
    Case("move_time", "time of a lease in the scheduler alone, over a million", "µs", count=1_000_000),
    Case("move_memory", "memory of that scheduler", "KiB", count=1_000_000),
    Case("memory", "memory of an idle worker, beside a bare `import rpyc`", "MiB"),
]

CASES = {case.name: case for case in COMPARED + ALONE}

TARGETS = [
    Target("lone", "raw", 2.3),
    Target("lone", "ray", 0.2),
    Target("lone", "dask", 0.05),
    Target("submit", "processpool", 2, at_least=True),
    Target("submit", "ray", 10, at_least=True),
    Target("submit", "dask", 10, at_least=True),
    Target("map", "processpool", 1.0, at_least=True),
    Target("short", "direct", 0.97, at_least=True),
    Target("array", "processpool", 0.5),
    Target("array", "ray", 0.3),
    Target("clients", "one client", 1.0, one="four clients", at_least=True),
    Target("scheduler", "100 workers", 2, one="100,000 workers"),
    Target("lease_time", "the first", 1.2, one="the last"),
    Target("lease_memory", "the first", 1.05, one="the last"),
    Target("move_time", "the first", 1.2, one="the last"),
    Target("move_memory", "the first", 1.05, one="the last"),
    Target("memory", "a bare interpreter", 1.3, one="a worker"),
]

# A value is measured in seconds, calls per second or bytes, and shown in its unit.
SCALES = {"s": 1.0, "ms": 1e3, "µs": 1e6, "calls/s": 1.0, "MiB": 2.0**-20, "KiB": 2.0**-10}
