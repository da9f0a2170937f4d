"""The calls of a worker."""

from __future__ import annotations

import builtins
import functools
import gc
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import rpyc
from rpyc.core import brine

from distribute_challenge.address import PEER_THREAD
from distribute_challenge.calls import flights, logs, payload, regions
from distribute_challenge.calls.buffers import Parts, Probe, tell_secret
from distribute_challenge.calls.buffers import unpack as unpack_buffers
from distribute_challenge.calls.payload import (
    FAILURE,
    NO_PROGRAM,
    OUTPUT,
    PRINTS,
    SHARES,
    Call,
    Outcome,
    Piece,
)
from distribute_challenge.calls.regions import Buffer, Region
from distribute_challenge.calls.replies import failure
from distribute_challenge.calls.runner import Runner
from distribute_challenge.calls.scattered import store
from distribute_challenge.worker.execution import Execution
from distribute_challenge.worker.modules import ProgramModules
from distribute_challenge.worker.output import Streams
from distribute_challenge.worker.surroundings import end_if_ruined

TIDY_BYTES = 1 << 20  # After calls larger than this, what they have left behind is looked for.


class Worker:
    """Shared by all connections: the one place where functions run, and the output of the running one."""

    def __init__(self, execution: Execution, streams: Streams) -> None:
        self.execution = execution
        self.streams = streams
        self._runner = Runner()
        self.modules = ProgramModules(self._forget)
        # What shall be gone when a call is over: functions that held a scattered value that has gone; of a
        # large call its buffers, and its function if that is not kept.
        self._shall_go: list[weakref.ref[Any]] = []
        self._are_functions = False
        self._probe_lock = threading.Lock()
        self._probe: Probe | None = None

    def _forget(self, program: bytes) -> None:
        self._runner.forget(program)
        store.forget(program)

    def probe(self) -> Probe:
        """By which a caller learns whether it can open our files. Raises OSError or AttributeError."""
        with self._probe_lock:
            self._probe = self._probe or Probe()
            return self._probe

    def run(
        self, source: str, call: Call, section: memoryview, values: set[bytes]
    ) -> tuple[bytes, Region | None]:
        """Run a call, in the main thread; the outcome, and the file that holds buffers of it, if any.

        Its connection holds the scattered `values`, by their tokens.
        """
        problem: Exception | None = None
        buffers: list[Buffer] = []
        shall_go: list[weakref.ref[Any]] = []
        try:
            if call.values:
                store.take(call.values, values)
            if store.gone:
                gone = [store.gone.popleft() for _ in range(len(store.gone))]
                shall_go = self._runner.forget_holders(gone)
            buffers = unpack_buffers(section)
        except Exception as error:  # There are no descriptors left, say, or no memory.
            problem = error
        size = len(section.obj)  # type: ignore[arg-type]
        flight = flights.begin(call, len(source) + size - len(section) + sum(map(len, buffers)))
        if call.flags & OUTPUT:
            self.streams.begin(call.id, prints=bool(call.flags & PRINTS))
        outcome = self._run(source, call, buffers, problem)
        if call.flags & OUTPUT:
            offset, output = self.streams.end(has_left_threads=self._runner.has_left_threads)
            if output:
                outcome = outcome._replace(offset=offset, output=output)
        if (size > TIDY_BYTES or buffers) and self._runner.dropped is not None:
            shall_go.append(self._runner.dropped)
        self._are_functions = bool(shall_go)
        self._shall_go = shall_go
        self._shall_go += [weakref.ref(part.obj) for part in buffers[:1] if isinstance(part, memoryview)]
        can_share = bool(call.flags & SHARES)
        large = region = None
        try:
            if outcome.buffers:
                large = Parts(outcome.buffers, may_share=can_share)
                region = large.region
            packed = outcome.pack(() if large is None else large.pack(can_share=can_share))
        except Exception as error:  # All together are more than travel at once, or than there is memory for.
            outcome, large, region = outcome._replace(kind=FAILURE, content=failure(error)), None, None
            packed = outcome.pack(())
        flights.end(flight, call, outcome, len(packed) + (large.size if large and region else 0))
        return packed, region

    def _run(self, source: str, call: Call, buffers: list[Buffer], problem: Exception | None) -> Outcome:
        try:
            self.modules.use(call.modules, call.program)  # Texts come once, whatever becomes of their call.
            if problem is not None:
                raise problem
            context = self._runner.context(call.program)
            run: Callable[..., Outcome] = self._runner.run
            if context is not None:
                run = functools.partial(context.run, run)
            if not call.logs:
                return run(source, call, buffers)
            with logs.forwarding(call.logs, self.streams.add_record):
                return run(source, call, buffers)
        except BaseException as error:  # A module cannot be imported, say.
            return Outcome(FAILURE, failure(error))
        finally:
            end_if_ruined()

    def run_text(self, source: str, client: str) -> Any:
        """Run what a plain client sent, which has no modules of its own."""
        self.modules.use(b"", NO_PROGRAM)
        try:
            return flights.record_text(source, client, run_text)
        finally:
            end_if_ruined()

    def tidy(self) -> None:
        """Called when the outcome is on its way."""
        if not self._shall_go:
            return
        # A function and its global names hold on to each other, for one. Young objects are looked at first:
        # to look at all, with libraries loaded, takes longer than many a call.
        for generation in (1, 2)[: 1 + self._are_functions]:
            if any(reference() is not None for reference in self._shall_go):
                gc.collect(generation)
        self._shall_go = []


