"""What functions log, on its way to the loggers of the program that called them.

A call says which loggers are forwarded, and from which level on; a record travels among the call's output.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from distribute_challenge.calls.payload import PLAIN_TYPES
from distribute_challenge.values import PROTOCOL

_OWN = __name__.partition(".")[0]

# The loggers that are forwarded to this process, and on a worker to its caller, and from which level on.
forwarded: dict[str, int] = {}


def wishes() -> bytes:
    """What a call says: which loggers, and from which level on they are of any use here."""
    loggers = ((name, level, logging.getLogger(name)) for name, level in forwarded.items())
    levels = {name: max(level, logger.getEffectiveLevel()) for name, level, logger in loggers}
    return pickle.dumps(levels, PROTOCOL)


class _Caller:
    """What a `QueueHandler` takes for a queue."""

    def __init__(self, levels: dict[str, int], send: Callable[[bytes], None]) -> None:
        self._levels = levels
        self._send = send
        self._process = os.getpid()

    def put_nowait(self, record: logging.LogRecord) -> None:
        nearest = next(name for name in _up_from(record.name) if name in self._levels)
        is_ours = record.name.partition(".")[0] == _OWN
        if record.levelno >= self._levels[nearest] and not is_ours and os.getpid() == self._process:
            self._send(_dump(vars(record)))


def _up_from(name: str) -> Iterator[str]:
    """A logger's name, and those that are above it."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _dump(fields: dict[str, Any]) -> bytes:
    try:
        return pickle.dumps(fields, PROTOCOL)
    except Exception:  # An `extra` that does not travel. Its text does.
        plain = {key: value if type(value) in PLAIN_TYPES else repr(value) for key, value in fields.items()}
        return pickle.dumps(plain, PROTOCOL)


@contextlib.contextmanager
def forwarding(wishes: bytes, send: Callable[[bytes], None]) -> Iterator[None]:
    """Have what this process logs sent, as bytes, as a call has said; so do the calls that it makes."""
    from logging.handlers import QueueHandler  # Takes longer than all else here.

    asked: dict[str, int] = pickle.loads(wishes)
    caller: Any = _Caller(asked, send)
    handler = QueueHandler(caller)
    before, levels = dict(forwarded), []
    for name, level in asked.items():
        logger = logging.getLogger(name)
        levels.append((logger, logger.level, level))
        if level < logger.getEffectiveLevel():
            logger.setLevel(level)
        if not any(above in asked for above in [*_up_from(name)][1:]):
            logger.addHandler(handler)
    forwarded.update(asked)
    try:
        yield
    finally:
        forwarded.clear()
        forwarded.update(before)
        for logger, own, level in levels:
            logger.removeHandler(handler)
            if logger.level == level:  # Else the function has set another.
                logger.setLevel(own)


def handle(data: bytes) -> None:
    """Give a record that came from a worker to the logger of its name, if that is enabled for it."""
    fields: dict[str, Any] = pickle.loads(data)
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
