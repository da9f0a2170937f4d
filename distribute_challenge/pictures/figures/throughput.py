"""How many tasks finish when, and how many wait."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distribute_challenge.pictures.figures.style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    ORANGE,
    Values,
    end_of,
    new_figure,
    show_time,
    tidy,
)
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks
from distribute_challenge.pictures.words import short_time, significant

FEW = 60  # With no more tasks than this, each is drawn.
WINDOWS = 20  # The sliding window is at most this part of the record.
IDLE = "#E8E8E8"
Counter = Callable[[Values], Values]


def throughput(profile: Profile, tasks: Tasks | None = None) -> Figure:
    """Tasks finished per second, the overall figure, and below the clients and the tasks that wait."""
    lines = waiting(profile)
    figure = new_figure(4 + 1.1 * len(lines))
    ratios = [3, *[1] * len(lines)]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    show_throughput(panels[0], profile, tasks)
    for axes, (name, values) in zip(panels[1:], lines.items(), strict=True):
        show_waiting(axes, profile, name, values)
    show_time(panels[0], panels[-1], profile)
    title = f"Throughput: {significant(profile.throughput)} tasks per second"
    panels[0].set_title(title, loc="left", fontsize=11)
    return figure


def waiting(profile: Profile) -> dict[str, Values]:
    """What waits, as far as the profile says: how many in each row."""
    lines = {"clients\nwaiting": profile.waiting, "tasks\nwaiting": profile.tasks}
    return {name: values for name, values in lines.items() if values is not None}


def show_throughput(axes: Axes, profile: Profile, tasks: Tasks | None) -> None:
    """A curve over a sliding window; of few tasks, how many have finished."""
    total = float(profile.finished[-1])
    for number, (began, ended) in enumerate(profile.idle):
        label = "" if number else "nothing asked for"
        axes.axvspan(began, ended, color=IDLE, linewidth=0, zorder=0, label=label)
    if total <= FEW:
        _show_count(axes, profile, tasks)
        highest = total
    else:
        highest = _show_rate(axes, profile, counter(profile, tasks))
    axes.set_ylim(0, highest * 1.3 or 1)
    if total == 0:
        axes.text(0.5, 0.5, "no task finished", transform=axes.transAxes, ha="center", color=GREY)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", ncols=3, framealpha=1, edgecolor="none", fontsize=9)
    tidy(axes)


def _show_rate(axes: Axes, profile: Profile, finished: Counter) -> float:
    """A curve over a sliding window, which lies around each moment; its highest value."""
    end, overall = end_of(profile), profile.throughput
    window = window_s(end)
    grid = np.linspace(0, end, GRID)
    # At both ends there is less of a window to divide by.
    low, high = np.maximum(grid - window / 2, 0), np.minimum(grid + window / 2, end)
    rates = (finished(high) - finished(low)) / (high - low)
    axes.fill_between(grid, rates, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(grid, rates, color=BLUE, linewidth=1.4, clip_on=False, label=f"mean of {short_time(window)}")
    label = f"overall: {significant(overall)}"
    axes.plot(profile.span_s, (overall, overall), "--", color=ORANGE, linewidth=1.6, label=label)
    axes.set_ylabel("tasks per second")
    return max(float(np.max(rates)), overall)


def _show_count(axes: Axes, profile: Profile, tasks: Tasks | None) -> None:
    """How many tasks have finished, a dot for each time; and the overall figure as a slope."""
    end = end_of(profile)
    grown = np.diff(profile.finished, prepend=0) > 0
    times, counts = profile.seconds[grown], profile.finished[grown]
    if tasks is not None:
        done = np.flatnonzero(~tasks.has_failed)
        done = done[np.argsort(tasks.ended[done], kind="stable")]
        times = (tasks.ended[done] - profile.began).clip(0, end)
        counts = np.cumsum(tasks.count[done]).astype(float)
    if counts.size:  # What is not clipped and empty would lie at the figure's corner.
        steps = np.append(np.append(0, times), end), np.append(np.append(0, counts), counts[-1])
        axes.step(*steps, where="post", color=BLUE, linewidth=1.4, clip_on=False)
        axes.plot(times, counts, "o", color=BLUE, markersize=5, clip_on=False, label="tasks finished")
        label = f"overall: {significant(profile.throughput)} per second"
        axes.plot(profile.span_s, (0, profile.finished[-1]), "--", color=ORANGE, linewidth=1.6, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("tasks finished")


def counter(profile: Profile, tasks: Tasks | None) -> Counter:
    """How many tasks had finished by a time.

    A tasks file tells when: what a row stands for finished one after another between its begin and its end.
    Without it, tasks finish when a row of the profile counts them.
    """
    if tasks is None:
        counts = np.concatenate(([0.0], profile.finished))
        return lambda times: counts[np.searchsorted(profile.seconds, times, side="right")]
    done = ~tasks.has_failed
    count = tasks.count[done].astype(float)
    began, ended = tasks.started[done] - profile.began, tasks.ended[done] - profile.began
    # A single one finishes at its end.
    began = np.where(count > 1, began, ended)
    return lambda times: _risen(times, began, ended, count)


def _risen(times: Values, began: Values, ended: Values, count: Values) -> Values:
    """The sum of ramps, from 0 at their begins to their counts at their ends."""
    is_step = ended <= began
    order = np.argsort(ended[is_step])
    sums = np.concatenate(([0.0], np.cumsum(count[is_step][order])))
    total = sums[np.searchsorted(ended[is_step][order], times, side="right")]
    slope = count[~is_step] / (ended - began)[~is_step]
    for bends, sign in ((began[~is_step], 1), (ended[~is_step], -1)):
        order = np.argsort(bends)
        steep = np.concatenate(([0.0], np.cumsum(slope[order])))
        offset = np.concatenate(([0.0], np.cumsum((slope * bends)[order])))
        passed = np.searchsorted(bends[order], times, side="right")
        total = total + sign * (steep[passed] * times - offset[passed])
    return total


def show_waiting(axes: Axes, profile: Profile, name: str, values: Values) -> None:
    """How many wait: of many rows, the most in each step of the grid."""
    times = profile.seconds
    if len(times) > GRID:
        grid = np.linspace(0, end_of(profile), GRID)
        starts = np.unique(np.clip(np.searchsorted(times, grid, side="right") - 1, 0, None))
        times, values = times[starts], np.maximum.reduceat(values, starts)
    color = GREY if name.startswith("clients") else GREEN
    axes.fill_between(times, values, step="post", color=color, linewidth=0)
    axes.set_ylim(0, max(float(np.max(values)), 1) * 1.4)  # The uppermost number stays inside.
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_ylabel(name)
    tidy(axes)


def window_s(end: float) -> float:
    """A sliding window: the largest of 1, 2 or 5 times a power of ten that is at most a 20th of the time."""
    most = end / WINDOWS
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in (5, 2, 1, 0.5) if factor * power <= most * 1.001)
