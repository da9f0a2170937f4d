"""Blocks in lanes: what is long enough is drawn, what is not is shaded by its share of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from distribute_challenge.pictures.figures.style import BLUE, GREEN, INDIGO, OLIVE, ORANGE, PINK, SKY, Values
from distribute_challenge.pictures.lanes import depths
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks, summarize

PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, OLIVE, INDIGO)
OTHERS = "#8C8C8C"
HALF = 0.375  # of the height of a block: a lane is 1 high
INSIDE = 0.62  # of the height of the block around it
BINS = 1500  # on the time axis: one is about a dot
MOST_SHAPES = 2000  # With fewer blocks all are drawn.
ROWS = 8  # of an image for each lane
FAINTEST = 0.25  # of what is there at all


class Blocks(NamedTuple):
    """Blocks: arrays with an element for each. Times in seconds since the profile began."""

    lane: NDArray[np.int32]
    left: Values
    right: Values
    half: Values  # of its height
    color: NDArray[np.int8]  # a place in the list of colours


class Colours(NamedTuple):
    """Which colour stands for which function."""

    of_function: NDArray[np.int8]  # for each function a place in `PALETTE`; behind its end for all others
    names: list[str]  # in the order of the colours
    others: int  # how many more functions there are


def colours(tasks: Tasks) -> Colours:
    """The functions with most time have colours of their own."""
    names = [summary.function for summary in summarize(tasks)]
    place = {name: number for number, name in enumerate(names[: len(PALETTE)])}
    codes = np.array([place.get(name, len(PALETTE)) for name in tasks.functions], np.int8)
    # One that is alone among the others is told by its name.
    shown = names[: len(PALETTE) + (len(names) == len(PALETTE) + 1)]
    return Colours(codes, shown, len(names) - len(shown))


def of_tasks(profile: Profile, tasks: Tasks, lane: NDArray[np.int32], colours: Colours) -> Blocks:
    """A block for each row of a tasks file. What ran within another task is within its block."""
    half = HALF * INSIDE ** depths(lane, tasks).astype(float)
    began = profile.began
    return Blocks(lane, tasks.started - began, tasks.ended - began, half, colours.of_function[tasks.function])


def of_leases(profile: Profile) -> Blocks:
    """A block for each lease, and each time that a worker was being replaced: while it is busy.

    A worker that is handed over without a pause has two, if the profile says so.
    """
    seconds, about = profile.seconds, profile.about
    acquired = profile.rows_of("acquire")
    acquired = acquired[acquired > 0]
    lanes, lefts, rights = [], [], []
    for worker in range(profile.workers):
        busy = profile.busy[:, worker].astype(bool)
        is_begin = busy & ~np.append(False, busy[:-1])
        if about is not None:
            is_begin[acquired[about[acquired] == worker]] = True
            is_begin &= busy
        # A block ends where the worker is free, where the next one begins, or with the profile.
        is_end = np.append(False, busy[:-1]) & (~busy | is_begin)
        begins, ends = np.flatnonzero(is_begin), np.flatnonzero(is_end)
        lefts.append(seconds[begins])
        rights.append(np.append(seconds[ends], [seconds[-1]] * (len(begins) - len(ends))))
        lanes.append(np.full(len(begins), worker, np.int32))
    lane = np.concatenate(lanes)
    half, color = np.full(len(lane), HALF), np.zeros(len(lane), np.int8)
    return Blocks(lane, np.concatenate(lefts), np.concatenate(rights), half, color)


def show(axes: Axes, blocks: Blocks, palette: tuple[str, ...], workers: int, end: float) -> bool:
    """Draw blocks, up to a time; whether some were too short and are shaded."""
    left, right = blocks.left.clip(0, end), blocks.right.clip(0, end)
    is_within = (blocks.right >= 0) & (blocks.left <= end)
    dot = end / BINS
    is_long = is_within & ((right - left >= 2 * dot) | (np.count_nonzero(is_within) <= MOST_SHAPES))
    shaded = is_within & ~is_long
    if shaded.any():
        image = _shade(blocks, left, right, shaded, palette, workers, end)
        extent = (0.0, end, workers - 0.5, -0.5)
        axes.imshow(image, aspect="auto", extent=extent, interpolation="none", zorder=1.5)
    lengths = right[is_long] - left[is_long]
    # A thin gap before the next one; but what is there at all is seen.
    x1 = left[is_long] + np.maximum(lengths - np.minimum(1.2 * dot, lengths / 3), dot)
    low, high = blocks.lane[is_long] - blocks.half[is_long], blocks.lane[is_long] + blocks.half[is_long]
    corners = ((left[is_long], low), (x1, low), (x1, high), (left[is_long], high))
    shapes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
    order = np.argsort(-blocks.half[is_long], kind="stable")
    colors = np.array([to_rgb(color) for color in palette])[blocks.color[is_long]]
    axes.add_collection(
        PolyCollection(list(shapes[order]), facecolors=colors[order], edgecolors="none", zorder=2)
    )
    return bool(shaded.any())


def _shade(
    blocks: Blocks,
    left: Values,
    right: Values,
    which: NDArray[np.bool_],
    palette: tuple[str, ...],
    workers: int,
    end: float,
) -> NDArray[np.float32]:
    """An image of blocks that are no longer than two dots: their colours, mixed by their time."""
    # What runs within others does not count twice.
    which = which & (blocks.half == HALF)
    left, right, lane, color = left[which], right[which], blocks.lane[which], blocks.color[which]
    size = (workers, BINS, len(palette))
    times = np.zeros(size)
    dot = end / BINS
    first = np.minimum((left / dot).astype(int), BINS - 1)
    for step in range(3):
        place = np.minimum(first + step, BINS - 1)
        inside = np.minimum(right, (first + step + 1) * dot) - np.maximum(left, (first + step) * dot)
        # A task of no time is not nothing.
        inside = np.maximum(inside, dot * 1e-6 if step == 0 else 0)
        index = np.ravel_multi_index((lane, place, color), size)
        times += np.bincount(index, inside, times.size).reshape(size)
    total = times.sum(axis=2)
    mixed = times @ np.array([to_rgb(name) for name in palette]) / np.maximum(total, 1e-300)[:, :, None]
    alpha = np.where(total > 0, FAINTEST + (1 - FAINTEST) * np.minimum(total / dot, 1), 0)
    image = np.zeros((workers, ROWS, BINS, 4), np.float32)
    image[:, 1:-1] = np.concatenate((mixed, alpha[:, :, None]), axis=2)[:, None]
    return image.reshape(workers * ROWS, BINS, 4)
