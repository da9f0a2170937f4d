"""Checks of the rows of a profile and of its tasks: what is wrong with one."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.record.profile import place_in
from distribute_challenge.record.tasks import STATUSES

Row = dict[str, Any]
Number = TypeVar("Number", np.float64, np.uint8)
COUNTS = ("Finished", "Failed", "Waiting", "Tasks")
MOST_TIME = 32e9  # About the year 2984: times beyond it are none.
LIMITS = {"Worker": 65_535, "Count": 2**53}  # of whole numbers from 1 in a tasks file
# A number as files have it. What else Python takes for one (1_000, nan) is none.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
SHOWN = 80  # letters of a wrong field in an error
BLOCK = 50_000  # Lists that are parsed together: more are no faster, and take more memory.


class Before(NamedTuple):
    """The row before, with which a row has to agree."""

    time: float = -math.inf
    finished: float = 0
    workers: int | None = None


def number(text: str | None) -> float:
    """A number; nan if the text is none."""
    return float(text) if text is not None and NUMBER.fullmatch(text) else math.nan


def matrix(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """JSON lists of numbers as the rows of a matrix, null being nan; None if one is something else.

    All have one length, of 1 or more.

    >>> matrix(["[0, 1]", "[0.5, null]"]).tolist()
    [[0.0, 1.0], [0.5, nan]]
    >>> matrix(["[0, 1]", "[0]"]), matrix(['["0"]']), matrix(["[]"])
    (None, None, None)
    """
    return _joined(texts, _block)


def busy_lists(texts: Sequence[str]) -> NDArray[np.uint8] | None:
    """Busy lists as the rows of a matrix, in an eighth of the memory; None if one is something else.

    >>> busy_lists(["[0, 1]", "[1.0, 0]"]).tolist(), busy_lists(["[0, 2]"]), busy_lists(["[0, null]"])
    ([[0, 1], [1, 0]], None, None)
    """
    return _joined(texts, _busy_block)


def check_profile(row: Row, before: Before) -> Before:
    """Check a row of a profile, as `Table.fault` wants it."""
    time = number(row["Timestamp"])
    if not math.isfinite(time):
        raise ValueError(f"{quoted(row['Timestamp'])} is not a time")
    if time < before.time:
        raise ValueError(f"the time goes back, from {before.time} to {time}")
    busy = busy_lists([row["Busy"] or ""])
    if busy is None:
        raise ValueError(f"{quoted(row['Busy'])} is not a busy list of 0 and 1")
    workers = busy.shape[1]
    # As before, or longer where a worker has come.
    may_differ = before.workers is None or (workers > before.workers and place_in(row.get("Event") or ""))
    if workers != before.workers and not may_differ:
        raise ValueError(f"the busy list has {workers} workers, and {before.workers} before")
    counts = [_count(name, row[name]) for name in COUNTS if row.get(name) or name == "Finished"]
    if counts[0] < before.finished:
        raise ValueError(f"Finished falls, from {before.finished:g} to {counts[0]:g}")
    worker = number(row["Worker"]) if row.get("Worker") else 0.0
    if not (worker.is_integer() and 0 <= worker < workers):
        raise ValueError(f"{quoted(row['Worker'])} is not the number of a worker, 0 to {workers - 1}")
    for name in ("CPU", "Memory") if row.get("CPU") and row.get("Memory") else ():
        values = matrix([row[name]])
        if values is None or values.shape[1] != workers:
            raise ValueError(f"{quoted(row[name])} is not a list of one value for each worker ({name})")
    return Before(time, counts[0], workers)


def check_task(row: Row, before: float) -> float:
    """Check a row of a tasks file, as `Table.fault` wants it: `before` is the number of the row before."""
    index = number(row[""])
    if not index > before:
        raise ValueError(f"the row's number, {quoted(row[''])}, is not above the one before")
    queued, started, ended = (number(row[name] or ".") for name in ("Queued", "Started", "Ended"))
    for name, value in (
        ("Started", started),
        ("Ended", ended),
        ("Queued", 0 if not row["Queued"] else queued),
    ):
        if not abs(value) < MOST_TIME:
            raise ValueError(f"{quoted(row[name])} is not a time ({name})")
    if started > ended or queued > started:
        name, other = ("Ended", "Started") if started > ended else ("Started", "Queued")
        raise ValueError(f"{name} is before {other}: {row[name]} and {row[other]}")
    for name, most in LIMITS.items():
        if not (1 <= number(row[name]) <= most and number(row[name]).is_integer()):
            raise ValueError(f"{quoted(row[name])} is not a whole number from 1 to {most} ({name})")
    for name in ("Seconds", "Sent", "Returned", *(("Memory",) if row["Memory"] else ())):
        _count(name, row[name])
    if row["Status"] not in STATUSES:
        raise ValueError(f"{quoted(row['Status'])} is not a status: {', '.join(STATUSES)}")
    return index


def _joined(
    texts: Sequence[str], parse: Callable[[Sequence[str]], NDArray[Number] | None]
) -> NDArray[Number] | None:
    blocks = [parse(texts[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
    known = [block for block in blocks if block is not None]
    if not known or len(known) < len(blocks) or len({block.shape[1] for block in known}) > 1:
        return None
    return np.concatenate(known)


def _busy_block(texts: Sequence[str]) -> NDArray[np.uint8] | None:
    values = _block(texts)
    return None if values is None or not np.isin(values, (0, 1)).all() else values.astype(np.uint8)


def _block(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """One call parses all, several times faster than one for each.

    For that to mean the same, each text has to be one list without brackets inside: no `[1],[2]`, no `[1`.
    """
    joined = ",".join(texts)
    are_single = joined.count("[") == joined.count("]") == len(texts) and "NaN" not in joined
    if not are_single or any(text[:1] != "[" or text[-1:] != "]" for text in texts):
        return None
    try:
        lists = json.loads(f"[{joined}]")
        if not set(map(type, itertools.chain.from_iterable(lists))) <= {int, float, type(None)}:
            return None
        values = np.array(lists, np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    is_table = values.ndim == 2 and len(values) == len(texts) and values.size
    return values if is_table and not np.isinf(values).any() else None


def _count(name: str, text: str | None) -> float:
    value = number(text)
    if not 0 <= value < math.inf:
        kind = "number" if math.isnan(value) else "count"
        raise ValueError(f"{quoted(text)} is not a {kind} ({name})")
    return value


def quoted(text: str | None) -> str:
    """A field in quotes, not all of it if it is long; one that is missing is empty."""
    text = text or ""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
