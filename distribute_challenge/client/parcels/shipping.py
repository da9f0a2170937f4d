"""What travels for one function: its text, and with each call the values that it uses, as they are then."""

from __future__ import annotations

import io
import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from distribute_challenge.calls import payload, program
from distribute_challenge.calls.buffers import BytesWrapper, Collector, Parts
from distribute_challenge.calls.constant import Snapshot, snapshot
from distribute_challenge.calls.payload import (
    CHUNK,
    INITIALIZER,
    NO_SCOPE,
    PRINTS,
    SHARES,
    Call,
)
from distribute_challenge.calls.regions import Buffer
from distribute_challenge.client.parcels.modules import Modules, is_users, modules_for
from distribute_challenge.client.parcels.pace import pace_of
from distribute_challenge.client.parcels.sending import NotAcrossVersions, Sender
from distribute_challenge.client.parcels.text import find_text
from distribute_challenge.errors import TaskNotSendable
from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.functions import annotations_of, functions_in, values_of
from distribute_challenge.values.names import name_of

_LARGE_BYTES = 1 << 20  # What is smaller need not be looked at closely.
_LAST_ID = (1 << 64) - 1
BY_VALUE = "# No text: this function is in no file, or the file has changed. It is sent by value.\n"
BY_NAME = "# {0.module}.{0.path}: workers import it by its name.\n"


# Unique among processes, without asking the system each time.
_ids = itertools.count(int.from_bytes(os.urandom(8), "big"))


def _renew_ids() -> None:
    global _ids
    _ids = itertools.count(int.from_bytes(os.urandom(8), "big"))


os.register_at_fork(after_in_child=_renew_ids)


def _new_id() -> bytes:
    return (next(_ids) & _LAST_ID).to_bytes(8, "big")


class Written(NamedTuple):
    """What was pickled, the user's own modules that it needs, and the large buffers that travel beside it."""

    data: bytes
    modules: frozenset[str] = frozenset()
    buffers: Sequence[pickle.PickleBuffer | Buffer] = ()


class Parcel:
    """One call, ready to go.

    `modules` are those of the user's own that it needs, `large` the buffers that travel beside it. It holds
    the call's parts itself, since many wait at once, and each object less is one that Python's collector of
    garbage need not look at.
    """

    __slots__ = ("arguments", "flags", "function", "id", "large", "modules", "scope", "size", "source")

    def __init__(
        self,
        source: str,
        flags: int,
        scope: bytes,
        function: Written,
        arguments: Written,
        modules: Modules,
        large: Parts | None = None,
    ) -> None:
        self.source = source
        self.flags = flags
        self.id = _new_id()  # by which its output can be asked for
        # Whose modules it uses: those of its executor, if that has an initializer, or of its program.
        self.scope = program.current.id if scope == NO_SCOPE else scope
        self.function = function.data
        self.arguments = arguments.data
        self.modules = modules
        self.large = large
        self.size = len(source) + len(function.data) + len(arguments.data)  # about, in bytes
        if large is not None:
            self.size += large.size

    @property
    def prints(self) -> bool:
        """Whether its output is wanted."""
        return bool(self.flags & PRINTS)

    @property
    def is_chunk(self) -> bool:
        """Whether it runs the function for each item of a list."""
        return bool(self.flags & CHUNK)

    @property
    def is_initializer(self) -> bool:
        """Whether it runs the initializer of an executor."""
        return bool(self.flags & INITIALIZER)

    def call(self) -> Call:
        """The call itself, for a process that has its modules."""
        return Call(self.flags, self.id, self.scope, b"", self.function, self.arguments)

    def pack(self, sent: dict[bytes, set[str]], *, can_share: bool) -> bytes:
        """As bytes, for a connection on which the modules in `sent` have gone: digests, for each scope.

        `can_share` says whether who is at its other end can open files of ours, and we those of theirs.
        """
        buffers = () if self.large is None else self.large.pack(can_share=can_share)
        modules = self.modules.pack(sent.setdefault(self.scope, set()))
        flags = self.flags | SHARES * can_share
        return Call(flags, self.id, self.scope, modules, self.function, self.arguments).pack(buffers)


