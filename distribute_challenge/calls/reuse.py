"""The function and the arguments of a call, loaded; and functions that are kept to be called again.

Each call finds the function as it was sent, whatever earlier calls did to it and its global names.
"""

from __future__ import annotations

import operator
import pickle
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from distribute_challenge.calls.constant import Snapshot, snapshot
from distribute_challenge.calls.regions import Buffer
from distribute_challenge.values.functions import MadeModules, loading

MAX_KEPT = 256
MAX_FUNCTION_BYTES = 1 << 14  # of a function as it was sent: larger ones are not kept

Key = tuple[bytes, str, bytes]  # whose function it is, which has its own classes; the source; the pickle


class Known(NamedTuple):
    """A function as it was loaded, with the modules that were made for it, and what it depends on."""

    function: Callable[..., Any]
    modules: MadeModules
    constant: Snapshot | None  # None: something that may change without a trace


class Loaded(NamedTuple):
    """The function of a call, the modules that were made for all that came with it, and its arguments."""

    function: Callable[..., Any]
    modules: MadeModules
    arguments: Any
    known: Known


class Kept:
    """The functions that one process keeps, by what they were loaded from.

    A function that runs is not among them: whoever calls it again meanwhile makes another one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Known] = OrderedDict()  # the latest last

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def load(self, key: Key, arguments: bytes, buffers: Sequence[Buffer] = ()) -> Loaded:
        """The function that was sent as `key`, and its arguments. Raises whatever unpickling does."""
        rest = iter(buffers)  # First come those of the function.
        _, source, data = key
        known = self._known.pop(key, None)
        if known is not None and (known.constant is None or not known.constant.still_holds()):
            known = None
        modules: MadeModules = {} if known is None else dict(known.modules)
        with loading(source, modules):
            if not data:  # It is in one pickle with them, since it may hold the same objects.
                function, given = pickle.loads(arguments, buffers=rest)
                return Loaded(function, modules, given, Known(function, modules, None))
            if known is None:
                function = pickle.loads(data, buffers=rest)
                is_whole = len(buffers) == operator.length_hint(rest)  # What it uses is all in `data`.
                is_small = is_whole and len(source) + len(data) <= MAX_FUNCTION_BYTES
                # Before the arguments are loaded: functions among them bring modules of their own.
                constant = snapshot(function, modules.values()) if is_small else None
                known = Known(function, dict(modules), constant)
            return Loaded(known.function, modules, pickle.loads(arguments, buffers=rest), known)

    def forget(self, program: bytes) -> None:
        """The program has gone, and its classes with it."""
        for key in [key for key in list(self._known) if key[0] == program]:
            self._known.pop(key, None)  # In place, other threads use it, too.

    def forget_holders(self, tokens: Collection[bytes]) -> list[weakref.ref[Any]]:
        """These scattered values have gone: keep no function that holds one. Those, which shall go now."""
        found = []
        for key in list(self._known):
            if any(token in key[2] for token in tokens) and (known := self._known.pop(key, None)) is not None:
                found.append(weakref.ref(known.function))
        return found

    def put(self, key: Key, known: Known) -> bool:
        """Keep a function, which may have been called, if it is constant; whether it is."""
        if known.constant is None:
            return False
        self._known[key] = known
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)
        return True
