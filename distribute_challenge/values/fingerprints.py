"""What an object holds, to be compared with what it holds later. It is never loaded."""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.making import slots_of
from distribute_challenge.values.names import name_of

_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class Fingerprint(NamedTuple):
    """`digest` is the same if nothing has changed, as long as those live that count by their identities."""

    digest: bytes
    identities: list[Any]


def fingerprint_of(value: Any) -> Fingerprint:
    """What a value holds: functions, classes and what cannot be pickled by identity, all else by content."""
    digest = hashlib.blake2b()
    pickler = _Fingerprinter(digest.update)
    try:
        pickler.dump(value)
    except Exception:  # It is nested too deep, say: then it counts as unchanged.
        return Fingerprint(b"", [])
    return Fingerprint(digest.digest(), pickler.identities)


class _Fingerprinter(pickle.Pickler):
    """Writes to a hash alone: values may be large."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        super().__init__(types.SimpleNamespace(write=write), PROTOCOL)
        self.identities: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        kind: Any = type(obj)
        if obj is _stand_in:
            return NotImplemented
        self.identities += (obj, kind)
        if kind is functools._lru_cache_wrapper:
            return _stand_in, (id(obj), *obj.cache_info())
        if issubclass(kind, _BY_IDENTITY):
            return _stand_in, (id(obj),)
        try:
            parts = [
                list(part) if isinstance(part, Iterator) else part for part in obj.__reduce_ex__(PROTOCOL)
            ]
        except Exception:  # It cannot be pickled, whatever its class raises to say so.
            parts = [id(obj)]
        # One of the script may keep some of what it holds from being pickled.
        hidden = (getattr(obj, "__dict__", None), slots_of(obj)) if name_of(kind) is None else ()
        return _stand_in, (id(kind),), (parts, hidden)


def _stand_in(*_: Any) -> None:
    """In place of what makes an object."""
