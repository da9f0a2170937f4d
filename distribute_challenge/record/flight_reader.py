"""The reading end of a flight recorder: what a worker runs, and what it has run."""

from __future__ import annotations

import itertools
import struct
import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from distribute_challenge.record.flight import (
    BEGUN,
    COUNTER,
    ENDED,
    FUNCTIONS_AT,
    ID_BYTES,
    NO_RECORD,
    READ_AT,
    RING_AT,
    SIZE,
    SLOT_BYTES,
    SLOTS,
    SLOTS_AT,
    USED_AT,
    WRITTEN_AT,
    Memory,
)

# Successive calls of one function that take no longer are merged, if they are no further apart.
SHORT_S = 0.02
REMEMBERED = 4096  # ended calls: more than a client has under way
_RECORD = struct.Struct(ENDED.format + BEGUN.format[1:])


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


class FlightReader:
    """The reading end: `FlightRecorder` has an example. Any thread may ask."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._read = 0
        self._lock = threading.Lock()  # guards what has been read, and the two below
        self._ended: list[Ended] = []  # that nobody has asked for yet
        self._ended_ids: deque[bytes] = deque(maxlen=REMEMBERED)  # the latest

    @property
    def last_begun(self) -> bytes:
        """The id of the call that a client had it begin last; zeros if there was none."""
        return bytes(self._memory[:ID_BYTES])

    @property
    def functions(self) -> int:
        """How many functions it began for clients; of a chunk that runs, one."""
        return int(COUNTER.unpack_from(self._memory, FUNCTIONS_AT)[0])

    def ended(self) -> list[Ended]:
        """The calls that have ended since the last time. Successive short ones of a function are one."""
        with self._lock:
            ended, self._ended = self._ended + self._read_ended(), []
            return ended

    def has_ended(self, call: bytes) -> bool:
        """Whether a call, by its id, was begun and has ended: one of the latest `REMEMBERED`."""
        with self._lock:
            self._ended += self._read_ended()
            return call in self._ended_ids

    def _read_ended(self) -> list[Ended]:
        memory = self._memory
        ring = len(memory) - RING_AT
        written = COUNTER.unpack_from(memory, WRITTEN_AT)[0]
        read = self._read
        calls: list[Ended] = []
        label, before = b"", None  # of a call into which the next may be merged
        while read < written:
            at = read % ring
            left = ring - at
            at += RING_AT
            if left < _RECORD.size or memory[at : at + SIZE.size] == NO_RECORD:
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
        if read != self._read:
            self._read = read
            COUNTER.pack_into(memory, READ_AT, read)  # There the worker may write again.
        return calls

    def running(self) -> list[Begun]:
        """The calls that run now, or ran when the worker died, the outermost first."""
        calls = []
        memory = self._memory
        with self._lock:  # It may have died just after the end was written.
            ended = set(itertools.islice(reversed(self._ended_ids), SLOTS))
        for slot in itertools.compress(range(SLOTS), memory[USED_AT : USED_AT + SLOTS]):
            at = SLOTS_AT + slot * SLOT_BYTES
            content = memory[at : at + SLOT_BYTES]
            if not memory[USED_AT + slot] or content != memory[at : at + SLOT_BYTES]:  # It is being written.
                continue
            started, queued, sent, id_, size = BEGUN.unpack_from(content)
            label = bytes(content[BEGUN.size : BEGUN.size + size])
            if id_ not in ended:
                calls.append(Begun(started, queued, sent, id_, *_texts(label)))
        return sorted(calls)


def _texts(label: bytes) -> tuple[str, str]:
    function, _, client = label.decode(errors="replace").partition("\0")
    return function, client
