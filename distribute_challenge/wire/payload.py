"""Calls and outcomes as bytes.

    call     cloudpickle, protocol 5, of the fields of `Call` in their order
    outcome  `+` and the value, pickled; or
             `-` and the pickled tuple of exception (as pickled bytes, or None), type name, text, traceback

The exception is pickled on its own: where it cannot be made again, the texts beside it still arrive.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

PROTOCOL = 5
_VALUE, _FAILURE = b"+", b"-"
# What one frame may hold, less what RPyC adds around it.
MAX_BYTES = (1 << 30) - (1 << 10)
# Types whose values need no cloudpickle, which takes ten times as long.
_PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})


class Definition(NamedTuple):
    """How to make a function out of its text (see `wire.definition`)."""

    name: str
    module: str
    filename: str
    line: int  # of the file, where the text begins
    free: tuple[str, ...]  # names of the enclosing function that it uses
    flags: int  # of `compile`: the module's `from __future__` imports
    decorated: bool  # whether the decorators in the text are applied


class Call(NamedTuple):
    """One call of one function, and the values that the function uses."""

    definition: Definition | None  # None: the function could not be told from its text
    function: Any  # in that case, the function by value
    globals: dict[str, Any]
    closure: dict[str, Any]
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class RemoteTraceback(Exception):
    """The traceback of a function that raised on a worker: the cause of the exception at the caller."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

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


def dump(value: Any) -> bytes:
    """Pickle `value`, whatever cloudpickle can carry."""
    if type(value) in _PLAIN_TYPES:
        return pickle.dumps(value, PROTOCOL)
    import cloudpickle  # Late: a worker whose results are plain never needs its 10 MB.

    data: bytes = cloudpickle.dumps(value, PROTOCOL)
    return data


def dump_call(call: Call) -> bytes:
    """A call as bytes. Raises whatever pickling raises."""
    return dump(tuple(call))


def load_call(data: bytes) -> Call:
    """The call in `data`."""
    return Call(*pickle.loads(data))


def dump_value(value: Any) -> bytes:
    """The outcome of a function that returned. Raises whatever pickling raises, and OverflowError."""
    data = dump(value)
    check_size(len(data))
    return _VALUE + data


def dump_failure(exception: BaseException, traceback: str) -> bytes:
    """The outcome of a function that raised. Never raises, whatever the exception's methods do."""
    try:
        pickled = dump(exception)
        pickle.loads(pickled)  # An exception with a constructor of its own may pickle, and not come back.
    except BaseException:
        pickled = None
    kind = type(exception)
    module, name = type.__getattribute__(kind, "__module__"), type.__getattribute__(kind, "__qualname__")
    if module != "builtins":
        name = f"{module}.{name}"
    return _FAILURE + pickle.dumps((pickled, name, describe(exception), traceback), PROTOCOL)


def describe(exception: BaseException) -> str:
    """An exception's text, whatever its `__str__` does."""
    try:
        # Of exact type, also where it returned something derived from str.
        return str.__str__(str(exception))
    except BaseException as error:
        return f"<no text: its __str__ raised {type(error).__name__}>"


def is_value(outcome: bytes) -> bool:
    """Whether the function returned (and did not raise)."""
    return outcome[:1] == _VALUE


def load_outcome(outcome: bytes) -> Any:
    """Return the value in `outcome`, or raise the exception in it, with its remote traceback as the cause."""
    content = pickle.loads(memoryview(outcome)[1:])
    if is_value(outcome):
        return content
    pickled, name, text, traceback = content
    raise _load_exception(pickled, name, text) from RemoteTraceback(traceback)


def _load_exception(pickled: bytes | None, name: str, text: str) -> BaseException:
    if pickled is not None:
        try:
            exception = pickle.loads(pickled)
        except Exception as error:
            text = f"{text} (it cannot be made again here: {error!r})"
        else:
            if isinstance(exception, BaseException):
                return exception
    return RuntimeError(f"{name}: {text}")
