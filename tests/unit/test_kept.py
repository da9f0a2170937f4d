"""Leases that are kept between lone calls: which ones, and for how long."""

from __future__ import annotations

import time
from unittest.mock import Mock

import pytest

from distribute_challenge.client.peers import kept
from distribute_challenge.client.peers.kept import KeptLease, KeptLeases
from tests.running import HANG_S


def lease(taken_at: float) -> KeptLease:
    return KeptLease(Mock(), 1, taken_at, (1, 0), owner=object())


def test_a_lease_that_was_taken_long_ago_is_not_kept_so_that_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(kept, "KEEP_S", HANG_S)  # No lease is given back because of the time this takes.
    leases, now = KeptLeases(put_server=Mock()), time.monotonic()
    young, old = lease(taken_at=now), lease(taken_at=now - 2 * HANG_S)
    assert not leases.put(young)  # The first of the calls may be the only one.
    assert not leases.put(old)
    assert leases.put(young)
    assert leases.all() == [young]
    leases.close()
    assert young.server.free.call_count == 1
    assert not old.server.free.called
