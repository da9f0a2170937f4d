"""What is written and read past brine is, to the byte, what brine would have written and read."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpyc.core import brine, consts

from distribute_challenge.wire.messages import (
    FIRST_NUMBER,
    REQUEST,
    MethodCall,
    load_reply,
    number_part,
    value_content,
)

MANY = settings(max_examples=int(os.environ.get("EXAMPLES", "200")), deadline=None, database=None)
REFERENCE = ("a.method", 12, 345)
CALL = MethodCall(REFERENCE)
NUMBERS = st.integers(FIRST_NUMBER, 1 << 70)
BYTES = st.binary(max_size=8) | st.binary(min_size=250, max_size=260) | st.binary(max_size=5000)
TEXTS = st.text(max_size=300) | st.integers(1, 40_000).map(lambda count: "é" * count)
PLAIN = st.none() | st.booleans() | st.integers() | TEXTS | BYTES
ARGUMENTS = st.tuples(TEXTS, BYTES) | st.lists(PLAIN, max_size=4).map(tuple)


def as_brine_has_it(args: tuple[Any, ...]) -> bytes:
    boxed = (consts.LABEL_LOCAL_REF, REFERENCE), (consts.LABEL_VALUE, args), (consts.LABEL_VALUE, ())
    return brine.dump((consts.HANDLE_CALL, (consts.LABEL_TUPLE, boxed)))


@MANY
@given(NUMBERS, ARGUMENTS)
def test_calls(number: int, args: tuple[Any, ...]):
    content = b"".join(CALL.content(args))
    assert content == as_brine_has_it(args)
    part = number_part(number)
    assert part + content == brine.dump((number, None))[:-1] + content
    assert CALL.read(REQUEST + part + content) == (part, args)
    assert MethodCall(("another", 1, 2)).read(REQUEST + part + content) is None


@MANY
@given(NUMBERS, PLAIN | st.tuples(PLAIN, PLAIN))
def test_replies(number: int, value: Any):
    content = b"".join(value_content(value))
    assert content == brine.dump((consts.LABEL_VALUE, value))
    message = REQUEST + number_part(number) + content
    assert load_reply(message) == (number_part(number), (consts.LABEL_VALUE, value))


def outcome(read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        return type(error)


@MANY
@given(st.data(), st.tuples(TEXTS, BYTES))
def test_what_is_cut_short_or_changed_is_read_as_brine_reads_it(data: st.DataObject, args: tuple[str, bytes]):
    head = REQUEST + number_part(FIRST_NUMBER)
    message = bytearray(head + b"".join(CALL.content(args)))
    begin = message.find(brine.dump(args))
    end = begin + len(brine.dump(args))
    if data.draw(st.booleans()):
        message[data.draw(st.integers(begin, end - 1))] = data.draw(st.integers(0, 255))
    else:
        first = data.draw(st.integers(begin, end))
        del message[first : data.draw(st.integers(first, end))]
    sent = bytes(message)
    read = outcome(lambda: CALL.read(sent))
    as_brine = outcome(lambda: brine.load(sent[begin:]))
    after = b"".join(CALL.content(args)).partition(brine.dump(args))[2]
    if isinstance(as_brine, tuple) and sent == head + CALL.content(())[0] + brine.dump(as_brine) + after:
        assert read == (head[1:], as_brine)
    elif isinstance(as_brine, type):
        assert read is None or read is as_brine
    else:
        assert read is None  # It is left to RPyC.


@MANY
@given(st.data(), BYTES)
def test_replies_that_are_cut_short_or_changed_are_read_so_too(data: st.DataObject, value: bytes):
    message = bytearray(REQUEST + number_part(FIRST_NUMBER) + b"".join(value_content(value)))
    begin = len(message) - len(b"".join(value_content(value)))
    if data.draw(st.booleans()):
        message[data.draw(st.integers(begin, len(message) - 1))] = data.draw(st.integers(0, 255))
    else:
        del message[data.draw(st.integers(begin, len(message))) :]
    sent = bytes(message)
    assert outcome(lambda: load_reply(sent)[1]) == outcome(lambda: brine.load(sent[begin:]))


@pytest.mark.parametrize("value", [1, True, 1.0, 0, False, -0.0, "1", b"1", None, (1,), (True,)], ids=repr)
def test_what_comes_again_and_again_is_of_its_own_type(value: Any):
    """1 and True are equal, and what was read or written before is remembered."""
    head = REQUEST + number_part(FIRST_NUMBER)
    for _ in range(2):
        read = CALL.read(head + b"".join(CALL.content((value,))))
        assert read is not None
        assert repr(read[1]) == repr((value,))
        assert b"".join(value_content(value)) == brine.dump((consts.LABEL_VALUE, value))
