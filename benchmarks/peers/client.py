"""The process of one peer: it starts it, says `first` with the first result, and then measures on command.

Commands come on standard input, answers go to standard output: a line of JSON each. What libraries print goes
to standard error.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks.peers.functions import double, noop, sleep_1ms
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


def array(peer: Peer, count: int) -> Measured:
    """An array of 8 MB there, its double back."""
    import numpy as np

    ones = np.ones(ARRAY_ITEMS)
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
    "array": array,
}

if __name__ == "__main__":
    main()
