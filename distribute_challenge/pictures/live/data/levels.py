"""Tasks as shapes in lanes, no finer than somebody looks at them.

A level is a window of time with a resolution that fits it. What is longer than that is a shape of its own;
of what is shorter, each stretch of a lane is one shape, with its share of time. So what a level keeps, and
what a browser is sent of it, is bounded, however many tasks there are.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.record.tasks import DONE, FAILED, STATUSES

Values = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
# Shapes come in layers, by their length: what runs within others, in place, is shorter, and drawn above them.
LAYERS = 4
# Tasks that ended so may be drawn together. The others took a worker along, are rare, and each has its mark;
# of more than so many that come at a time, only the longer ones.
RETURNED = (STATUSES.index(DONE), STATUSES.index(FAILED))
MOST_ALONE = 2000
# Rows come to be known this late, at most, unless the server was stopped.
LATE_S = 1.0


class Batch(NamedTuple):
    """Tasks that have ended: arrays with an element for each row. Times are Unix seconds."""

    lane: NDArray[np.int32]
    function: NDArray[np.int32]  # a place in a list of names
    client: NDArray[np.int32]  # a place in a list of names
    started: Values
    ended: Values
    number: NDArray[np.int64]  # of functions that the row stands for
    status: NDArray[np.int8]  # a place in `record.tasks.STATUSES`
    error: NDArray[np.object_]

    def where(self, rows: NDArray[Any]) -> Batch:
        """Some of the rows."""
        return Batch(*(column[rows] for column in self))

    def followed_by(self, other: Batch) -> Batch:
        """The rows of both."""
        return Batch(*(np.concatenate([one, more]) for one, more in zip(self, other, strict=True)))


class Stream:
    """Columns of values, to which rows are added at the end. Old ones are forgotten."""

    def __init__(self) -> None:
        self.added = 0  # how many rows, in all
        self._parts: deque[tuple[int, Columns]] = deque()  # what was added at a time, and how many before it

    def add(self, rows: Columns) -> None:
        """Add rows: with a column `right`, the time at which each ends."""
        size = len(rows["right"])
        if size:
            self._parts.append((self.added, rows))
            self.added += size

    def since(self, seen: int) -> Columns | None:
        """The rows after the first `seen` that were added, as far as they are kept; None if there is none."""
        parts = [
            {name: column[max(seen - before, 0) :] for name, column in rows.items()}
            for before, rows in self._parts
            if before + len(rows["right"]) > seen
        ]
        if not parts:
            return None
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def forget(self, time: float) -> None:
        """Forget what ended before a time, as far as all that was added with it did."""
        while self._parts and self._parts[0][1]["right"].max() < time:
            self._parts.popleft()


class Level:
    """The shapes of a window of time that ends now. `width_s` is the length of a stretch, more than 0."""

    def __init__(self, window_s: float, width_s: float) -> None:
        self.window_s = window_s
        self.width_s = width_s
        self.is_exact = True  # each row has a shape of its own
        self.layers = [Stream() for _ in range(LAYERS)]
        self.short: Batch | None = None  # those in stretches that are not over

    def add(self, tasks: Batch, now: float, *, is_over: bool = False) -> None:
        """Take in tasks, and what became of earlier ones. Nothing comes after what `is_over`."""
        begin = now - self.window_s
        for layer in self.layers:
            layer.forget(begin)
        tasks = tasks.where(tasks.ended >= begin)
        lengths = tasks.ended - tasks.started
        is_long = lengths >= self.width_s
        is_cut_off = ~np.isin(tasks.status, RETURNED)
        if np.count_nonzero(is_cut_off) <= MOST_ALONE:
            is_long |= is_cut_off
        self._add_long(tasks.where(is_long), lengths[is_long])
        short = tasks.where(~is_long)
        if self.short is not None:
            short = self.short.followed_by(short)
        # A task that is shorter than a stretch is drawn in the one that has its middle.
        stretch = np.floor((short.started + short.ended) / 2 / self.width_s)
        is_whole = ((stretch + 1) * self.width_s <= now - LATE_S) | is_over
        self.short = short.where(~is_whole)
        if is_whole.any():
            shapes = _stretches(short.where(is_whole), stretch[is_whole], self.width_s)
            self.is_exact = self.is_exact and len(shapes["left"]) == np.count_nonzero(is_whole)
            self.layers[-1].add(shapes)

    def _add_long(self, tasks: Batch, lengths: Values) -> None:
        # Each layer has what is a fourth as long as what is in the one below.
        place = np.clip(np.log2(self.window_s / np.maximum(lengths, 1e-9)) // 2 - 1, 0, LAYERS - 1)
        for number, layer in enumerate(self.layers):
            rows = np.flatnonzero(place == number)
            if rows.size:
                layer.add(_shapes(tasks.where(rows[np.argsort(-lengths[rows], kind="stable")])))


def _shapes(tasks: Batch) -> Columns:
    """A shape for each row."""
    shapes = tasks._asdict()
    left, right = shapes.pop("started"), shapes.pop("ended")
    more = {
        "failed": np.where(tasks.status > 0, tasks.number, 0),
        "share": np.ones(len(left), np.float32),
        "others": np.zeros(len(left), np.int32),  # how many more functions ran there
    }
    return {"left": left, "right": right, **shapes, **more}


def _stretches(tasks: Batch, stretch: Values, width_s: float) -> Columns:
    """A shape for each stretch of a lane in which tasks ran, with the function that took most of it.

    Where only one row is, the shape is that row's.
    """
    first = stretch.min()
    key = (stretch - first).astype(np.int64) * (int(tasks.lane.max()) + 1) + tasks.lane
    # The rows of a stretch follow each other, those of a function within that.
    order = np.lexsort((tasks.function, key))
    tasks, key, stretch = tasks.where(order), key[order], stretch[order]
    spent = tasks.ended - tasks.started
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    parts = np.flatnonzero((np.diff(key, prepend=-1) != 0) | (np.diff(tasks.function, prepend=-1) != 0))
    of_part = np.searchsorted(starts, parts, side="right") - 1  # which stretch each function is in
    part_spent = np.add.reduceat(spent, parts)
    best = np.lexsort((part_spent, of_part))[np.append(np.flatnonzero(np.diff(of_part)), len(parts) - 1)]
    size = np.diff(np.append(starts, len(key)))
    worst = np.maximum.reduceat(tasks.status, starts)
    shapes = _shapes(tasks.where(starts))
    is_one = size == 1
    shapes["left"] = np.where(is_one, shapes["left"], stretch[starts] * width_s)
    # What is there at all is seen.
    end = np.maximum(shapes["right"], shapes["left"] + width_s / 2)
    shapes["right"] = np.where(is_one, end, (stretch[starts] + 1) * width_s)
    shapes["function"] = tasks.function[parts[best]]
    shapes["number"] = np.add.reduceat(tasks.number, starts)
    shapes["failed"] = np.add.reduceat(np.where(tasks.status > 0, tasks.number, 0), starts)
    shapes["client"] = np.where(is_one, shapes["client"], -1)  # several
    shapes["status"] = worst
    share = np.minimum(np.add.reduceat(spent, starts) / width_s, 1)
    shapes["share"] = np.where(is_one, 1, share).astype(np.float32)
    shapes["others"] = (np.bincount(of_part) - 1).astype(np.int32)
    shapes["error"] = np.where(is_one, shapes["error"], "")
    return shapes
