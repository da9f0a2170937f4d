"""How one function travels: its text, and with each call the values that it uses, as they are then."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distribute_challenge.calls import payload
from distribute_challenge.calls.buffers import LARGE_BYTES, BytesWrapper, Collector, Parts
from distribute_challenge.calls.constant import Snapshot, snapshot
from distribute_challenge.calls.payload import CHUNK, PRINTS
from distribute_challenge.client.parcels.durations import Pace, pace_of
from distribute_challenge.client.parcels.modules import is_users, modules_for
from distribute_challenge.client.parcels.parcel import ANYWHERE, Destination, Parcel, Written
from distribute_challenge.client.parcels.scattered import Scattered
from distribute_challenge.client.parcels.sending import NotAcrossVersions, Sender, dump_scattered
from distribute_challenge.client.parcels.source import find_text
from distribute_challenge.errors import TaskNotSendable
from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.functions import Wrapper, annotations_of, functions_in, values_of
from distribute_challenge.values.names import name_of

_WITH_SCATTERED = {*payload.PLAIN_TYPES, Scattered}
_LARGE_BYTES = 1 << 20  # What is smaller need not be looked at closely.
BY_VALUE = "# No text: this function is in no file, or the file has changed. It is sent by value.\n"
BY_NAME = "# {0.module}.{0.path}: workers import it by its name.\n"
WITH_ARGUMENTS = Written(b"")  # in place of a function that travels in one pickle with its arguments


class Shipment:
    """A function on its way to workers. `source` is the text that travels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._functions = tuple(functions_in(function))
        self._called: str | None = None
        self._code = self._functions[-1].__code__ if self._functions else None
        self.source = self._find_source()
        self.pace = pace_of(function)
        self._written: tuple[Snapshot, str | None, Written] | None = None
        self._latest: tuple[str | None, bytes] | None = None  # for which Python, and the pickle
        self._by_file = False
        # Neither a plain function nor a class, nor found by a name: it may hold objects, as a method does.
        self._may_hold = not isinstance(function, types.FunctionType | type) and name_of(function) is None

    def called(self, name: str, *, by_file: bool) -> Shipment:
        """The same under another name, in messages and in the record, and with a pace of its own.

        With `by_file`, workers of this machine map the file of a `numpy.memmap` too; else it is copied.
        """
        other = copy.copy(self)
        other._called = name
        other.pace = Pace()
        other._by_file = by_file
        return other

    @property
    def name(self) -> str:
        """What it is called now, in messages."""
        return self._named("__name__")

    def _named(self, attribute: str) -> str:
        if self._called is not None:
            return self._called
        name = getattr(self.function, attribute, None)
        if name is None:  # As of a partial.
            name = getattr(self._functions[0] if self._functions else type(self.function), attribute)
        return str(name)

    def _find_source(self) -> str:
        name = name_of(self.function)
        if name is not None and not is_users(name.module):
            return BY_NAME.format(name)
        if self._code is not None:
            text = find_text(self._code, self._functions[-1].__globals__)
            if text is not None:
                return text.source
        return BY_VALUE if name is None else BY_NAME.format(name)

    def parcel(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], to: Destination = ANYWHERE, flags: int = PRINTS
    ) -> Parcel:
        """One call, with the values that the function uses as they are now.

        Raises TaskNotSendable, which names what cannot be pickled.
        """
        if self._may_hold and snapshot(self.function) is None:
            return self._pack(WITH_ARGUMENTS, self._dump_both(args, kwargs, to), 1, to, flags)
        return self._pack(
            self.dump_function(to.python), self.dump_arguments((args, kwargs), to), 1, to, flags
        )

    def chunk(self, function: Written, columns: list[list[Any]], to: Destination, flags: int) -> Parcel:
        """Several calls, given what `dump_function` returned, and for each parameter a list of its values."""
        arguments = self.dump_arguments(columns, to)
        return self._pack(function, arguments, len(columns[0]), to, flags | CHUNK)

    def _dump_both(self, args: tuple[Any, ...], kwargs: dict[str, Any], to: Destination) -> Written:
        """The function and its arguments in one pickle: what is in both is one object there, too."""
        arguments = args, kwargs
        kinds = {type(self.function)} | _kinds_in(arguments)
        wrapped = _with_large_bytes_aside(arguments) if bytes in kinds else arguments
        parts = itertools.chain(_parts_of_arguments(arguments), self._parts_of_function())
        both = self.function, wrapped
        return self._dump(both, kinds, to.python, parts, by_file=self._by_file and to.may_share)

    def _pack(self, function: Written, arguments: Written, count: int, to: Destination, flags: int) -> Parcel:
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
            large = Parts([*function.buffers, *arguments.buffers], may_share=to.may_share)
        name = self._named("__qualname__")
        parcel = Parcel(self.source, name, count, flags, to.program, function, arguments, modules, large)
        if modules.size or parcel.size > _LARGE_BYTES:
            try:
                payload.check_size(parcel.size + 4 * len(self.source) + modules.size)
            except OverflowError as error:
                raise TaskNotSendable(f"{self.name} cannot be sent to a worker: {error}") from error
        return parcel

    def dump_function(self, python: str | None) -> Written:
        """The function without its text."""
        if self._written is not None:
            before, for_python, written = self._written
            if for_python == python and before.still_holds():
                return written
        now = snapshot(self.function)
        written = self._dump(self.function, {type(self.function)}, python, self._parts_of_function())
        # Another thread may bind a name anew while this is written, and back again. Twice is no accident.
        latest = None if now is None or not now.still_holds() or written.buffers else (python, written.data)
        self._written = (now, python, written) if now and latest and latest == self._latest else None
        self._latest = latest
        is_large = len(written.data) > _LARGE_BYTES and type(self.function) is types.FunctionType
        if is_large and self.function not in _large:  # One such is kept: its user may have let go of it.
            for other in _large:
                _shipments.pop(other, None)
            _large.append(self.function)
        return written

    def dump_arguments(self, arguments: Any, to: Destination) -> Written:
        """Arguments of a call, as (args, kwargs), or those of several, as a list for each parameter."""
        kinds = _kinds_in(arguments)
        if bytes not in kinds and payload.PLAIN_TYPES.issuperset(kinds):  # As in most calls.
            return Written(pickle.dumps(arguments, PROTOCOL))
        if bytes not in kinds and _WITH_SCATTERED.issuperset(kinds):
            return dump_scattered(arguments)
        wrapped = _with_large_bytes_aside(arguments) if bytes in kinds else arguments
        by_file = self._by_file and to.may_share
        return self._dump(wrapped, kinds, to.python, _parts_of_arguments(arguments), by_file=by_file)

    def _dump(
        self,
        value: Any,
        kinds: set[type],
        python: str | None,
        parts: Iterable[tuple[str, Any]],
        *,
        by_file: bool = False,
    ) -> Written:
        large = Collector()
        modules: set[str] = set()
        values: list[Scattered] = []
        classes: list[type] = []

        def pickler(file: io.BytesIO, large: Collector | None) -> Sender:
            return Sender(file, self._code, python, large, modules, values, classes, by_file=by_file)

        try:
            data = payload.dump(value, kinds, pickler, large)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # A `__reduce__` may raise anything, as by `sys.exit()`.
            raise TaskNotSendable(self._explain(parts, error, python)) from error
        return Written(data, frozenset(modules), large.buffers, tuple(values), tuple(classes))

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

    def _explain(self, parts: Iterable[tuple[str, Any]], error: BaseException, python: str | None) -> str:
        for what, value in parts:
            try:
                Sender(io.BytesIO(), None, python).dump(value)
            except NotAcrossVersions as reason:
                return f"{self.name} cannot be sent to a worker, because of {what}: {reason}"
            except KeyboardInterrupt:
                raise
            except BaseException as reason:
                advice = "" if value is self.function else ": make it inside the function instead"
                return (
                    f"{self.name} cannot be sent to a worker, because of {what}, a {type(value).__name__} "
                    f"({reason}){advice}"
                )
        return f"{self.name} cannot be sent to a worker: {error}"


