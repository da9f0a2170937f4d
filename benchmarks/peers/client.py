"""The process of one peer: it starts it, says `first` with the first result, and then measures on command.

Commands come on standard input, answers go to standard output: a line of JSON each. What libraries print goes
to standard error.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from math import sqrt
from typing import Any

from benchmarks.peers.functions import double, fit, noop, sleep_1ms, sleep_10ms, total
from benchmarks.peers.peer import Peer
from benchmarks.peers.rivals import PEERS

ARRAY_ITEMS = 1_000_000  # of 8 bytes


def main() -> None:
    """Serve commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = PEERS[sys.argv[1]]()
    peer.start()
    peer.caller(noop)()
    answers.write("first\n")
    for line in sys.stdin:
        command = json.loads(line)
        case = command.pop("case")
        try:
            value, began, ended = CASES[case](peer, **command)
            answer: dict[str, Any] = {"value": value, "began": began, "ended": ended}
        except Exception as error:  # It is the peer's own: the others are measured all the same.
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    peer.stop()


Measured = tuple[float, float, float]  # the value, and when it began and ended by the system's clock


def each_call(call: Callable[[], object], count: int) -> Measured:
    """The median time of a call in seconds."""
    for _ in range(1 + count // 20):
        call()
    times = [time.monotonic()]
    for _ in range(count):
        call()
        times.append(time.monotonic())
    median = statistics.median(after - before for before, after in itertools.pairwise(times))
    return median, times[0], times[-1]


def all_calls(run: Callable[[int], object], count: int) -> Measured:
    """Calls per second when all are given at once."""
    run(max(count // 20, 10))
    began = time.monotonic()
    run(count)
    ended = time.monotonic()
    return count / (ended - began), began, ended


def lone(peer: Peer, count: int) -> Measured:
    """A no-op, one after another."""
    return each_call(peer.caller(noop), count)


def submit(peer: Peer, count: int) -> Measured:
    """No-ops, all under way at once."""
    return all_calls(lambda count: peer.submit(noop, count), count)


def map_noops(peer: Peer, count: int, chunk: int | None) -> Measured:
    """No-ops through `map`."""
    return all_calls(lambda count: peer.map(noop, range(count), chunk), count)


def short(peer: Peer, count: int, chunk: int | None) -> Measured:
    """Functions of 1 ms through `map`."""
    return all_calls(lambda count: peer.map(sleep_1ms, range(count), chunk), count)


def short_submit(peer: Peer, count: int) -> Measured:
    """Functions of 1 ms through `submit`."""
    return all_calls(lambda count: peer.submit(sleep_1ms, count), count)


def medium(peer: Peer, count: int) -> Measured:
    """Functions of 10 ms through `submit`."""
    return all_calls(lambda count: peer.submit(sleep_10ms, count), count)


class Used:
    """A class of the program."""

    def value(self) -> float:
        """What it is for."""
        return 4.0


def uses_nothing() -> float:
    """As short as `uses_names`."""
    return 2.0


def uses_names() -> float:
    """A function that uses one of a library, one of NumPy, and a class of its module."""
    return float(np.negative(-sqrt(Used().value())))  # noqa: F821  `callers_of_names` imports it.


def names(peer: Peer, count: int, used: bool) -> Measured:
    """A function that uses names, or one that uses nothing, one call after another."""
    return each_call(callers_of_names(peer)[used], count)


@functools.cache
def callers_of_names(peer: Peer) -> dict[bool, Callable[[], object]]:
    """Both, for all turns: what is measured is not the first calls of a function."""
    globals()["np"] = importlib.import_module("numpy")
    return {True: peer.caller(uses_names), False: peer.caller(uses_nothing)}


def scatter(peer: Peer, count: int, scattered: bool) -> Measured:
    """The time of a call with one 8 MB value, scattered or as an argument; all submitted."""
    import numpy as np

    from distribute_challenge import PoolExecutor

    del peer
    ones = np.ones(ARRAY_ITEMS)
    with PoolExecutor() as pool:
        pool.submit(total, ones).result()
        began = time.monotonic()
        value = pool.scatter(ones) if scattered else ones
        for future in [pool.submit(total, value) for _ in range(count)]:
            future.result()
        ended = time.monotonic()
    return (ended - began) / count, began, ended


def fit_rows(peer: Peer, count: int) -> Measured:
    """Calls of 10 ms of scikit-learn on an array of 720 kB."""
    import numpy as np

    rows = np.random.default_rng(0).random((30_000, 3))
    call = peer.caller(fit)
    return each_call(lambda: call(rows), count)


def array(peer: Peer, count: int, items: int = ARRAY_ITEMS) -> Measured:
    """An array of 8 MB there, its double back."""
    import numpy as np

    ones = np.ones(items)
    call = peer.caller(double)
    if not (call(ones) == 2).all():
        raise RuntimeError("a wrong result came back")
    return each_call(lambda: call(ones), count)


CASES: dict[str, Callable[..., Measured]] = {
    "lone": lone,
    "submit": submit,
    "map": map_noops,
    "short": short,
    "short_submit": short_submit,
    "medium": medium,
    "array": array,
    "large": lambda peer, count: array(peer, count, 10 * ARRAY_ITEMS),
    "fit": fit_rows,
    "names": names,
    "scatter": scatter,
}

if __name__ == "__main__":
    main()
