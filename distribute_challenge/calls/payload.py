"""Calls and outcomes as bytes.

    call     flags (1 byte), id (8), program (16), Unix seconds when the client had it (8), how many functions
             it runs (4), lengths of label (2), logs, values, modules, function and arguments (4 each), then
             label      name of the function, and the client, for the record: `record/flight.py`
             logs       pickled levels of the loggers that are forwarded: `logs.py`
             values     of those that are sent once: `scattered.py` has the format
             modules    pickled folders of the program's modules, and list of `Module`
             function   pickled; if it has a text, that is the `source` beside the call
             arguments  pickled (args, kwargs); for a chunk a list for each parameter, of its values
             buffers    the large ones of function and arguments: `buffers.py` has the format
    outcome  kind (1 byte), seconds that the functions took (8), lengths of output and content (4 each), then
             output     pickled (offset, pieces): what was printed and has not been read before
             content    `+` the value, pickled
                        `-` pickled (exception as pickled bytes or None, type name, text, traceback, call,
                            reason): which of a chunk's calls it was; why the exception is not pickled
                        `*` a chunk: pickled list of values
                        `/` a chunk whose calls have contents of their own: pickled list of (kind, content)
             buffers    the large ones of the content

An exception is pickled on its own: where it cannot be made again, the texts beside it still arrive.
"""

from __future__ import annotations

import importlib.machinery
import io
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, NamedTuple

from distribute_challenge.calls.buffers import Collector
from distribute_challenge.calls.buffers import unpack as unpack_buffers
from distribute_challenge.calls.regions import Buffer
from distribute_challenge.values import PROTOCOL

_MAX_TEXT = 1 << 20
VALUE, FAILURE, VALUES, MIXED = b"+", b"-", b"*", b"/"
CHUNK, PRINTS, INITIALIZER, SHARES, LOGS = 1, 2, 4, 8, 16  # flags of a call
OUTPUT = PRINTS | LOGS  # What it prints or logs is wanted.
NO_PROGRAM = bytes(16)
_CALL = struct.Struct("!B8s16sdIHIIIII")
_OUTCOME = struct.Struct("!cdII")
# What one frame may hold, less what RPyC adds around it.
MAX_BYTES = (1 << 30) - (1 << 10)
# Types whose values need no cloudpickle, which takes ten times as long.
PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})

MakePickler = Callable[[io.BytesIO, Collector | None], Any]
LOG = 3
# Of output: 1 for standard output or 2 for standard error, and what was written; LOG, and a record.
Piece = tuple[int, bytes]


class Call(NamedTuple):
    """One call of one function, or of one function for each item of a chunk."""

    flags: int
    id: bytes  # by which its output can be asked for
    program: bytes  # whose modules it uses: its program's, or those of an executor with an initializer
    queued: float  # Unix seconds when the client had it
    functions: int  # how many it runs
    label: bytes  # the function's name and the client, for the record
    logs: bytes
    values: bytes
    modules: bytes
    function: bytes
    arguments: bytes

    def pack(self, buffers: Sequence[Buffer] = ()) -> bytes:
        """As bytes, with those of its buffers. Raises OverflowError if they are too many."""
        head, parts = self[:5], self[5:]
        packed = b"".join((_CALL.pack(*head, *map(len, parts)), *parts, *buffers))
        check_size(len(packed))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> tuple[Call, memoryview]:
        """Read the output of `pack`: the call, and its buffers' bytes. Raises ValueError."""
        if len(data) < _CALL.size:
            raise ValueError("not a call: it is too short")
        fields = _CALL.unpack_from(data)
        parts: list[Any] = [*fields[:5]]
        at = _CALL.size
        for size in fields[5:]:
            end = at + size
            parts.append(data[at:end])
            at = end
        if at > len(data) or fields[0] > CHUNK | INITIALIZER | SHARES | OUTPUT:
            raise ValueError("not a call")
        return cls._make(parts), memoryview(data)[at:]


# What the files of modules without a text end with.
COMPILED = (*importlib.machinery.EXTENSION_SUFFIXES, *importlib.machinery.BYTECODE_SUFFIXES)


class Module(NamedTuple):
    """A module of the user's own. Its text is sent once on each connection; None means: as before."""

    name: str
    path: str  # of its file; of a package without one, its folder
    folder: str | None  # of a package
    digest: str  # of its text, or what tells it apart
    text: str | None


def is_this_package(name: str) -> bool:
    """Whether a module is one of the pool's own, which workers have."""
    return name.partition(".")[0] == __name__.partition(".")[0]


class ChunkResults(NamedTuple):
    """The outcome of a chunk: the value of each item, and the exceptions, by number, of those that raised."""

    values: list[Any]
    failures: dict[int, BaseException]