def scatter(value: Any, to: Destination = ANYWHERE) -> Scattered:
    """A value that is pickled now, and sent to each worker once. Raises TaskNotSendable."""
    try:
        written = shipment_of(_scattered_value).dump_arguments(((value,), {}), to)
    except TaskNotSendable as error:
        raise TaskNotSendable(
            f"a {type(value).__name__} cannot be scattered ({error.__cause__}): make it inside the functions "
            "that use it"
        ) from error.__cause__
    if written.values:
        raise TaskNotSendable("a scattered value cannot hold another one: scatter what that holds, too")
    is_large = bool(written.buffers) or len(written.data) >= LARGE_BYTES
    parts = Parts([written.data, *written.buffers], may_share=to.may_share and is_large)
    return Scattered(parts, written.modules, classes=written.classes)


def _scattered_value() -> None:
    """Stands for the function that a scattered value is an argument of."""


# Of functions that hold on to nothing but constants: the latest that were sent for the first time.
_shipments: OrderedDict[Callable[..., Any], tuple[types.CodeType | None, Shipment]] = OrderedDict()
_MAX_SHIPMENTS = 64
_large: deque[Callable[..., Any]] = deque(maxlen=1)  # of them, the latest that is large


def shipment_of(function: Callable[..., Any]) -> Shipment:
    """How a function travels."""
    if type(function) not in (types.FunctionType, types.BuiltinFunctionType, type):
        own: Shipment = function.shipment if isinstance(function, Wrapper) else Shipment(function)
        return own
    now = getattr(function, "__code__", None)
    code, shipment = _shipments.get(function) or (None, None)
    if shipment is None or code is not now:
        shipment = Shipment(function)
        if snapshot(function) is not None:
            _shipments[function] = now, shipment
            if len(_shipments) > _MAX_SHIPMENTS:
                _shipments.popitem(last=False)
    return shipment


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
