"""One call, ready to go: its parts, and their bytes for each connection."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distribute_challenge.calls import logs
from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.payload import LOGS, NO_PROGRAM, PRINTS, SHARES, Call
from distribute_challenge.calls.program import current
from distribute_challenge.calls.regions import Buffer
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.modules import NeededModules
from distribute_challenge.client.parcels.scattered import Scattered, is_gone
from distribute_challenge.record.flight import label
from distribute_challenge.values import PROTOCOL

_LAST_ID = (1 << 64) - 1

_ids: Iterator[int]  # unique among processes, without asking the system each time


def _renew() -> None:
    global _ids
    _ids = itertools.count(int.from_bytes(os.urandom(8), "big"))
    label_of.cache_clear()


@functools.lru_cache
def label_of(function: str) -> bytes:
    """What the record says of a function's calls: its name, and this program, process and machine."""
    return label(function, client_name())


def client_name() -> str:
    """This program, process and machine."""
    path = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    name = path.parent.name if path.name == "__main__.py" else path.name
    return f"{name}:{os.getpid()}@{socket.gethostname()}"


def flags_of(options: Options) -> int:
    """The flags of a call, as far as they are options."""
    return PRINTS * options.prints | LOGS * bool(logs.forwarded)


_renew()
os.register_at_fork(after_in_child=_renew)


class Written(NamedTuple):
    """A pickle, the user's own modules that it needs, and the large buffers that travel beside it."""

    data: bytes
    modules: frozenset[str] = frozenset()
    buffers: Sequence[pickle.PickleBuffer | Buffer] = ()
    values: tuple[Scattered, ...] = ()  # that it refers to
    classes: tuple[type, ...] = ()  # that travel by value: a result finds them as long as this is there


class Sent:
    """What has gone over a connection, and need not go again."""

    __slots__ = ("modules", "values")

    def __init__(self) -> None:
        self.modules: dict[bytes, set[str]] = {}  # the digests of modules, for each program
        self.values: set[bytes] = set()  # the tokens of scattered values


class Destination(NamedTuple):
    """Where a call goes, and whose modules it uses there."""

    program: bytes = NO_PROGRAM  # those of an executor with an initializer; else of this program
    python: str | None = None  # the workers' version, as `3.12`; None: this one
    may_share: bool = True  # memory with the workers: they may be on this machine


ANYWHERE = Destination()


class Parcel:
    """One call, ready to go.

    `modules` are those of the user's own that it needs, `large` the buffers that travel beside it.
    """

    __slots__ = (
        *("arguments", "classes", "count", "flags", "function", "id", "label", "large", "modules"),
        *("program", "queued", "size", "source", "values"),
    )

    def __init__(
        self,
        source: str,
        name: str,
        count: int,
        flags: int,
        program: bytes,
        function: Written,
        arguments: Written,
        modules: NeededModules,
        large: Parts | None = None,
    ) -> None:
        self.source = source
        self.label = label_of(name)
        self.count = count  # of functions
        self.queued = time.time()
        self.flags = flags
        self.id = (next(_ids) & _LAST_ID).to_bytes(8, "big")  # by which its output can be asked for
        self.program = current.id if program == NO_PROGRAM else program
        self.function = function.data
        self.arguments = arguments.data
        self.modules = modules
        self.large = large
        self.values = function.values + arguments.values  # that are sent once
        self.classes = function.classes + arguments.classes
        self.size = len(source) + len(function.data) + len(arguments.data)  # about, in bytes
        if large is not None:
            self.size += large.size

    def call(self) -> Call:
        """The call itself, for a process that has its modules."""
        return self._call(self.flags, b"", b"")

    def pack(self, sent: Sent, *, can_share: bool, limit: int) -> bytes:
        """As bytes, for a connection on which so much has been `sent`.

        `can_share` says whether who is at its other end can open files of ours, and we those of theirs.
        """
        before = set(sent.values)
        try:
            buffers = () if self.large is None else self.large.pack(can_share=can_share)
            modules = self.modules.pack(sent.modules.setdefault(self.program, set()))
            values = self.pack_values(sent.values, can_share=can_share) if self.values or before else b""
            flags = self.flags | SHARES * can_share
            call = self._call(flags, values, modules).pack(buffers)
            if (size := len(call) + 4 * len(self.source)) > limit:
                raise OverflowError(
                    f"{size} bytes are more than the {limit} that workers take at once: split them, use a "
                    "file, or start the server with a larger --max-frame"
                )
        except BaseException:  # Neither these modules nor these values have gone there after all.
            sent.modules.pop(self.program, None)
            sent.values = before
            raise
        return call

    def pack_values(self, sent: set[bytes], *, can_share: bool) -> bytes:
        """The scattered values that have not been `sent`, and which of those are not needed any more."""
        new = {value.token: value for value in self.values if value.token not in sent}
        gone = list(filter(is_gone, sent))
        sent.difference_update(gone)
        sent.update(new)
        if not new and not gone:
            return b""
        packed = [(token, value.pack(can_share=can_share)) for token, value in new.items()]
        return pickle.dumps((packed, gone), PROTOCOL)

    def _call(self, flags: int, values: bytes, modules: bytes) -> Call:
        head = (flags, self.id, self.program, self.queued, self.count, self.label)
        wishes = logs.wishes() if flags & LOGS else b""
        return Call(*head, wishes, values, modules, self.function, self.arguments)
