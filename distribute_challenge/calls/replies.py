"""Values and exceptions of functions -> the content of an outcome."""

from __future__ import annotations

import contextvars
import enum
import io
import pickle
import reprlib
import sys
import traceback
import types
from collections.abc import Iterable
from pickle import PicklingError
from typing import Any, NamedTuple

from distribute_challenge.calls import payload
from distribute_challenge.calls.buffers import BytesWrapper, Collector
from distribute_challenge.calls.constant import is_unchanging
from distribute_challenge.calls.payload import FAILURE, VALUE, VALUES, Outcome
from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.code import explained
from distribute_challenge.values.functions import shown_texts

MAX_REPR = 80
_SMALL = {type(None), bool, int, float, complex}  # Values of these types fit into any message.


def plain_value(value: Any) -> Any:
    """The value that the caller gets: of a coroutine its result, of a generator its items, as a list."""
    if type(value) in payload.PLAIN_TYPES:
        return value
    if isinstance(value, types.GeneratorType):
        return list(value)
    if isinstance(value, types.AsyncGeneratorType):
        value = _all_of(value)
    if isinstance(value, types.CoroutineType):
        return plain_value(_result_of(value))
    return value


class Written(NamedTuple):
    """A value of a chunk as it was when its function returned it, or what the function raised."""

    kind: bytes
    content: bytes


def settled(name: str, value: Any, arguments: tuple[Any, ...]) -> Any:
    """What a function of a chunk has returned, for when all of them have: nothing may change it meanwhile.

    Written now if something else than its arguments holds it, or what it views: a list or an array that the
    next one fills again, say.
    """
    held = value if _references(value) > _FRESH and _may_change(value) else None
    if held is None and (base := _base(value)) is not None and _references(base) > _FRESH_BASE:
        held = base
    if held is None or any(held is part for part in arguments):
        return value
    return Written(*dump_value(name, value, aside=False)[:2])


def _base(value: Any) -> Any:
    """Whose memory a view shows; None if it is none."""
    if type(value) is memoryview:
        return value.obj
    return getattr(value, "base", None) if type(value).__module__ == "numpy" else None


def _may_change(value: Any) -> bool:
    if type(value) is tuple or type(value) is frozenset:
        return not payload.PLAIN_TYPES.issuperset(map(type, value))
    return not (isinstance(value, enum.Enum | type) or is_unchanging(type(value)))


def _references(value: Any) -> int:
    return sys.getrefcount(value)


def _fresh() -> tuple[int, int]:
    """How many references `settled` sees of a value that nobody else holds, and of what only a view holds."""

    def settled(value: Any) -> tuple[int, int]:
        count = _references(value)
        if (base := value.base) is not None:
            return count, _references(base)
        return count, 0

    value = types.SimpleNamespace(base=object())
    return settled(value)


_FRESH, _FRESH_BASE = _fresh()


def _result_of(coroutine: types.CoroutineType[Any, Any, Any]) -> Any:
    import asyncio  # Late: most workers never need its 10 MB.

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # It runs in place, within another one: no thread has two loops.
    from concurrent.futures import ThreadPoolExecutor

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(context.run, asyncio.run, coroutine).result()


async def _all_of(items: types.AsyncGeneratorType[Any, None]) -> list[Any]:
    return [item async for item in items]


def dump_value(name: str, value: Any, seconds: float = 0.0, *, aside: bool = True) -> Outcome:
    """The outcome for a value, which may turn out not to travel; with its large buffers `aside`, or not."""
    kind = type(value)
    if kind in _SMALL:
        return Outcome(VALUE, pickle.dumps(value, PROTOCOL), seconds)
    large = Collector() if aside else None
    try:
        made = BytesWrapper()(value) if kind is bytes and aside else value
        content = payload.dump(made, {kind}, reply_pickler, large)
        payload.check_size(len(content))
    except Exception as problem:
        why = payload.describe(problem)
        text = (
            f"{name} returned a {kind.__name__} that does not travel back ({why}): return what can be pickled"
        )
        error = PicklingError if isinstance(problem, PicklingError) else TypeError
        content = payload.dump_failure(error(text), f"{error.__name__}: {text}\n", reply_pickler)
        return Outcome(FAILURE, content, seconds)
    except BaseException as error:  # Its own, as by `sys.exit()`: as if the function had raised it.
        return Outcome(FAILURE, failure(error), seconds)
    return Outcome(VALUE, content, seconds, buffers=() if large is None else large.buffers)


def dump_values(values: list[Any], kinds: set[type], seconds: float) -> Outcome:
    """The outcome for the values of a chunk, which are of these types. Raises whatever pickling does."""
    large = Collector()
    made = list(map(BytesWrapper(), values)) if bytes in kinds else values
    content = payload.dump(made, kinds, reply_pickler, large)
    payload.check_size(len(content))
    return Outcome(VALUES, content, seconds, buffers=large.buffers)


def failure(error: BaseException, call: str | None = None) -> bytes:
    """The content for what a function raised, in the call of a chunk that this text tells."""
    if isinstance(error, AttributeError):
        explained(error)
    is_told = isinstance(error.__cause__, payload.RemoteTraceback)  # By a worker, already.
    if isinstance(error, ModuleNotFoundError) and error.msg and len(error.args) == 1 and not is_told:
        where = f"on the worker, whose Python is {sys.executable}: what functions use is installed there"
        error.msg = f"{error.msg} ({where})"
        error.args = (error.msg,)
    return payload.dump_failure(error, remote_traceback(error), reply_pickler, call)


def call_text(name: str, arguments: Iterable[Any]) -> str:
    """A call in short, for messages.

    >>> call_text("f", [1, "two"])
    "f(1, 'two')"
    """
    return f"{name}({', '.join(map(_short, arguments))})"


def _short(value: Any) -> str:
    try:
        text = reprlib.repr(value)
    except BaseException as error:
        return f"<a {type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}..."


def reply_pickler(file: io.BytesIO, large: Collector | None) -> Any:
    """A pickler for what goes back to a caller, with large buffers aside if there is a collector for them."""
    from distribute_challenge.values.pickling import ReplyPickler  # Late: plain results never need its 10 MB.

    return ReplyPickler(file, large)


def remote_traceback(error: BaseException) -> str:
    """The traceback of a user's function, without the frames of the worker around it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith(
        "distribute_challenge."
    ):
        frame = frame.tb_next
    try:
        with shown_texts():
            return "".join(traceback.format_exception(type(error), error, frame))
    except BaseException as problem:  # An exception may have a __str__, or attributes, that raise.
        return f"<the traceback cannot be shown: {problem!r}>"
