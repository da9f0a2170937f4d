"""The flight recorder: memory in which a worker writes what it runs, and which its server reads.

It owns the layout of that memory, and knows neither calls nor processes. What was written is there after the
worker's death, however sudden. One process writes, one reads; neither waits for the other:

    0     id of the call that it began last for a client (8 bytes), and how many functions it began so (8)
    16    how many bytes of records were written in all (8), and how many were read (8)
    256   `SLOTS` slots of `SLOT_BYTES` for calls that run: 1 if it is in use (1), begun, label
    ...   a ring of records, one for each call that has ended: ended, begun, label, error

    ended   size of the record (4), how many functions returned (4) and raised (4), 1 if it ran within another
            call (1), length of error (2), monotonic seconds of its end (8), seconds that the functions took
            (8), bytes returned (8)
    begun   monotonic seconds of its begin (8), Unix seconds when the client had it or nan (8), bytes sent
            (8), id (8), length of label (2)
    label   name of the function, a zero byte, client

A record that does not fit before the ring's end begins at its start. A size of 0 says so, where 4 bytes are
left for that.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

# What the memory is called, with the worker's port behind it: it is found among what its server has open.
NAME = "flight recorder "
ID_BYTES = 8
SLOTS = 8
SLOT_BYTES = 512
RING_BYTES = 1 << 17
_SLOTS_AT = 256
_RING_AT = _SLOTS_AT + SLOTS * SLOT_BYTES
MEMORY_BYTES = _RING_AT + RING_BYTES
MAX_ERROR = 200  # letters
# Successive calls of one function that take no longer are merged, if they are no further apart.
SHORT_S = 0.02

_COUNTER = struct.Struct("<Q")
_LAST = struct.Struct("<8sQ")
_FUNCTIONS_AT, _WRITTEN_AT, _READ_AT = 8, 16, 24
_SIZE = struct.Struct("<I")
_NO_RECORD = bytes(_SIZE.size)
_BEGUN = struct.Struct("<ddQ8sH")
_ENDED = struct.Struct("<IIIBHddQ")
_RECORD = struct.Struct(_ENDED.format + _BEGUN.format[1:])
_MAX_LABEL = SLOT_BYTES - 1 - _BEGUN.size

Memory = bytearray | mmap.mmap


class Begun(NamedTuple):
    """A call that a worker has begun. Times are those of `time.monotonic`, but `queued` is Unix seconds."""

    started: float
    queued: float  # nan: its client did not say
    sent: int  # bytes
    id: bytes
    function: str
    client: str


@dataclass
class Ended:
    """A call that has ended, or several short ones: how many functions returned and raised, and why."""

    begun: Begun  # the first one
    sent: int  # bytes
    ended: float
    seconds: float  # that the functions took
    returned: int  # bytes
    finished: int
    failed: int
    is_inside: bool  # it ran within another call, in place
    error: str  # of the first that raised


# A call that runs, as its recorder remembers it: where it is written, or 0 if nowhere, since too many run
# within each other; `begun` and label, as they are written; whether it runs within another.
Flight = tuple[int, bytes, bool]


class FlightRecorder:
    """The writing end. Safe to use from any thread; what a forked child runs is not recorded.

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
        self._slots = [_SLOTS_AT + number * SLOT_BYTES for number in reversed(range(SLOTS))]
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
        begun = _BEGUN.pack(time.monotonic(), queued, sent, id_, len(label)) + label
        slot, memory = 0, self._memory
        if memory is not None:
            try:
                slot = self._slots.pop()
            except IndexError:
                slot = 0
            else:
                memory[slot + 1 : slot + 1 + len(begun)] = begun
                memory[slot] = 1
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
            _COUNTER.pack_into(memory, _FUNCTIONS_AT, self._functions)
        text = error[:MAX_ERROR].encode(errors="replace") if error else b""
        size = _ENDED.size + len(begun) + len(text)
        ended = _ENDED.pack(size, finished, failed, is_inside, len(text), time.monotonic(), seconds, returned)
        with self._lock:
            self._unwritten.append(ended + begun + text)
            while self._unwritten and self._append(memory, self._unwritten[0]):
                self._unwritten.popleft()
        if slot:
            memory[slot] = 0
            self._slots.append(slot)

    def leave_to_parent(self) -> None:
        """In a forked child: write to nobody's memory."""
        self._lock = threading.Lock()
        self._memory = None

    def _append(self, memory: Memory, record: bytes) -> bool:
        """Write a record to the ring; False if there is no room, since others have not been read."""
        size = len(record)
        at = self._written % RING_BYTES
        end = self._written + size
        has_to_skip = at + size > RING_BYTES
        if has_to_skip:
            end += RING_BYTES - at
        if end - self._read > RING_BYTES:
            self._read = _COUNTER.unpack_from(memory, _READ_AT)[0]
            if end - self._read > RING_BYTES:
                return False
        if has_to_skip:
            if RING_BYTES - at >= _SIZE.size:
                memory[_RING_AT + at : _RING_AT + at + _SIZE.size] = _NO_RECORD
            at = 0
        at += _RING_AT
        memory[at : at + size] = record
        self._written = end
        _COUNTER.pack_into(memory, _WRITTEN_AT, end)
        return True


