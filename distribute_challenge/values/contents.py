"""What an object holds, to be compared with what it holds later. It is never loaded."""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.names import name_of

_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class Content(NamedTuple):
    """`written` is the same if nothing has changed. `met` keeps what has been written by its identity."""

    written: bytes
    met: list[Any]


def content_of(value: Any) -> Content:
    """What a value holds: functions, classes and what cannot be pickled by identity, all else by content."""
    file = io.BytesIO()
    pickler = _ContentPickler(file, PROTOCOL)
    try:
        pickler.dump(value)
    except Exception:  # It is nested too deep, say.
        return Content(b"", [])
    return Content(file.getvalue(), pickler.met)


class _ContentPickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.met: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        kind: Any = type(obj)
        if obj is _stand_in:
            return NotImplemented
        self.met += (obj, kind)
        if kind is functools._lru_cache_wrapper:
            return _stand_in, (id(obj), *obj.cache_info())
        if issubclass(kind, _BY_IDENTITY):
            return _stand_in, (id(obj),)
        try:
            parts = [
                list(part) if isinstance(part, Iterator) else part for part in obj.__reduce_ex__(PROTOCOL)
            ]
        except Exception:
            parts = [id(obj)]
        # One of the script may keep some of what it holds from being pickled.
        return _stand_in, (id(kind),), (parts, _state(obj) if name_of(kind) is None else None)


def _stand_in(*_: Any) -> None:
    """In place of what makes an object."""


def _state(obj: Any) -> tuple[Any, ...]:
    slots = {}
    for cls in type(obj).__mro__:
        for name, slot in vars(cls).items():
            if type(slot) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It is empty.
                    slots[name] = slot.__get__(obj)
    return getattr(obj, "__dict__", None), slots
