"""Large buffers: the same bytes at the other end, in memory of its own, and no file left open."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from distribute_challenge.wire import buffers
from distribute_challenge.wire.buffers import LARGE_BYTES, BytesWrapper, Collector, Parts, Region, unpack

A, B = bytes(range(256)) * 1024, b"b" * (LARGE_BYTES + 7)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("can_share", [True, False])
@pytest.mark.parametrize("may_share", [True, False])
def test_buffers_arrive_as_they_were_and_may_be_written_to(can_share: bool, may_share: bool):
    before = descriptors()
    parts = Parts([A, B], may_share=may_share)
    section = b"".join(parts.pack(can_share=can_share))
    assert (len(section) < 100) == (can_share and may_share)
    arrived = unpack(memoryview(section))
    assert [bytes(buffer) for buffer in arrived] == [A, B]
    for buffer in arrived:
        memoryview(buffer)[0] = 77
    assert [bytes(buffer)[:2] for buffer in arrived] == [b"M\1", b"Mb"]
    del arrived, buffer, parts
    assert descriptors() == before


def test_what_a_receiver_writes_is_not_seen_by_the_next_one():
    parts = Parts([A], may_share=True)
    (section,) = parts.pack(can_share=True)
    (first,) = unpack(memoryview(section))
    memoryview(first)[:4] = b"mine"
    (second,) = unpack(memoryview(section))
    assert bytes(second) == A == bytes(parts.load()[0])


def test_buffers_are_taken_as_they_are_at_the_call():
    array = np.zeros(LARGE_BYTES, np.uint8)
    shared, copied = (Parts([pickle.PickleBuffer(array)], may_share=share) for share in (True, False))
    array += 1
    assert not any(shared.load()[0])
    assert not any(copied.load()[0])


def test_a_file_that_has_gone_or_become_another_one_is_not_trusted():
    region = Region([A])
    section = region.describe()
    number = int.from_bytes(section[5:9], "big")
    other = os.memfd_create("other")
    os.truncate(other, len(A))
    os.dup2(other, number, inheritable=False)
    with pytest.raises(ValueError, match="another one"):
        unpack(memoryview(section))
    os.close(other)
    del region
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(memoryview(section))


def test_only_large_buffers_leave_the_pickle():
    large = Collector()
    arrays = [np.zeros(10), np.zeros(LARGE_BYTES), np.zeros((2, LARGE_BYTES))[:, ::2]]
    data = pickle.dumps([*arrays, *map(BytesWrapper(), [A, b"small"])], 5, buffer_callback=large)
    assert [buffer.raw().nbytes for buffer in large.buffers] == [arrays[1].nbytes, len(A)]
    *back, a, small = pickle.loads(data, buffers=large.buffers)
    assert all(map(np.array_equal, back, arrays))
    assert (a, small) == (A, b"small")
    assert type(a) is bytes


def test_not_more_descriptors_are_taken_than_allowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffers, "MAX_OPEN", len(buffers._mappings) + len(buffers._regions) + 2)
    before = descriptors()
    parts = [Parts([A], may_share=True) for _ in range(5)]
    assert sum(part.region is not None for part in parts) >= 2
    received = [unpack(memoryview(b"".join(part.pack(can_share=True)))) for part in parts]
    assert all(bytes(buffer) == A for (buffer,) in received)
    assert descriptors() <= before + 8
