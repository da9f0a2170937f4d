"""The calls of a worker."""

from __future__ import annotations

import builtins
import functools
import sys
import time
import traceback
import types
from typing import Any

import rpyc
from rpyc.core import brine

from distribute_challenge.wire import payload
from distribute_challenge.wire.definition import make_function
from distribute_challenge.worker.execution import Execution


class WorkerService(rpyc.Service):
    """What a connection can ask of a worker. One instance per connection."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def exposed_run_code(self, source: str, call: bytes | None = None) -> Any:
        """Run a function; with `call`, the outcome as bytes, else what `source` bound to `result`."""
        if type(source) is not str or (call is not None and type(call) is not bytes):
            raise TypeError("run_code takes the source as str and, if given, the call as bytes")
        if call is None:
            return self._execution.run(lambda: run_text(source))
        return self._execution.run(lambda: run_call(source, call))


def run_call(source: str, data: bytes) -> bytes:
    """Run the function that `source` and a call describe. Whatever happens is in the outcome."""
    try:
        call = payload.load_call(data)
        value = make_function(source, call)(*call.args, **call.kwargs)
    except BaseException as error:
        return payload.dump_failure(error, remote_traceback(error))
    try:
        return payload.dump_value(value)
    except BaseException as problem:
        name = call.definition.name if call.definition else getattr(call.function, "__name__", "the function")
        reason = payload.describe(problem)
        text = f"{name} returned a {type(value).__name__} that does not travel back ({reason})"
        return payload.dump_failure(TypeError(text), f"TypeError: {text}\n")


def run_text(source: str) -> Any:
    """Execute `source` in a fresh namespace and return what it bound to `result`, by value.

    Raises what the source raised, in a form that RPyC carries.
    """
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    namespace.update(time=time, sys=sys, rpyc=rpyc)
    try:
        exec(compile_text(source), namespace)
        if "result" not in namespace:
            raise NameError("the source bound nothing to `result`: end it with `result = ...`")
        return by_value(namespace["result"])
    except Exception as error:
        raise as_builtin(error) from error
    except BaseException as error:  # sys.exit() and its like end the function, and nothing else.
        raise RuntimeError(
            f"the function ended with {type(error).__name__}: {payload.describe(error)}"
        ) from error


@functools.lru_cache(maxsize=512)
def compile_text(source: str) -> types.CodeType:
    """Compile a source. Remembered."""
    return compile(source, "<run_code>", "exec", dont_inherit=True)


def by_value(result: Any) -> Any:
    """`result`, if plain RPyC carries it by value. Raises TypeError."""
    try:
        size = len(brine.dump(result))
    except Exception as error:
        raise TypeError(
            f"`result`, a {type(result).__name__}, does not travel by value ({payload.describe(error)}): "
            "make it None, bool, int, float, complex, str, bytes, or a tuple or frozenset of those"
        ) from None
    payload.check_size(size)
    return result


def as_builtin(error: Exception) -> Exception:
    """What RPyC carries for `error`: itself if it can, else a RuntimeError that names it."""
    kind = type(error)
    try:
        if kind.__module__ == "builtins":
            kind.__new__(kind)  # RPyC makes it again like this ...
            for name in dir(error):
                if not name.startswith("_"):  # ... and sets these, as they are or as their repr.
                    value = getattr(error, name, None)
                    for part in error.args if name == "args" else (value,):
                        brine.dump(part if brine.dumpable(part) else repr(part))
            return error
    except Exception as problem:
        return RuntimeError(f"{kind.__qualname__}: {payload.describe(error)} ({payload.describe(problem)})")
    return RuntimeError(f"{kind.__module__}.{kind.__qualname__}: {payload.describe(error)}")


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
