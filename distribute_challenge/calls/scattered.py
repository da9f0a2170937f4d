"""Values that are sent once and used by many calls, where they are received.

values   pickled pair: for each new value its token and its buffers (`buffers.py`), of which the first is
         the pickle, as of a call's (args, kwargs); and the tokens of those that are not needed any more
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from distribute_challenge.calls.buffers import unpack
from distribute_challenge.calls.program import current
from distribute_challenge.calls.regions import Buffer

TOKEN_BYTES = 16
MAX_GONE = 1000  # More than go between two calls; and where no calls come, nobody takes note of them.


class _Entry:
    """A value, loaded when a program uses it first: if that fails, it may do so the next time.

    Each program has its own, whose classes are those of its own modules. Large buffers are there once.
    """

    __slots__ = ("_buffers", "_packed", "holds", "values")

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._buffers: list[Buffer] = []
        self.values: dict[bytes, Any] = {}  # by program
        self.holds = 0  # by so many connections

    def load(self) -> Any:
        """The value. Raises what loading it raises: ValueError if the buffers cannot be opened."""
        if not self._buffers:
            self._buffers, self._packed = unpack(memoryview(self._packed), is_writable=False), b""
        data, *large = self._buffers
        ((value,), _) = pickle.loads(data, buffers=large)
        return value


class Store:
    """The values of one process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # A value may use others while it is loaded.
        self._entries: dict[bytes, _Entry] = {}
        self.loaded = 0  # how many were
        self.gone: deque[bytes] = deque(maxlen=MAX_GONE)  # the tokens of values, since somebody took note

    def take(self, section: bytes, held: set[bytes]) -> None:
        """Take in what came over a connection, which has `held` those so far."""
        new, gone = pickle.loads(section)
        self.release(held, gone)
        with self._lock:
            for token, packed in new:
                if token not in held:
                    self._entries.setdefault(token, _Entry(packed)).holds += 1
                    held.add(token)

    def release(self, held: set[bytes], tokens: Iterable[bytes]) -> None:
        """A connection does not hold these values any more. What none holds goes."""
        with self._lock:
            for token in held.intersection(tokens):
                held.remove(token)
                entry = self._entries[token]
                entry.holds -= 1
                if not entry.holds:
                    del self._entries[token]
                    self.gone.append(token)

    def forget(self, program: bytes) -> None:
        """The program has gone, and its modules with it."""
        with self._lock:
            for entry in self._entries.values():
                entry.values.pop(program, None)

    def value(self, token: bytes) -> Any:
        """The value with that token, for the program whose modules are in use.

        Raises LookupError if it has not come, and what loading it raises: ValueError if it cannot be opened.
        """
        with self._lock:
            entry = self._entries.get(token)
            if entry is None:
                raise LookupError("a scattered value has not come with this call")
            program = current.id
            if program not in entry.values:
                entry.values[program] = entry.load()
                self.loaded += 1
            return entry.values[program]


store = Store()


def scattered(token: bytes) -> Any:
    """What stands in a pickle for a scattered value."""
    return store.value(token)
