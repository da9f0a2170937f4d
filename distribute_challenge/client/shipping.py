"""What travels for one function: its text, and with each call the values it uses, as they are then."""

from __future__ import annotations

import dis
import functools
import os
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle

from distribute_challenge.client.text import find_text
from distribute_challenge.errors import TaskNotSendable
from distribute_challenge.wire import payload
from distribute_challenge.wire.payload import Call

BY_VALUE = "# No text makes this very function again: it is sent by value.\n"
_NAME_INSTRUCTIONS = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"}
_by_value_lock = threading.Lock()  # guards cloudpickle's list of modules to send by value, which is global


def _renew_lock() -> None:
    global _by_value_lock
    _by_value_lock = threading.Lock()


# A thread that does not exist in a forked child may have held it.
os.register_at_fork(after_in_child=_renew_lock)


class Shipment:
    """A function on its way to workers. `source` is the text that travels."""

    def __init__(self, function: Callable[..., Any], is_our_decorator: Callable[[Any], bool]) -> None:
        self._function = function
        self._text = find_text(function, is_our_decorator)
        self.source = BY_VALUE if self._text is None else self._text.source
        self._global_names: set[str] = set()
        if self._text is not None:
            self._global_names |= set(names_used(self._text.inner.__code__))
            self._global_names |= set(self._text.decorator_names())

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """One call as bytes, with the values that the function uses as they are now.

        Raises TaskNotSendable, which names what cannot be pickled.
        """
        call = self._make_call(args, kwargs)
        try:
            data = self._dump(call)
            payload.check_size(len(data) + 4 * len(self.source))
            return data
        except Exception as error:
            raise TaskNotSendable(self._explain(call, error)) from error

    def _make_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        if self._text is None:
            return Call(None, self._function, {}, {}, None, None, args, kwargs)
        _, definition, inner = self._text
        scope = inner.__globals__
        cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
        return Call(
            definition=definition,
            function=None,
            globals={
                name: scope[name]
                for name in self._global_names
                if name in scope and not (name == definition.name and self._is_itself(scope[name]))
            },
            closure={
                name: cell.cell_contents
                for name, cell in cells
                if not (name == definition.name and self._is_itself(cell.cell_contents))
            },
            defaults=inner.__defaults__,
            keyword_defaults=inner.__kwdefaults__,
            args=args,
            kwargs=kwargs,
        )

    def _is_itself(self, value: Any) -> bool:
        """Whether what a name is bound to is the function, with our decorator or without."""
        return value is self._function or getattr(value, "__wrapped__", None) is self._function

    def _dump(self, call: Call) -> bytes:
        module = sys.modules.get(getattr(self._function, "__module__", None) or "")
        if module is None or not is_users(module):
            return payload.dump_call(call)
        # The worker need not have the user's module: what it defines travels by value.
        with _by_value_lock:
            if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                return payload.dump_call(call)  # The user has asked for that already.
            cloudpickle.register_pickle_by_value(module)
            try:
                return payload.dump_call(call)
            finally:
                cloudpickle.unregister_pickle_by_value(module)

    def _explain(self, call: Call, error: Exception) -> str:
        name = getattr(self._function, "__name__", repr(self._function))
        for what, value in _parts(call):
            try:
                payload.dump(value)
            except Exception as reason:
                return (
                    f"{name} cannot be sent to a worker, because of {what}, a {type(value).__name__} "
                    f"({reason}): make it inside the function instead"
                )
        return f"{name} cannot be sent to a worker: {error}"


def names_used(code: types.CodeType) -> Iterator[str]:
    """The global names that `code`, and all code inside it, mentions."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _NAME_INSTRUCTIONS and isinstance(instruction.argval, str):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_used(constant)


def _parts(call: Call) -> Iterator[tuple[str, Any]]:
    """Everything that a call carries, and what to call it in a message."""
    for name, value in [*call.globals.items(), *call.closure.items()]:
        yield f"the variable {name!r} that it uses", value
    for number, value in enumerate(call.args, start=1):
        yield f"argument {number}", value
    for name, value in call.kwargs.items():
        yield f"argument {name!r}", value
    for value in call.defaults or ():
        yield "a default value", value
    for name, value in (call.keyword_defaults or {}).items():
        yield f"the default value of {name!r}", value


@functools.lru_cache(maxsize=1024)
def is_users(module: types.ModuleType) -> bool:
    """Whether a module's file lies outside the interpreter's library folders.

    What `__main__` defines needs no such question: cloudpickle sends it by value anyway.
    """
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or file is None:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _library_folders())


@functools.lru_cache(maxsize=1)
def _library_folders() -> tuple[Path, ...]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (Path(__file__).parents[1], *(Path(folder).resolve() for folder in folders if folder))
