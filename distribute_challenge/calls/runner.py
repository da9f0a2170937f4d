"""Runs one call where it is: on a worker, or in place. Whatever happens is in the outcome."""

from __future__ import annotations

import contextlib
import contextvars
import os
import pickle
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from distribute_challenge.address import PEER_THREAD
from distribute_challenge.calls import payload
from distribute_challenge.calls.payload import CHUNK, FAILURE, INITIALIZER, MIXED, PLAIN_TYPES, Call, Outcome
from distribute_challenge.calls.program import Process, Setup, look
from distribute_challenge.calls.regions import Buffer
from distribute_challenge.calls.replies import (
    Written,
    call_text,
    dump_value,
    dump_values,
    failure,
    plain_value,
    settled,
)
from distribute_challenge.calls.reuse import Kept, Key, Loaded
from distribute_challenge.calls.scattered import store
from distribute_challenge.values import PROTOCOL
from distribute_challenge.values.classes import Script
from distribute_challenge.values.functions import SCRIPT


class Runner:
    """Runs calls, one at a time, and remembers what the initializers of executors have set up."""

    def __init__(self, *, in_place: bool = False) -> None:
        """With `in_place`, calls run in the process of their caller, whose own script they leave as it is."""
        self._is_in_place = in_place
        self._setups: dict[bytes, Setup] = {}  # by program
        self._kept = Kept()
        self.dropped: weakref.ref[Any] | None = None  # the function of the last call, if that is not kept
        self.has_left_threads = False  # whether threads that the last call started go on
        self._chunks: list[Iterator[Any]] = []  # those that run: what has not begun of each
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def run(self, source: str, call: Call, buffers: Iterable[Buffer] = ()) -> Outcome:
        """Run a call; its outcome."""
        name = "the function"
        began = loaded = self.dropped = None
        main = sys.modules["__main__"]
        threads = set(threading.enumerate())
        try:
            setup = self._setups.get(call.program)
            if setup is not None:
                if call.flags & INITIALIZER:
                    return dump_value(name, None)
                setup.restore()
                if not self._is_in_place:  # Nothing is put back there between calls.
                    setup.set_up_process()
            key = call.program, source, call.function
            loaded = self._load(key, call.arguments, list(buffers))
            function, arguments = loaded.function, loaded.arguments
            name = getattr(function, "__name__", name)
            if not self._is_in_place and SCRIPT not in loaded.modules:
                loaded.modules[SCRIPT] = Script("__main__")
            if setup is not None:
                setup.bind(loaded.modules)
            if not self._is_in_place:
                sys.modules["__main__"] = loaded.modules[SCRIPT]
            before = (look(loaded.modules), Process()) if call.flags & INITIALIZER else None
            began = time.perf_counter()
            if call.flags & CHUNK:
                return self._run_each(function, name, arguments)
            args, kwargs = arguments
            value = plain_value(function(*args, **kwargs))
            seconds = time.perf_counter() - began
            if before is not None:
                self._setups[call.program] = Setup(loaded.modules, *before)
                value = None
        except BaseException as error:
            seconds = 0.0 if began is None else time.perf_counter() - began
            return Outcome(FAILURE, failure(error), seconds)
        finally:
            if not self._is_in_place:
                sys.modules["__main__"] = main
            new = set(threading.enumerate()) - threads  # A connection's are not the call's.
            self.has_left_threads = any(not thread.name.startswith(PEER_THREAD) for thread in new)
            if loaded is not None and not self._keep(key, loaded):
                with contextlib.suppress(TypeError):  # Not everything that can be called takes one.
                    self.dropped = weakref.ref(loaded.function)
        return dump_value(name, value, seconds)

    def _load(self, key: Key, arguments: bytes, buffers: list[Buffer]) -> Loaded:
        known = store.loaded
        loaded = self._kept.load(key, arguments, buffers)
        if store.loaded != known:
            # A scattered value was loaded just now, and has put classes and global names back to what they
            # were when it was scattered: what the call says of them goes on top.
            del loaded
            loaded = self._kept.load(key, arguments, buffers)
        return loaded

    def _keep(self, key: Key, loaded: Loaded) -> bool:
        """Keep a function that was called; whether that may be."""
        if self.has_left_threads:
            return False  # They may still change its global names.
        # In place, each call has copies of classes for itself, which its arguments bring along.
        if self._is_in_place and loaded.known.constant and loaded.known.constant.classes:
            return False
        return self._kept.put(key, loaded.known)

    def forget(self, program: bytes) -> None:
        """The program, or the executor, has gone: forget what was its own."""
        self._setups.pop(program, None)
        self._kept.forget(program)

    def context(self, program: bytes) -> contextvars.Context | None:
        """What the executor's initializer has set up of its context, for one call; None without one."""
        setup = self._setups.get(program)
        if setup is None:
            return None
        context = setup.context.copy()
        decimal = sys.modules.get("decimal")
        if decimal is not None:  # What holds its precision is one object in all copies.
            context.run(lambda: decimal.setcontext(decimal.getcontext().copy()))
        return context

    def forget_holders(self, tokens: Collection[bytes]) -> list[weakref.ref[Any]]:
        """These scattered values have gone: keep no function that holds one. Those, which shall go now."""
        return self._kept.forget_holders(tokens)

    def keeps(self, source: str, call: Call) -> bool:
        """Whether the function of a call is kept to be called again, and so holds nothing but constants."""
        return (call.program, source, call.function) in self._kept

    def _run_each(self, function: Callable[..., Any], name: str, columns: list[list[Any]]) -> Outcome:
        began = time.perf_counter()
        values = self._call_each(function, name, columns)
        seconds = time.perf_counter() - began
        kinds = set(map(type, values))
        if Written not in kinds:
            with contextlib.suppress(BaseException):  # One may not travel back: each is pickled by itself.
                return dump_values(values, kinds, seconds)
        once: dict[bytes, bytes] = {}  # What is returned again, and has not changed, is written once.
        outcomes = []
        for value in values:
            written = value if type(value) is Written else dump_value(name, value, aside=False)
            outcomes.append((written.kind, once.setdefault(written.content, written.content)))
        content = pickle.dumps(outcomes, PROTOCOL)
        if len(content) > payload.MAX_BYTES:
            text = f"the results of a chunk are {len(content)} bytes, too many at once: set chunksize=1"
            return Outcome(FAILURE, failure(OverflowError(text)), seconds)
        return Outcome(MIXED, content, seconds)

    def _call_each(self, function: Callable[..., Any], name: str, columns: list[list[Any]]) -> list[Any]:
        """Call a function for each item of a chunk. After this, nothing holds the last item."""
        values: list[Any] = [None] * len(columns[0])
        has_one = len(columns) == 1
        rest = enumerate(columns[0] if has_one else zip(*columns, strict=True))
        self._chunks.append(rest)
        number, is_done = 0, False
        while not is_done:
            try:
                if has_one:
                    for number, item in rest:
                        value = function(item)
                        if type(value) not in PLAIN_TYPES:
                            value = plain_value(value)
                            value = settled(name, value, (item,))
                        values[number] = value
                else:
                    for number, item in rest:
                        value = function(*item)
                        if type(value) not in PLAIN_TYPES:
                            value = plain_value(value)
                            value = settled(name, value, item)
                        values[number] = value
                is_done = True
            except BaseException as error:
                text = call_text(name, [column[number] for column in columns])
                values[number] = Written(FAILURE, failure(error, text))
        self._chunks.remove(rest)
        return values

    def _leave_to_parent(self) -> None:
        """In a child that a function has forked: the rest of its chunk is not the child's to run."""
        for rest in self._chunks:
            deque(rest, maxlen=0)
