"""What this process runs, as it goes into its flight recorder."""

from __future__ import annotations

import functools
import itertools
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from distribute_challenge.calls.payload import INITIALIZER, Call, Outcome, describe
from distribute_challenge.record.flight import ID_BYTES, Flight, FlightRecorder, label

recorder = FlightRecorder()  # It writes nothing until there is memory that somebody reads.
_DEFINITION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)
_numbers = itertools.count(1)


def begin(call: Call, size: int, *, is_inside: bool = False) -> Flight:
    """A call of `size` bytes begins; within another one, or not."""
    return recorder.begin(call.id, _without_host(call.label), size, call.queued, is_inside=is_inside)


def end(flight: Flight, call: Call, outcome: Outcome, size: int) -> None:
    """It has ended, with an outcome of `size` bytes. Initializers are not counted."""
    finished, failed = (0, 0) if call.flags & INITIALIZER else outcome.counts(call.functions)
    error = outcome.error if failed else ""
    recorder.end(
        flight, finished=finished, failed=failed, seconds=outcome.seconds, returned=size, error=error
    )


def record_text(source: str, client: str, run: Callable[[str], Any]) -> Any:
    """Run what a plain client sent; its value, or what it raised."""
    definition = _DEFINITION.search(source)
    name = "run_code" if definition is None else definition[1]
    number = next(_numbers).to_bytes(ID_BYTES, "little")
    flight = recorder.begin(number, label(name, client), len(source))
    began = time.perf_counter()
    error = ""
    try:
        return run(source)
    except BaseException as raised:
        error = f"{type(raised).__name__}: {describe(raised)}".partition("\n")[0]
        raise
    finally:
        seconds, failed = time.perf_counter() - began, int(bool(error))
        recorder.end(flight, finished=1 - failed, failed=failed, seconds=seconds, returned=0, error=error)


@functools.lru_cache
def _without_host(label: bytes) -> bytes:
    """A label of a client on this machine, which is named by program and process alone."""
    return label.removesuffix(f"@{socket.gethostname()}".encode())