class WorkerService(rpyc.Service):
    """The calls that a worker exposes. One instance per connection."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._held: dict[bytes, Region] = {}  # by call: what the caller has not opened yet
        self._programs: set[bytes] = set()  # the programs (mostly one) whose calls have come from here
        self._values: set[bytes] = set()  # the tokens of scattered values that have come from here
        self._peer = ""

    def on_connect(self, connection: Any) -> None:  # noqa: ARG002  The signature is RPyC's.
        """Called by RPyC before the first request, in the connection's thread, which has the peer's name."""
        self._peer = threading.current_thread().name.removeprefix(PEER_THREAD)

    def on_disconnect(self, connection: Any) -> None:  # noqa: ARG002  The signature is RPyC's.
        """Called by RPyC when the connection has ended, perhaps twice."""
        self._held.clear()
        store.release(self._values, list(self._values))
        programs, self._programs = self._programs, set()
        self._worker.modules.disconnect(programs)
        regions.let_go()

    def exposed_run_code(self, source: str, call: bytes | None = None) -> Any:
        """Run a function; with `call`, the outcome as bytes, else what `source` bound to `result`."""
        if type(source) is not str or (call is not None and type(call) is not bytes):
            raise TypeError("run_code takes the source as str and, if given, the call as bytes")
        if call is None:
            return self._worker.execution.run(lambda: self._worker.run_text(source, self._peer))
        worker = self._worker
        what, section = Call.unpack(call)
        if what.program not in self._programs:
            self._programs.add(what.program)
            worker.modules.connect(what.program)
        run = functools.partial(worker.run, source, what, section, self._values)
        outcome, region = worker.execution.run(run, worker.tidy)
        if region is not None:
            self._held[what.id] = region
        return outcome

    def exposed_share(self, probe: bytes) -> tuple[bytes | None, bytes]:
        """The secret in a probe of the caller's, if its files can be opened from here, and a probe of ours.

        Raises RuntimeError if there is no shared memory here.
        """
        if type(probe) is not bytes:
            raise TypeError("share takes the description of a probe, as bytes")
        try:
            return tell_secret(probe), self._worker.probe().description
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"no memory can be shared here: {error}") from None

    def exposed_release(self, call_id: bytes) -> None:
        """The caller has opened the file that came with the outcome of that call."""
        if type(call_id) is bytes:
            self._held.pop(call_id, None)

    def exposed_read_output(
        self, seen: int, call_id: bytes | None = None, flush: bool = False
    ) -> tuple[int, tuple[Piece, ...]]:
        """The output of the running function after the first `seen` bytes, and where that begins.

        With `call_id`, only if that is the call that runs. Nothing if none runs. With `flush`, a line without
        an end is output, too.
        """
        if type(seen) is not int or (call_id is not None and type(call_id) is not bytes):
            raise TypeError("read_output takes the number of bytes seen as int and, if given, the call's id")
        return self._worker.streams.read(seen, call_id, flush=bool(flush))


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
    """`error` in a form that RPyC carries: itself if it can, else a RuntimeError that names it."""
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
