"""Scattered values, where they are received: there as long as any connection holds them."""

from __future__ import annotations

import pickle
from unittest.mock import Mock

import pytest

from distribute_challenge.calls import payload, scattered
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.program import current
from distribute_challenge.calls.regions import MAX_OPEN
from distribute_challenge.calls.scattered import TOKEN_BYTES, Store
from distribute_challenge.client.parcels.parcel import Sent
from distribute_challenge.client.parcels.shipping import Shipment, scatter
from distribute_challenge.values import PROTOCOL

ONE, TWO = b"1" * TOKEN_BYTES, b"2" * TOKEN_BYTES


def section(new: dict[bytes, object], gone: tuple[bytes, ...] = ()) -> bytes:
    """What comes with a call."""
    packed = []
    for token, value in new.items():
        parts = Parts([pickle.dumps(((value,), {}), PROTOCOL)], may_share=False)
        packed.append((token, b"".join(parts.pack(can_share=False))))
    return pickle.dumps((packed, gone), PROTOCOL)


def test_a_value_stays_until_the_last_connection_lets_it_go():
    store, first, second = Store(), set[bytes](), set[bytes]()
    for held in (first, second, second):  # One may bring it again: it was not sure that it had gone.
        store.take(section({ONE: "one"}), held)
    assert store.value(ONE) == "one"
    store.release(first, [ONE])
    assert store.value(ONE) == "one"
    store.release(first, [ONE])  # It holds it no more.
    assert store.value(ONE) == "one"
    store.take(section({TWO: "two"}, gone=(ONE,)), second)
    assert store.value(TWO) == "two"
    with pytest.raises(LookupError, match="has not come"):
        store.value(ONE)


def test_a_value_that_could_not_be_opened_once_is_opened_when_it_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
):
    """It is not sent again."""
    store = Store()
    store.take(section({ONE: "one"}), set())
    with monkeypatch.context() as patched:
        patched.setattr(scattered, "unpack", Mock(side_effect=ValueError("no descriptors left")))
        with pytest.raises(ValueError, match="no descriptors"):
            store.value(ONE)
    assert store.value(ONE) == "one"


def test_what_has_gone_may_come_again():
    store, held = Store(), set[bytes]()
    for value in ("one", "another"):
        store.take(section({ONE: value}), held)
        assert store.value(ONE) == value
        store.release(held, list(held))


def test_each_program_has_its_own(monkeypatch: pytest.MonkeyPatch):
    """Whose classes are those of its own modules."""
    store = Store()
    store.take(section({ONE: ["one"]}), set())
    first = store.value(ONE)
    assert store.value(ONE) is first
    before = current.id
    monkeypatch.setattr(current, "id", b"another")
    second = store.value(ONE)
    assert (second, second is first) == (first, False)
    store.forget(before)
    assert store.value(ONE) is second
    monkeypatch.setattr(current, "id", before)
    assert store.value(ONE) is not first


@pytest.mark.parametrize("limit", ["of workers", "of calls"])
def test_what_was_refused_with_its_call_goes_with_the_next(monkeypatch: pytest.MonkeyPatch, limit: str):
    handles = [scatter(bytes(100_000)), scatter(bytes(100_000))]
    shipment, sent = Shipment(len), Sent()
    both, one = (shipment.parcel((some,), {}) for some in (handles, handles[:1]))
    monkeypatch.setattr(payload, "MAX_BYTES", 150_000 if limit == "of calls" else payload.MAX_BYTES)
    at_most = 150_000 if limit == "of workers" else payload.MAX_BYTES
    with pytest.raises(OverflowError):
        both.pack(sent, can_share=False, limit=at_most)
    assert len(one.pack(sent, can_share=False, limit=at_most)) > 100_000


def test_small_values_take_no_files(monkeypatch: pytest.MonkeyPatch):
    """Or large ones had none any more."""
    handles = [scatter(number) for number in range(MAX_OPEN)]
    assert all(len(handle.pack(can_share=True)) < 50 for handle in handles)
    assert scatter(bytes(1 << 20)).pack(can_share=True).startswith(b"s")
