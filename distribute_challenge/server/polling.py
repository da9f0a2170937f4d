"""Waiting for descriptors, for any length of time."""

from __future__ import annotations

import select

_MONTH_S = 2e6  # About as long as the system can wait.


def await_any(descriptors: dict[int, int], timeout_s: float | None) -> bool:
    """Wait until one of the descriptors has one of its events (a mask of `select.POLL...`).

    False if that takes more than `timeout_s` seconds, 0 or more; None, like months, sets no limit.
    """
    poller = select.poll()
    for descriptor, events in descriptors.items():
        poller.register(descriptor, events)
    return bool(poller.poll(None if timeout_s is None or timeout_s > _MONTH_S else timeout_s * 1000))
