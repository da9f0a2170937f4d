"""Large buffers: the same bytes at the other end, in memory of its own, and no file left open."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distribute_challenge.calls import regions
from distribute_challenge.calls.buffers import LARGE_BYTES, BytesWrapper, Collector, Parts, Unreadable, unpack

A, B = bytes(range(256)) * 1024, b"b" * (LARGE_BYTES + 7)


def descriptors() -> int:
    gc.collect()
    regions.let_go()
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


@pytest.mark.parametrize("is_writable", [True, False])
@pytest.mark.parametrize("can_share", [True, False])
def test_numbers_in_buffers_are_where_a_processor_wants_them(can_share: bool, is_writable: bool):
    section = b"".join(Parts([B, A], may_share=True).pack(can_share=can_share))
    for buffer in unpack(memoryview(section), is_writable=is_writable):
        assert np.frombuffer(buffer, float, 8).flags.aligned


def test_what_a_receiver_writes_is_not_seen_by_the_next_one():
    parts = Parts([A], may_share=True)
    section = b"".join(parts.pack(can_share=True))
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
    parts = Parts([A], may_share=True)
    section = b"".join(parts.pack(can_share=True))
    number = int.from_bytes(section[5:9], "big")
    other = os.memfd_create("other")
    os.truncate(other, len(A))
    os.dup2(other, number, inheritable=False)
    with pytest.raises(ValueError, match="another one"):
        unpack(memoryview(section))
    os.close(other)
    del parts
    regions.let_go()
    with pytest.raises(ValueError, match="cannot be read"):
        unpack(memoryview(section))


@pytest.mark.parametrize(
    "spoil",
    [lambda section: section[:-1], lambda section: section + b"x", lambda section: b"?" + section[1:]],
    ids=["too short", "too long", "another kind"],
)
def test_buffers_of_another_size_than_is_said_are_refused(spoil: Callable[[bytes], bytes]):
    section = b"".join(Parts([A, B], may_share=False).pack(can_share=False))
    assert len(unpack(memoryview(section))) == 2
    with pytest.raises(ValueError, match="buffers of another size"):
        unpack(memoryview(spoil(section)))


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
    monkeypatch.setattr(regions, "MAX_OPEN", len(regions._mappings) + len(regions._regions) + 2)
    before = descriptors()
    parts = [Parts([A], may_share=True) for _ in range(5)]
    assert sum(part.region is not None for part in parts) >= 2
    received = [unpack(memoryview(b"".join(part.pack(can_share=True)))) for part in parts]
    assert all(bytes(buffer) == A for (buffer,) in received)
    assert descriptors() <= before + 8


def test_a_file_is_used_again_once_nobody_has_it():
    regions.let_go()

    def place(parts: Parts) -> bytes:
        return b"".join(parts.pack(can_share=True))[1:25]  # process, descriptor, device and inode

    first = Parts([A], may_share=True)
    where = place(first)
    (held,) = unpack(memoryview(b"".join(first.pack(can_share=True))))
    del first
    second = Parts([B[: len(A)]], may_share=True)
    assert place(second) != where
    assert bytes(held) == A
    del held, second
    third, fourth = (Parts([data], may_share=True) for data in (B[: len(A)], A))
    assert where in (place(third), place(fourth))
    for parts, data in ((third, B[: len(A)]), (fourth, A)):
        (arrived,) = unpack(memoryview(b"".join(parts.pack(can_share=True))))
        assert bytes(arrived) == data == bytes(parts.load()[0])


def test_a_description_of_what_a_file_held_before_is_not_trusted():
    regions.let_go()
    parts = Parts([A], may_share=True)
    section = b"".join(parts.pack(can_share=True))
    del parts
    parts = Parts([A], may_share=True)
    assert b"".join(parts.pack(can_share=True))[:25] == section[:25]  # The same file, with other contents.
    with pytest.raises(ValueError, match="another one"):
        unpack(memoryview(section))


def test_only_so_much_memory_is_kept():
    before = descriptors()
    sizes = [regions.MIN_SPARE_BYTES, 1 << 20, 12 << 20, 12 << 20, 12 << 20, regions.MAX_SPARE_BYTES + 1]
    parts = [Parts([bytes(size)], may_share=True) for size in [*sizes, 16]]
    while parts:
        del parts[0]
        kept = [file.size for file in regions._spares._files]
        assert len(kept) <= regions.MAX_SPARE
        assert sum(kept) <= regions.MAX_SPARE_BYTES
    assert [size >> 20 for size in kept] == [12, 12]
    assert descriptors() == before


def test_a_forked_child_has_files_of_its_own():
    regions.let_go()
    parts, spare = Parts([A], may_share=True), Parts([A], may_share=True)
    section = b"".join(parts.pack(can_share=True))
    del spare
    child = os.fork()
    if not child:
        new = [Parts([B[: len(A)]], may_share=True) for _ in range(3)]
        del parts, new
        last = Parts([B[: len(A)]], may_share=True)
        (arrived,) = unpack(memoryview(b"".join(last.pack(can_share=True))))
        os._exit(0 if bytes(arrived) == B[: len(A)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (arrived,) = unpack(memoryview(section))
    assert bytes(arrived) == A


def test_a_child_does_not_write_into_a_file_of_its_parent():
    """They have it open together, so the system would say that nobody else has."""
    regions.let_go()
    parts = Parts([A], may_share=True)
    child = os.fork()
    if child == 0:
        del parts  # Here, too, nobody needs it any more.
        more = [Parts([B[: len(A)]], may_share=True) for _ in range(4)]
        os._exit(len(more) != 4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(parts.load()[0]) == A


def test_a_process_that_has_gone_is_told_from_files_that_cannot_be_read():
    parts = Parts([A], may_share=True)
    section = b"".join(parts.pack(can_share=True))
    with subprocess.Popen(["true"]) as gone:
        pass
    of_a_dead_process = section[:1] + gone.pid.to_bytes(4, "big") + section[5:]
    with pytest.raises(Unreadable) as caught:
        unpack(memoryview(of_a_dead_process))
    assert caught.value.is_gone
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.open("/dev/null", os.O_RDONLY)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
    try:
        with pytest.raises(Unreadable) as caught:
            unpack(memoryview(section))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not caught.value.is_gone
