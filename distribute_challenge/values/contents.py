"""What an object holds, to be compared with what it holds later. It is never loaded."""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import types
from typing import Any, NamedTuple

from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.names import name_of

_PLAIN: Any = (dict, list, set, frozenset, tuple, str, bytes, bytearray, int, float, complex)


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
        if obj is _as:
            return NotImplemented
        if kind is functools._lru_cache_wrapper:
            return self._itself(obj, *obj.cache_info())
        if issubclass(kind, (type, types.FunctionType, types.ModuleType)):
            return self._itself(obj)
        try:
            if name_of(kind) is None:  # Of the script: it may keep some of what it holds from being pickled.
                self.met.append(kind)
                return _as, (id(kind),), _state(obj)
            reduced = obj.__reduce_ex__(PROTOCOL)
        except Exception:
            return self._itself(obj)
        return reduced if type(reduced) is tuple else self._itself(obj)

    def _itself(self, obj: Any, *more: Any) -> Any:
        self.met.append(obj)
        return _as, (id(obj), *more)


def _as(*_: Any) -> None:
    """In place of what makes an object."""


def _state(obj: Any) -> tuple[Any, ...]:
    slots = {}
    for cls in type(obj).__mro__:
        for name, slot in vars(cls).items():
            if type(slot) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It is empty.
                    slots[name] = slot.__get__(obj)
    return getattr(obj, "__dict__", None), slots, *(kind(obj) for kind in _PLAIN if isinstance(obj, kind))