class Shipment:
    """A function on its way to workers. `source` is the text that travels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._functions = tuple(functions_in(function))
        plain = self._functions[0] if self._functions else type(function)
        self.name: str = getattr(function, "__name__", plain.__name__)
        self._code = self._functions[-1].__code__ if self._functions else None
        self.source = self._find_source()
        self.pace = pace_of(function)
        self._written: tuple[Snapshot, str | None, Written] | None = None

    def _find_source(self) -> str:
        name = name_of(self.function)
        if name is not None and not is_users(name.module):
            return BY_NAME.format(name)
        if self._code is not None:
            text = find_text(self._code, self._functions[-1].__globals__)
            if text is not None:
                return text.source
        return BY_VALUE if name is None else BY_NAME.format(name)

    def is_constant(self) -> bool:
        """Whether the function uses nothing now that can change but by being bound anew."""
        return snapshot(self.function) is not None

    def parcel(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        prints: bool = True,
        flags: int = 0,
        scope: bytes = NO_SCOPE,
        python: str | None = None,
        may_share: bool = True,
    ) -> Parcel:
        """One call, with the values that the function uses as they are now.

        `python` is the version of the workers, as `3.12`; `may_share` says whether they may be on this
        machine. Raises TaskNotSendable, which names what cannot be pickled.
        """
        function = self.dump_function(python)
        arguments = self.dump_arguments((args, kwargs), python)
        return self.pack(function, arguments, prints=prints, flags=flags, scope=scope, may_share=may_share)

    def chunk(
        self,
        function: Written,
        columns: list[list[Any]],
        *,
        prints: bool,
        scope: bytes,
        python: str | None,
        may_share: bool = True,
    ) -> Parcel:
        """Several calls, given what `dump_function` returned, and for each parameter a list of its values."""
        arguments = self.dump_arguments(columns, python)
        return self.pack(function, arguments, prints=prints, flags=CHUNK, scope=scope, may_share=may_share)

    def pack(
        self,
        function: Written,
        arguments: Written,
        *,
        prints: bool,
        flags: int,
        scope: bytes,
        may_share: bool,
    ) -> Parcel:
        """The parts of a call together."""
        needed = function.modules | arguments.modules if arguments.modules else function.modules
        try:
            modules = modules_for(needed)
        except (OSError, SyntaxError, UnicodeError) as error:
            raise TaskNotSendable(
                f"{self.name} cannot be sent to a worker: a module that it needs cannot be read ({error})"
            ) from error
        large = None
        if function.buffers or arguments.buffers:
            large = Parts([*function.buffers, *arguments.buffers], may_share=may_share)
        parcel = Parcel(self.source, flags | PRINTS * prints, scope, function, arguments, modules, large)
        if modules.size or parcel.size > _LARGE_BYTES:
            self._check_size(parcel)
        return parcel

    def _check_size(self, parcel: Parcel) -> None:
        try:
            payload.check_size(parcel.size + 4 * len(self.source) + parcel.modules.size)
        except OverflowError as error:
            raise TaskNotSendable(f"{self.name} cannot be sent to a worker: {error}") from error

    def dump_function(self, python: str | None) -> Written:
        """The function without its text."""
        if self._written is not None:
            before, for_python, written = self._written
            if for_python == python and before.still_holds():
                return written
        now = snapshot(self.function)
        written = self._dump(self.function, python, self._parts_of_function)
        self._written = None if now is None else (now, python, written)
        return written

    def dump_arguments(self, arguments: Any, python: str | None) -> Written:
        """Arguments of a call, as (args, kwargs), or those of several, as a list for each parameter."""
        kinds = _kinds_in(arguments)
        if bytes not in kinds:
            if payload.PLAIN_TYPES.issuperset(kinds):
                return Written(pickle.dumps(arguments, PROTOCOL))
            return self._dump(arguments, python, lambda: _parts_of_arguments(arguments))
        wrapped = _with_large_bytes_aside(arguments)
        if not payload.PLAIN_TYPES.issuperset(kinds):
            return self._dump(wrapped, python, lambda: _parts_of_arguments(arguments))
        large = Collector()
        data = pickle.dumps(wrapped, PROTOCOL, buffer_callback=large)
        return Written(data, buffers=large.buffers)

    def _dump(
        self, value: Any, python: str | None, parts: Callable[[], Iterable[tuple[str, Any]]]
    ) -> Written:
        file, large = io.BytesIO(), Collector()
        sender = Sender(file, self._code, python, large)
        try:
            sender.dump(value)
        except Exception as error:
            raise TaskNotSendable(self._explain(parts(), error, python)) from error
        return Written(file.getvalue(), frozenset(sender.modules), large.buffers)

    def _parts_of_function(self) -> Iterator[tuple[str, Any]]:
        if not self._functions or name_of(self.function) is not None:
            yield "the function itself", self.function
        for function in self._functions:
            for name, value in values_of(function):
                if not any(value is inside for inside in self._functions):
                    yield f"the variable {name!r} that it uses", value
            for value in function.__defaults__ or ():
                yield "a default value", value
            for name, value in (function.__kwdefaults__ or {}).items():
                yield f"the default value of {name!r}", value
            for name, value in vars(function).items():
                if name != "__wrapped__":
                    yield f"its attribute {name!r}", value
            for name, value in (annotations_of(function) or {}).items():
                yield f"the annotation of {name!r}", value
        yield "the function itself", self.function

    def _explain(self, parts: Iterable[tuple[str, Any]], error: Exception, python: str | None) -> str:
        for what, value in parts:
            try:
                Sender(io.BytesIO(), None, python).dump(value)
            except NotAcrossVersions as reason:
                return f"{self.name} cannot be sent to a worker, because of {what}: {reason}"
            except Exception as reason:
                return (
                    f"{self.name} cannot be sent to a worker, because of {what}, a {type(value).__name__} "
                    f"({reason}): make it inside the function instead"
                )
        return f"{self.name} cannot be sent to a worker: {error}"


def _kinds_in(arguments: Any) -> set[type]:
    """The types of all values in the arguments of a call, or of several."""
    if isinstance(arguments, list):
        return set(map(type, itertools.chain.from_iterable(arguments)))
    args, kwargs = arguments
    return {*map(type, args), *map(type, kwargs.values())} if kwargs else set(map(type, args))


def _with_large_bytes_aside(arguments: Any) -> Any:
    """The arguments of a call, or of several, with large `bytes` marked to travel beside the pickle."""
    wrap = BytesWrapper()
    if isinstance(arguments, list):
        return [list(map(wrap, column)) for column in arguments]
    args, kwargs = arguments
    return tuple(map(wrap, args)), {name: wrap(value) for name, value in kwargs.items()}


def _parts_of_arguments(arguments: Any) -> Iterator[tuple[str, Any]]:
    """Everything that the arguments hold, and what to call it in a message."""
    calls = (
        [(args, {}) for args in zip(*arguments, strict=True)] if isinstance(arguments, list) else [arguments]
    )
    for args, kwargs in calls:
        for number, value in enumerate(args, start=1):
            yield f"argument {number}", value
        for name, value in kwargs.items():
            yield f"argument {name!r}", value
