"""What functions log, on its way to the loggers of the program that called them.

A call says which loggers are forwarded, and from which level on; a record travels among the call's output.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

from distribute_challenge.calls.payload import PLAIN_TYPES, is_this_package
from distribute_challenge.values import PROTOCOL

_SEEN = "_is_forwarded"  # set on records

# The loggers that are forwarded to this process, and on a worker to its caller, and from which level on.
forwarded: dict[str, int] = {}


def wishes() -> bytes:
    """What a call says: which loggers, and from which level on they are of any use here."""
    asked = dict(forwarded)  # Another thread may ask for more.
    levels = {name: max(level, logging.getLogger(name).getEffectiveLevel()) for name, level in asked.items()}
    known = list(logging.root.manager.loggerDict.items())
    for name, logger in known:  # Those below may have levels of their own.
        if isinstance(logger, logging.Logger) and logger.level and name not in levels:
            above = _nearest(name, asked)
            if above is not None:
                levels[name] = max(asked[above], logger.level)
    return pickle.dumps(levels, PROTOCOL)


def _nearest(name: str, levels: dict[str, int]) -> str | None:
    """The logger that is named, or the nearest one above it, for which there is a level; or None."""
    while name and name not in levels:
        name = name.rpartition(".")[0]
    return name if name in levels else None


def _is_new(record: logging.LogRecord) -> bool:
    """Whether no logger below has forwarded it already."""
    is_new = not hasattr(record, _SEEN)
    setattr(record, _SEEN, True)
    return is_new


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
    process = os.getpid()

    def put(record: logging.LogRecord) -> None:
        nearest = _nearest(record.name, asked)
        is_wanted = nearest is None or record.levelno >= asked[nearest]
        if is_wanted and not is_this_package(record.name) and os.getpid() == process:
            send(_dump(vars(record)))

    caller: Any = types.SimpleNamespace(put_nowait=put)  # That is all a queue has to have for the handler.
    handler = QueueHandler(caller)
    handler.addFilter(_is_new)
    before, levels = dict(forwarded), []
    for name, level in asked.items():
        logger = logging.getLogger(name)
        levels.append((logger, logger.level, level))
        if level < logger.getEffectiveLevel():
            logger.setLevel(level)
        logger.addHandler(handler)  # Also below another: it may not pass its records on.
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
    fields.pop(_SEEN, None)
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
