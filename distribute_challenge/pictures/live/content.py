"""What the charts show of a record: its shapes, marks and numbers as columns that a browser is sent."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.pictures.live.charts import COLOURS, EDGE, LANE, MARKS, OTHERS
from distribute_challenge.pictures.live.data.levels import Columns
from distribute_challenge.pictures.live.data.record import HELD, Record
from distribute_challenge.pictures.live.tables import LONGEST_NAME
from distribute_challenge.pictures.words import plural, short_time
from distribute_challenge.record.tasks import DONE, STATUSES

WHAT = ("number", "failed", "status", "left", "right", "share", "error")  # in words
Data = dict[str, Any]  # as sources take it


def on_axis(record: Record, times: Any) -> Any:
    """Unix seconds, as the axes of time have them: milliseconds of this machine's clock, when it began."""
    return (times + time.localtime(record.began).tm_gmtoff) * 1000.0


def shapes(record: Record, rows: Columns) -> Data:
    """Shapes in lanes."""
    return {
        "left": on_axis(record, rows["left"]),
        "right": on_axis(record, rows["right"]),
        "lane": rows["lane"],
        "function": rows["function"],
        "share": np.float32(0.25) + np.float32(0.75) * rows["share"],
        "name": _names(record, rows),
        "client": np.append(np.array(record.clients.names, object), "")[rows["client"]],
        "what": [_what(*row) for row in zip(*(rows[name].tolist() for name in WHAT), strict=True)],
    }


def edges(record: Record, rows: Columns) -> Data:
    """The lower edges of shapes in which something failed."""
    has_failed = rows["failed"] > 0
    lane = rows["lane"][has_failed] + np.float32((LANE - EDGE) / 2)
    return {
        "left": on_axis(record, rows["left"][has_failed]),
        "right": on_axis(record, rows["right"][has_failed]),
        "lane": lane,
    }


def failures(record: Record, rows: Columns) -> Data:
    """A mark at the end of each task that is a shape of its own, and failed."""
    is_shown = (rows["failed"] > 0) & (rows["client"] >= 0)
    rows = {name: column[is_shown] for name, column in rows.items()}
    statuses = [STATUSES[status] for status in rows["status"].tolist()]
    return {
        "right": on_axis(record, rows["right"]),
        "lane": rows["lane"].astype(np.float64),
        "marker": [MARKS[status][0] for status in statuses],
        "color": [MARKS[status][1] for status in statuses],
        "text": [
            error or f"{number} {status}"
            for error, number, status in zip(
                rows["error"].tolist(), rows["failed"].tolist(), statuses, strict=True
            )
        ],
    }


def losses(record: Record, rows: Columns) -> Data:
    """A mark where a worker was lost or replaced: above, and below, those of what ran there."""
    names = ["worker lost" if is_lost else "worker replaced" for is_lost in rows["is_lost"].tolist()]
    return {
        "right": on_axis(record, rows["right"]),
        "lane": rows["lane"] + np.where(rows["is_lost"], -0.28, 0.28),
        "marker": [MARKS[name][0] for name in names],
        "color": [MARKS[name][1] for name in names],
        "text": names,
    }


def running(record: Record) -> Data:
    """What runs now: a shape from its beginning on."""
    now = record.now
    found = [(lane, call) for lane, calls in enumerate(record.workers.running) for call in calls]
    names = tuple(call.function for _, call in found)
    return {
        "left": on_axis(record, np.array([call.since for _, call in found])),
        "right": on_axis(record, np.full(len(found), now)),
        "lane": [lane for lane, _ in found],
        "function": record.functions.numbers(names),
        "share": np.full(len(found), 0.6, np.float32),
        "name": [name[:LONGEST_NAME] for name in names],
        "client": [call.client for _, call in found],
        "what": [f"has run for {short_time(max(now - call.since, 0))}" for _, call in found],
    }


def series(record: Record, number: int, begin: float) -> Data:
    """What happened in each step of a window, from a time on."""
    when = max(begin, record.began), record.now, record.began
    columns = record.series[number].columns(*when, is_over=not record.is_written)
    found = {name: column.astype(np.float32) for name, column in columns.items() if name != "time"}
    for name in ("cpu_percent", "memory_bytes"):  # Before the first sample.
        found[name] = np.nan_to_num(found[name])
    found["memory_mib"] = found.pop("memory_bytes") / np.float32(2**20)
    return {"time": on_axis(record, columns["time"]), **found}


class Palette:
    """The colour of each function: those with most time have one of their own, and keep it while they do."""

    def __init__(self) -> None:
        self._of: dict[int, str] = {}

    def colours(self, record: Record) -> list[str]:
        """The colour of each function, by its number."""
        top = record.figures.by_time(len(COLOURS))
        if not record.has_tasks:
            top = record.functions.numbers((HELD,)).tolist()
        kept = {number: color for number, color in self._of.items() if number in top}
        free = [color for color in COLOURS if color not in kept.values()]
        self._of = kept | dict(zip((number for number in top if number not in kept), free, strict=False))
        return [self._of.get(number, OTHERS) for number in range(len(record.functions.names))]


def _names(record: Record, rows: Columns) -> NDArray[np.object_]:
    names = np.array([name[:LONGEST_NAME] for name in record.functions.names], object)[rows["function"]]
    for row in np.flatnonzero(rows["others"]).tolist():
        names[row] += f" and {plural(int(rows['others'][row]), 'other')}"
    return names


def _what(number: int, failed: int, status: int, left: float, right: float, share: float, error: str) -> str:
    """What a shape stands for, in words."""
    if share < 1:
        how = f"{plural(number, 'function')}, {share:.0%} of {short_time(right - left)}"
        return how + (f", {failed} failed" if failed else "")
    name = STATUSES[status]
    how = short_time(right - left) if name == DONE else f"{name} after {short_time(right - left)}"
    many = f"{plural(number, 'function')} in " if number > 1 else ""
    return f"{many}{how}{': ' + error if error else ''}"
