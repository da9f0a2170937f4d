"""Values that are sent to each worker once, as their client has them."""

from __future__ import annotations

import os
import weakref
from typing import Any

from distribute_challenge.calls.buffers import Parts
from distribute_challenge.calls.scattered import TOKEN_BYTES


class Scattered:
    """A value on all workers: what `PoolExecutor.scatter` gives.

    It can stand wherever the value can, in the arguments of calls (also inside lists, tuples and dicts) and
    in what functions use; there it is the value. When it goes, the value goes with it.
    """

    __slots__ = ("__weakref__", "_classes", "_parts", "modules", "token")

    def __init__(
        self,
        parts: Parts,
        modules: frozenset[str],
        token: bytes | None = None,
        classes: tuple[type, ...] = (),
    ) -> None:
        self.token = token or os.urandom(TOKEN_BYTES)
        self.modules = modules  # of the user's own, which it needs
        self._parts = parts
        self._classes = classes  # A result finds them as long as this is there.
        _alive[self.token] = self

    def pack(self, *, can_share: bool) -> bytes:
        """The value, for a receiver that can open our files or cannot."""
        return b"".join(self._parts.pack(can_share=can_share))

    def __reduce__(self) -> Any:
        raise TypeError("a scattered value travels in calls of functions on the pool, and nowhere else")

    def __repr__(self) -> str:
        return f"<a value of {self._parts.size} bytes, pickled, on all workers>"


def is_gone(token: bytes) -> bool:
    """Whether nothing in this program refers to a scattered value any more."""
    return token not in _alive


_alive: weakref.WeakValueDictionary[bytes, Scattered] = weakref.WeakValueDictionary()
