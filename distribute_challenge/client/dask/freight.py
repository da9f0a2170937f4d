"""What Dask carries: a parcel with its options as bytes, and what became of it.

freight  pickled tuple of plain values, as `Freight` has them
report   tuple of plain values: kind, content, printed
             outcome  the bytes of an outcome
             error    a pickled exception of the pool on the Dask worker
             refused  why the Dask worker could not take it, as text
         printed  pairs of stream (1, 2) and whole lines, which have not been shown yet

A task is an expression for `eval`: the scheduler, which opens each task, need not have this package, and has
nothing to load. Other functions that Dask carries, which are few, travel by value for the same reason.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.buffers import unpack as unpack_buffers
from distribute_challenge.calls.payload import MAX_BYTES, Call, Module, Piece
from distribute_challenge.client.parcels.modules import NeededModules
from distribute_challenge.client.parcels.parcel import Parcel, Sent
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.errors import TaskNotSendable
from distribute_challenge.values import PROTOCOL

FORMAT = 2  # of all that is written here: both ends need the same
# What a Dask worker evaluates, given these names.
RUN_PARCEL = (
    "__import__('distribute_challenge.client.dask.there', fromlist=['run']).run(format_, freight, *values)"
)
MAKE_VALUE = "__import__('distribute_challenge.client.dask.freight', fromlist=['Value']).Value(data)"
OUTCOME, ERROR, REFUSED = "outcome", "error", "refused"
# Under this name is what this package says in a task's metadata, and among a worker's metrics.
SAID = "distribute-challenge"

Report = tuple[str, Any, list[Piece]]
Packed = tuple[str, str, bytes]  # a function's name and text, and the bytes of a call


class Freight(NamedTuple):
    """A call on its way through Dask."""

    packed: Packed
    initializer: Packed | None  # of its executor
    timeout_s: float | None
    topic: str  # on which what it prints is told
    values: tuple[bytes, ...]  # the tokens of the scattered values that come beside it

    def dump(self) -> bytes:
        """As bytes."""
        return pickle.dumps(tuple(self), PROTOCOL)

    @classmethod
    def load(cls, data: bytes) -> Freight:
        """Read the output of `dump`."""
        return cls(*pickle.loads(data))


class Value:
    """A scattered value on its way through Dask, which keeps it on a worker as long as somebody needs it."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def pack(name: str, parcel: Parcel) -> Packed:
    """A parcel for a process that nothing has been sent to. Raises TaskNotSendable."""
    sent = Sent()
    sent.values = {value.token for value in parcel.values}  # They go beside it.
    try:
        return name, parcel.source, parcel.pack(sent, can_share=False, limit=MAX_BYTES)
    except OverflowError as error:
        raise TaskNotSendable(f"a call cannot be sent to a Dask worker: {error}") from error


class Forwarded(Parcel):
    """A parcel that has come through Dask, and is ready to go to a worker of the pool here."""

    __slots__ = ("_logs",)

    def __init__(self, packed: Packed, values: tuple[Scattered, ...]) -> None:
        _, self.source, data = packed
        call, section = Call.unpack(data)
        buffers = unpack_buffers(section)
        self.label, self.count, self.queued = call.label, call.functions, call.queued
        self.flags, self.id, self.program = call.flags, call.id, call.program
        self.function, self.arguments, self.values = call.function, call.arguments, values
        folders, modules = pickle.loads(call.modules) if call.modules else ((), [])
        every = tuple(Module(*module) for module in modules)
        brief = pickle.dumps((folders, [tuple(module._replace(text=None)) for module in every]), PROTOCOL)
        digests = frozenset(module.digest for module in every)
        size = sum(4 * len(module.text or "") for module in every)
        self.modules = NeededModules(folders, every, digests, size, brief)
        self.large = Parts(buffers, may_share=True) if buffers else None
        self.size = len(data)
        self._logs = call.logs

    def _call(self, flags: int, values: bytes, modules: bytes) -> Call:
        """What its client wants to be logged, it has said itself."""
        return super()._call(flags, values, modules)._replace(logs=self._logs)


def encodable(name: str) -> str:
    r"""A name for Dask's messages, which are UTF-8: that of a file, say, may hold other bytes.

    >>> encodable("caf\udce9")
    'caf\\udce9'
    """
    return name.encode(errors="backslashreplace").decode()


def travelling(function: Callable[..., Any]) -> Any:
    """The same function for Dask, which pickles it by value: its module is none that can be imported."""
    assert isinstance(function, types.FunctionType)
    made = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    made.__module__, made.__qualname__ = "distribute_challenge_on_dask", function.__name__
    return made


@travelling
def call_there(function: str, argument: Any) -> Any:
    """What a function of `there.py` returns; None in a process to which no parcel has come."""
    import sys

    there = sys.modules.get("distribute_challenge.client.dask.there")
    return None if there is None else getattr(there, function)(argument)
