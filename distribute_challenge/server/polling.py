"""Waiting for descriptors, for any length of time."""

from __future__ import annotations

import select
import time

_LONGEST_POLL_S = 3600.0  # The system's own limit is 24 days.


def await_any(descriptors: dict[int, int], timeout_s: float | None) -> bool:
    """Wait until one of the descriptors has one of its events (a mask of `select.POLL...`).

    False if that takes more than `timeout_s` seconds; None sets no limit.
    """
    poller = select.poll()
    for descriptor, events in descriptors.items():
        poller.register(descriptor, events)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = _LONGEST_POLL_S if deadline is None else max(deadline - time.monotonic(), 0)
        if poller.poll(min(left, _LONGEST_POLL_S) * 1000):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