class Outcome(NamedTuple):
    """The result of a call."""

    kind: bytes
    content: bytes
    seconds: float = 0.0  # that the functions took
    offset: int = 0  # of the output's first byte among all the call has printed
    output: tuple[Piece, ...] = ()
    buffers: Sequence[pickle.PickleBuffer | Buffer] = ()  # which the value may make its own

    def pack(self, buffers: Iterable[Buffer]) -> bytes:
        """As bytes, with those of its buffers. Raises OverflowError if they are too many."""
        printed = pickle.dumps((self.offset, self.output), PROTOCOL) if self.output else b""
        parts = [printed, self.content, *buffers]
        check_size(sum(map(len, parts)))
        return b"".join((_OUTCOME.pack(self.kind, self.seconds, len(printed), len(self.content)), *parts))

    @classmethod
    def unpack(cls, data: bytes) -> Outcome:
        """Read the output of `pack`. Raises ValueError for anything else.

        Large buffers are opened by that: whoever holds a file with them may close it afterwards.
        """
        if len(data) < _OUTCOME.size:
            raise ValueError("not an outcome: it is too short")
        kind, seconds, printed, size = _OUTCOME.unpack_from(data)
        content_at = _OUTCOME.size + printed
        end = content_at + size
        if end > len(data) or kind not in (VALUE, FAILURE, VALUES, MIXED):
            raise ValueError("not an outcome")
        content = data[content_at:end]
        opened = unpack_buffers(memoryview(data)[end:]) if end < len(data) else ()
        try:
            offset, output = pickle.loads(data[_OUTCOME.size : content_at]) if printed else (0, ())
        except Exception as error:
            raise ValueError(f"not an outcome: its output cannot be read ({error!r})") from None
        return cls(kind, content, seconds, offset, output, opened)

    def counts(self, chunk: int = 1) -> tuple[int, int]:
        """How many functions returned, and raised, in a call of `chunk` of them.

        >>> Outcome(VALUES, b"").counts(20), Outcome(FAILURE, b"").counts(20)  # The latter could run none.
        ((20, 0), (0, 20))
        """
        if self.kind == MIXED:
            kinds = [kind for kind, _ in pickle.loads(self.content)]
            return kinds.count(VALUE), kinds.count(FAILURE)
        return (0, chunk) if self.kind == FAILURE else (chunk, 0)

    @property
    def error(self) -> str:
        """Type and first line of what was raised first; empty if nothing was."""
        content = self.content
        if self.kind == MIXED:
            content = next(content for kind, content in pickle.loads(content) if kind == FAILURE)
        elif self.kind != FAILURE:
            return ""
        _, name, text, *_ = pickle.loads(content)
        first = text.lstrip().partition("\n")[0]
        return f"{name}: {first}" if first else name

    def load(self) -> Any:
        """Return the value, or raise the exception, with its remote traceback as the cause."""
        if self.kind == FAILURE:
            raise load_failure(self.content)
        return pickle.loads(self.content, buffers=self.buffers)

    def load_each(self) -> ChunkResults:
        """For a chunk: what became of each item."""
        if self.kind in (VALUES, FAILURE):  # With the latter, nothing of it ran.
            return ChunkResults(self.load(), {})
        found = ChunkResults([], {})
        for number, (kind, content) in enumerate(pickle.loads(self.content)):
            found.values.append(None)
            try:
                if kind == VALUE:
                    found.values[number] = pickle.loads(content)
                else:
                    found.failures[number] = load_failure(content)
            except Exception as error:  # Of one value that cannot be made here.
                found.failures[number] = error
        return found


class RemoteTraceback(Exception):
    """The traceback of a function that raised on a worker: the cause of the exception at the caller.

    For an item of a `map`, `item` is its number, from 0, and `call` says what was called; else both are None.
    """

    def __init__(self, text: str, call: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.call = call
        self.item: int | None = None

    def __str__(self) -> str:
        return f"\n{self.text}"


# What a worker says, as a RuntimeError, to who calls while it runs a function for another connection.
BUSY = "this worker is running a function for another connection: take another worker"


def is_busy(error: BaseException) -> bool:
    """Whether a worker's call was refused because it is busy."""
    return isinstance(error, RuntimeError) and error.args == (BUSY,)


def check_size(count: int) -> None:
    """Raise OverflowError if `count` bytes are more than one call or outcome may have."""
    if count > MAX_BYTES:
        raise OverflowError(
            f"{count} bytes are more than the {MAX_BYTES} that travel at once: split them, or use a file"
        )


def dump(value: Any, kinds: Set[type], pickler: MakePickler, large: Collector | None = None) -> bytes:
    """Pickle `value`, in which there are these types: with what `pickler` makes, unless all are plain.

    Large buffers go to `large`.
    """
    if PLAIN_TYPES.issuperset(kinds):
        return pickle.dumps(value, PROTOCOL, buffer_callback=large)
    file = io.BytesIO()
    pickler(file, large).dump(value)
    return file.getvalue()


def dump_failure(
    exception: BaseException, traceback: str, pickler: MakePickler, call: str | None = None
) -> bytes:
    """The content for a function that raised. Never raises, whatever the exception's methods do."""
    pickled, reason = None, ""
    try:
        pickled = dump(exception, {type(exception)}, pickler)
        check_size(2 * len(pickled))
        pickle.loads(pickled)  # It may pickle, and not come back.
    except BaseException as problem:
        pickled, reason = None, describe(problem)
    kind = type(exception)
    module, name = type.__getattribute__(kind, "__module__"), type.__getattribute__(kind, "__qualname__")
    if module != "builtins":
        name = f"{module}.{name}"
    texts = (text[:_MAX_TEXT] for text in (describe(exception), traceback))
    return pickle.dumps((pickled, name, *texts, call, reason), PROTOCOL)


def describe(exception: BaseException) -> str:
    """An exception's text, whatever its `__str__` does."""
    try:
        # Of exact type, also where it returned something derived from str.
        return str.__str__(str(exception))
    except BaseException as error:
        return f"<no text: its __str__ raised {type(error).__name__}>"


def load_failure(content: bytes) -> BaseException:
    """The exception of a function that raised, with its remote traceback as the cause."""
    pickled, name, text, traceback, call, reason = pickle.loads(content)
    exception: object = None
    if pickled is not None:
        try:
            exception = pickle.loads(pickled)
        except Exception as error:
            reason = repr(error)
    if not isinstance(exception, BaseException):
        exception = RuntimeError(f"{name}: {text} (the exception itself does not travel: {reason})")
    # As `raise ... from` does it: the exception may refuse attributes.
    vars(BaseException)["__cause__"].__set__(exception, RemoteTraceback(traceback, call))
    return exception
