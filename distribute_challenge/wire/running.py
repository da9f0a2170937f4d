"""Runs one call where it is: on a worker, or in place. Whatever happens is in the outcome."""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distribute_challenge.wire import payload
from distribute_challenge.wire.buffers import BytesWrapper, Collector
from distribute_challenge.wire.functions import load_call
from distribute_challenge.wire.payload import CHUNK, FAILURE, INITIALIZER, MIXED, VALUE, VALUES, Call, Result
from distribute_challenge.wire.regions import Buffer
from distribute_challenge.wire.reuse import Kept, Loaded

MAX_SCOPES = 1000  # Executors whose initializer a process remembers.


class Runner:
    """Runs calls, one at a time, and remembers what the initializers of executors have set up."""

    def __init__(self) -> None:
        # What each executor's initializer has bound: scope -> module -> global name -> value.
        self._scopes: dict[bytes, dict[str, dict[str, Any]]] = {}
        self._kept = Kept()
        self._rest: Iterator[Any] = iter(())  # of the chunk that runs: what has not begun
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def run(self, source: str, call: Call, buffers: Iterable[Buffer] = ()) -> Result:
        """What becomes of a call."""
        name = "the function"
        began = known = None
        threads = threading.active_count()
        try:
            if call.flags & INITIALIZER and call.scope in self._scopes:
                return Result(VALUE, payload.dump(None, reply_pickler))
            loaded, arguments, known = load_call(source, call.function, call.arguments, self._kept, buffers)
            function = loaded.function
            name = getattr(function, "__name__", name)
            self._apply(call.scope, loaded)
            began = time.perf_counter()
            if call.flags & CHUNK:
                return self._run_each(function, name, arguments)
            args, kwargs = arguments
            if call.flags & INITIALIZER:
                before = {module: dict(names) for module, names in loaded.namespaces.items()}
            value = plain_value(function(*args, **kwargs))
            seconds = time.perf_counter() - began
            if call.flags & INITIALIZER:
                self._remember(call.scope, loaded.namespaces, before)
                value = None
        except BaseException as error:
            seconds = 0.0 if began is None else time.perf_counter() - began
            return Result(FAILURE, failure(error), seconds)
        finally:
            # A thread that the function has left may still change its global names.
            if known is not None and threading.active_count() <= threads:
                self._kept.put((source, call.function), known)
        return dump_value(name, value, seconds)

    def keeps(self, source: str, call: Call) -> bool:
        """Whether the function of a call is kept to be called again, and so holds nothing but constants."""
        return (source, call.function) in self._kept

    def _run_each(self, function: Callable[..., Any], name: str, columns: list[list[Any]]) -> Result:
        began = time.perf_counter()
        values: list[Any] = [None] * len(columns[0])
        failures: dict[int, bytes] = {}
        if len(columns) == 1:
            call, self._rest = function, enumerate(columns[0])
        else:
            call, self._rest = (lambda args: function(*args)), enumerate(zip(*columns, strict=True))
        number, is_done = 0, False
        while not is_done:
            try:
                for number, item in self._rest:
                    values[number] = call(item)
                is_done = True
            except BaseException as error:
                failures[number], values[number] = failure(error), None
        item, self._rest = None, iter(())  # An iterator that has ended may still hold its last item.
        if not payload.PLAIN_TYPES.issuperset(map(type, values)):
            for number, value in enumerate(values):
                try:
                    values[number] = plain_value(value)
                except BaseException as error:
                    failures[number] = failure(error)
        seconds = time.perf_counter() - began
        if not failures:
            try:
                large = Collector()
                content = _dump_values(values, large)
                payload.check_size(len(content))
                return Result(VALUES, content, seconds, large.buffers)
            except BaseException as problem:
                del problem  # One of them does not travel back: then each goes for itself.
        outcomes = [
            (FAILURE, failures[number]) if number in failures else dump_value(name, value, aside=False)[:2]
            for number, value in enumerate(values)
        ]
        content = pickle.dumps(outcomes, payload.PROTOCOL)
        if len(content) > payload.MAX_BYTES:
            text = (
                f"the results of a chunk are {len(content)} bytes, more than travel at once: set chunksize=1"
            )
            return Result(FAILURE, payload.dump_failure(OverflowError(text), text, reply_pickler), seconds)
        return Result(MIXED, content, seconds)

    def _leave_to_parent(self) -> None:
        """In a child that a function has forked: the rest of its chunk is not the child's to run."""
        for _ in self._rest:
            pass

    def _apply(self, scope: bytes, loaded: Loaded) -> None:
        """Let the functions of a call find what the initializer of their executor has bound."""
        bound = self._scopes.get(scope)
        if not bound:
            return
        own = getattr(loaded.function, "__globals__", {})  # Of a function by value, a namespace of its own.
        for namespace in [*loaded.namespaces.values(), own]:
            namespace.update(bound.get(namespace.get("__name__", ""), {}))

    def _remember(
        self, scope: bytes, namespaces: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]
    ) -> None:
        if len(self._scopes) >= MAX_SCOPES:
            del self._scopes[next(iter(self._scopes))]
        bound = self._scopes[scope] = {}
        for module, names in namespaces.items():
            old = before[module]
            bound[module] = {
                name: value
                for name, value in names.items()
                if name not in old or old[name] is not value or _may_be_filled(value)
            }


