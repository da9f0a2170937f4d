"""Scattered values, where they are received: there as long as any connection holds them."""

from __future__ import annotations

import pickle
from unittest.mock import Mock

import pytest

from distribute_challenge.calls import scattered
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.scattered import TOKEN_BYTES, Store
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
