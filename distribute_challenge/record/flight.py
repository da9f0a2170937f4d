"""The flight recorder: memory in which a worker writes what it runs, and which its server reads.

This file owns the layout of that memory, and knows neither calls nor processes. What was written is there
after the worker's death, however sudden. One process writes, one reads; neither waits for the other:

    0     id of the call that it began last for a client (8 bytes), and how many functions it began so (8)
    16    how many bytes of records were written in all (8), and how many were read (8)
    256   for each of the `SLOTS` slots 1 if it is in use (1)
    4096  slots of `SLOT_BYTES` for calls that run: begun, label
    ...   a ring of records, one for each call that has ended: ended, begun, label, error; up to the end

    ended   size of the record (4), how many functions returned (4) and raised (4), 1 if it ran within another
            call (1), length of error (2), monotonic seconds of its end (8), seconds that the functions took
            (8), bytes returned (8)
    begun   monotonic seconds of its begin (8), Unix seconds when the client had it or nan (8), bytes sent
            (8), id (8), length of label (2)
    label   name of the function, a zero byte, client

A record that does not fit before the ring's end begins at its start. A size of 0 says so, where 4 bytes are
left for that. Where the ring is full, since the server has been stopped for long, a worker keeps its records.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import mmap
import os
import struct
import threading
import time
import weakref
from collections import deque

# What the memory is called, with the worker's port behind it: it is found among what its server has open.
NAME = "flight recorder "
ID_BYTES = 8
SLOTS = 256  # What runs deeper than that, in place, is only recorded when it ends.
SLOT_BYTES = 512
USED_AT, SLOTS_AT = 256, 4096
RING_AT = 1 << 18  # behind the slots, where a page begins, whatever its size
MEMORY_BYTES = RING_AT + (1 << 21)
AGAIN_S = 0.02
MAX_ERROR = 200  # letters

COUNTER = struct.Struct("<Q")
_LAST = struct.Struct("<8sQ")
FUNCTIONS_AT, WRITTEN_AT, READ_AT = 8, 16, 24
SIZE = struct.Struct("<I")
NO_RECORD = bytes(SIZE.size)
BEGUN = struct.Struct("<ddQ8sH")
ENDED = struct.Struct("<IIIBHddQ")
_MAX_LABEL = SLOT_BYTES - BEGUN.size
_MAX_CLIENT = 360  # bytes: a name of a file, a number, a host
_CUT = "…".encode()

Memory = bytearray | mmap.mmap


# A call that runs, as its recorder remembers it: its slot, or None, since too many run within each other;
# `begun` and label, as they are written; whether it runs within another.
Flight = tuple[int | None, bytes, bool]


class FlightRecorder:
    """The writing end. Safe to use from any thread; what a forked child runs is not recorded.

    >>> from distribute_challenge.record.flight_reader import FlightReader
    >>> memory = bytearray(MEMORY_BYTES)
    >>> recorder, reader = FlightRecorder(memory), FlightReader(memory)
    >>> flight = recorder.begin(b"12345678", label("func", "challenge.py:7"), sent=100)
    >>> [(call.function, call.client) for call in reader.running()]
    [('func', 'challenge.py:7')]
    >>> recorder.end(flight, finished=1, failed=0, seconds=3.0, returned=14)
    >>> [(call.begun.function, call.finished) for call in reader.ended()], reader.running()
    ([('func', 1)], [])
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory  # None: nobody reads it, and nothing is written
        self._lock = threading.Lock()  # guards the ring's counters: threads of functions may move them
        self._written = self._read = self._functions = 0
        self._unwritten: deque[bytes] = deque()  # records for which the ring has had no room
        self._is_trying = False  # whether a thread writes those as soon as there is
        self._slots = [*reversed(range(SLOTS))]  # those that are free
        _recorders.add(self)

    def write_to(self, memory: Memory) -> None:
        """Write to this memory from now on, which is all zeros."""
        self._memory = memory

    def begin(
        self, id_: bytes, label: bytes, sent: int, queued: float = math.nan, *, is_inside: bool = False
    ) -> Flight:
        """Note that a call begins, of `sent` bytes.

        `queued` is Unix seconds when its client had it; `is_inside` says that it runs within another call.
        """
        label = label[:_MAX_LABEL]
        begun = BEGUN.pack(time.monotonic(), queued, sent, id_, len(label)) + label
        slot, memory = None, self._memory
        if memory is not None:
            try:
                slot = self._slots.pop()
            except IndexError:
                slot = None
            else:
                at = SLOTS_AT + slot * SLOT_BYTES
                memory[at : at + len(begun)] = begun
                memory[USED_AT + slot] = 1
            if not is_inside:
                self._functions += 1
                _LAST.pack_into(memory, 0, id_, self._functions)
        return slot, begun, is_inside

    def end(
        self, flight: Flight, *, finished: int, failed: int, seconds: float, returned: int, error: str = ""
    ) -> None:
        """Note that it has ended: how many functions returned and raised, and how many bytes go back."""
        memory = self._memory
        if memory is None:
            return
        slot, begun, is_inside = flight
        if not is_inside and finished + failed != 1:  # It was a chunk, or an initializer.
            self._functions += finished + failed - 1
            COUNTER.pack_into(memory, FUNCTIONS_AT, self._functions)
        text = error[:MAX_ERROR].encode(errors="replace") if error else b""
        size = ENDED.size + len(begun) + len(text)
        ended = ENDED.pack(size, finished, failed, is_inside, len(text), time.monotonic(), seconds, returned)
        with self._lock:
            self._unwritten.append(ended + begun + text)
            if not self._is_trying and not self._write(memory):
                with contextlib.suppress(RuntimeError):  # Too many threads: the next call tries, too.
                    # Not one of `threading`: those are the function's.
                    _thread.start_new_thread(self._try_again, (memory,))
                    self._is_trying = True
        if slot is not None:
            memory[USED_AT + slot] = 0
            self._slots.append(slot)

    def leave_to_parent(self) -> None:
        """In a forked child: write to nobody's memory."""
        self._lock = threading.Lock()
        self._memory = None

    def _try_again(self, memory: Memory) -> None:
        """Write what is left as soon as there is room: perhaps no call follows."""
        while True:
            time.sleep(AGAIN_S)  # Nothing tells when the server has read.
            with self._lock:
                if self._write(memory):
                    self._is_trying = False
                    return

    def _write(self, memory: Memory) -> bool:
        """Write what is unwritten; False if there is no room for all."""
        while self._unwritten:
            if not self._append(memory, self._unwritten[0]):
                return False
            self._unwritten.popleft()
        return True

    def _append(self, memory: Memory, record: bytes) -> bool:
        """Write a record to the ring; False if there is no room, since others have not been read."""
        ring, size = len(memory) - RING_AT, len(record)
        at = self._written % ring
        end = self._written + size
        has_to_skip = at + size > ring
        if has_to_skip:
            end += ring - at
        if end - self._read > ring:
            self._read = COUNTER.unpack_from(memory, READ_AT)[0]
            if end - self._read > ring:
                return False
        if has_to_skip:
            if ring - at >= SIZE.size:
                memory[RING_AT + at : RING_AT + at + SIZE.size] = NO_RECORD
            at = 0
        at += RING_AT
        memory[at : at + size] = record
        self._written = end
        COUNTER.pack_into(memory, WRITTEN_AT, end)
        return True


def recorder_file(port: int) -> int:
    """The descriptor of a file for a worker's flight recorder: in memory, where there is such a thing."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create(f"{NAME}{port}", os.MFD_CLOEXEC)
    else:
        import tempfile  # Late: Linux needs it never.

        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.truncate(file, MEMORY_BYTES)
    return file


def label(function: str, client: str) -> bytes:
    """A function's name, cut where it is long, and its client, as recorders take them.

    >>> label("func", "challenge.py:7")
    b'func\\x00challenge.py:7'
    """
    name = function[:_MAX_LABEL].replace("\0", " ").encode(errors="replace")
    whose = b"\0" + client.encode(errors="replace")[:_MAX_CLIENT]
    room = _MAX_LABEL - len(whose)
    if len(name) > room:
        name = name[: room - len(_CUT)].decode(errors="ignore").encode() + _CUT
    return name + whose


_recorders: weakref.WeakSet[FlightRecorder] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for recorder in list(_recorders):
        recorder.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