class FlightReader:
    """The reading end. `ended` is for one thread, the rest for any."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._read = 0
        self._ended_ids: deque[bytes] = deque(maxlen=2 * SLOTS)  # the latest

    @property
    def last_begun(self) -> bytes:
        """The id of the call that a client had it begin last; zeros if there was none."""
        return bytes(self._memory[:ID_BYTES])

    @property
    def functions(self) -> int:
        """How many functions it began for clients; of a chunk that runs, one."""
        return int(_COUNTER.unpack_from(self._memory, _FUNCTIONS_AT)[0])

    def ended(self) -> list[Ended]:
        """The calls that have ended since the last time. Successive short ones of a function are one."""
        memory = self._memory
        written = _COUNTER.unpack_from(memory, _WRITTEN_AT)[0]
        read = self._read
        calls: list[Ended] = []
        label, before = b"", None  # of a call into which the next may be merged
        while read < written:
            at = read % RING_BYTES
            left = RING_BYTES - at
            at += _RING_AT
            if left < _RECORD.size or memory[at : at + _SIZE.size] == _NO_RECORD:
                read += left
                continue
            fields = _RECORD.unpack_from(memory, at)
            size, finished, failed, is_inside, error_size, ended, seconds, returned = fields[:8]
            started, queued, sent, id_, label_size = fields[8:]
            read += size
            self._ended_ids.append(id_)
            at += _RECORD.size
            its_label = memory[at : at + label_size]
            is_short = not failed and ended - started <= SHORT_S
            # What began before that had ended ran it, in place.
            is_next = before and its_label == label and 0 <= started - before.ended <= SHORT_S
            if is_short and is_next and before.is_inside == is_inside:
                before.sent += sent
                before.ended = ended
                before.seconds += seconds
                before.returned += returned
                before.finished += finished
                continue
            begun = Begun(started, queued, sent, id_, *_texts(bytes(its_label)))
            error = memory[at + label_size : at + label_size + error_size].decode(errors="replace")
            call = Ended(begun, sent, ended, seconds, returned, finished, failed, bool(is_inside), error)
            calls.append(call)
            label, before = bytes(its_label), call if is_short else None
        self._read = read
        if read > _COUNTER.unpack_from(memory, _READ_AT)[0]:
            _COUNTER.pack_into(memory, _READ_AT, read)
        return calls

    def running(self) -> list[Begun]:
        """The calls that run now, or ran when the worker died, the outermost first."""
        calls = []
        for at in range(_SLOTS_AT, _RING_AT, SLOT_BYTES):
            content = self._memory[at : at + SLOT_BYTES]
            if not content[0] or content != self._memory[at : at + SLOT_BYTES]:  # It is being written.
                continue
            started, queued, sent, id_, size = _BEGUN.unpack_from(content, 1)
            label = bytes(content[1 + _BEGUN.size : 1 + _BEGUN.size + size])
            if id_ not in self._ended_ids:  # It died just after the end was written.
                calls.append(Begun(started, queued, sent, id_, *_texts(label)))
        return sorted(calls)


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
    """A function's name and its client, as recorders take them.

    >>> label("func", "challenge.py:7")
    b'func\\x00challenge.py:7'
    """
    return f"{function[:_MAX_LABEL].replace(chr(0), ' ')}\0{client[:_MAX_LABEL]}".encode(errors="replace")


def _texts(label: bytes) -> tuple[str, str]:
    function, _, client = label.decode(errors="replace").partition("\0")
    return function, client


_recorders: weakref.WeakSet[FlightRecorder] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for recorder in list(_recorders):
        recorder.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