def _may_be_filled(value: Any) -> bool:
    """Whether a value may have been changed without being bound anew, as a dict is."""
    fixed = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    return type(value) not in payload.PLAIN_TYPES and not isinstance(value, fixed)


def _dump_values(values: list[Any], large: Collector) -> bytes:
    kinds = set(map(type, values))
    if bytes in kinds:
        values = list(map(BytesWrapper(), values))
    if payload.PLAIN_TYPES.issuperset(kinds):
        return pickle.dumps(values, payload.PROTOCOL, buffer_callback=large)
    file = io.BytesIO()
    reply_pickler(file, large).dump(values)
    return file.getvalue()


def plain_value(value: Any) -> Any:
    """What a function gives to its caller: of a coroutine its result, of a generator its items, as a list."""
    if type(value) in payload.PLAIN_TYPES:
        return value
    if isinstance(value, types.CoroutineType):
        import asyncio  # Late: most workers never need its 10 MB.

        return plain_value(asyncio.run(value))
    if isinstance(value, types.GeneratorType):
        return list(value)
    if isinstance(value, types.AsyncGeneratorType):
        import asyncio

        return asyncio.run(_all_of(value))
    return value


async def _all_of(items: types.AsyncGeneratorType[Any, None]) -> list[Any]:
    return [item async for item in items]


def dump_value(name: str, value: Any, seconds: float = 0.0, *, aside: bool = True) -> Result:
    """What a function returned, which may turn out not to travel; with its large buffers `aside`, or not."""
    large = Collector() if aside else None
    try:
        if type(value) is bytes and large is not None:
            content = pickle.dumps(BytesWrapper()(value), payload.PROTOCOL, buffer_callback=large)
        elif type(value) in payload.PLAIN_TYPES:
            content = pickle.dumps(value, payload.PROTOCOL)
        else:
            file = io.BytesIO()
            reply_pickler(file, large).dump(value)
            content = file.getvalue()
        payload.check_size(len(content))
    except BaseException as problem:
        reason = payload.describe(problem)
        text = f"{name} returned a {type(value).__name__} that does not travel back ({reason})"
        content = payload.dump_failure(TypeError(text), f"TypeError: {text}\n", reply_pickler)
        return Result(FAILURE, content, seconds)
    return Result(VALUE, content, seconds, large.buffers if large is not None else ())


def failure(error: BaseException) -> bytes:
    """The content for what a function raised."""
    return payload.dump_failure(error, remote_traceback(error), reply_pickler)


def reply_pickler(file: io.BytesIO, large: Collector | None) -> Any:
    """A pickler for what goes back to a caller, with large buffers aside if there is a collector for them."""
    from distribute_challenge.wire.replying import ReplyPickler  # Late: plain results never need its 10 MB.

    return ReplyPickler(file, payload.PROTOCOL, buffer_callback=large)


def remote_traceback(error: BaseException) -> str:
    """The traceback of a user's function, without the frames of the worker around it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith(
        "distribute_challenge."
    ):
        frame = frame.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frame))
    except BaseException as problem:  # An exception may have a __str__, or attributes, that raise.
        return f"<the traceback cannot be shown: {problem!r}>"
