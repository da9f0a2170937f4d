"""Figures of a profile. Each function takes a `Profile` and returns a matplotlib figure.

Colours are those of Okabe and Ito, and the maps `Blues` and `cividis`: all safe for the colour-blind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from distribute_challenge.pictures import losses
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.words import plural, short_time, significant

Values = NDArray[np.float64]
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LINES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#000000", "#B8A800")
WIDTH_IN = 9.0
MOST_SHAPES = 20_000  # With more intervals than this, lanes are shaded by share of time instead.
BINS = 1500
GRID = 1000
TASKS_IN_WINDOW = 6
UNKNOWN_LANE_IN = 0.16


def busy(profile: Profile, server_port: int | None) -> Figure:
    """One lane for each worker, filled while it is busy; its share of time busy; losses and replacements."""
    workers = profile.workers
    lane_in = 0.42 if workers <= 8 else 0.3 if workers <= 16 else 0.155
    marks = losses.marks(profile)
    # Marks of which is not known to which worker they belong have a place above the lanes.
    top = -0.5 - (UNKNOWN_LANE_IN / lane_in if any(mark.lane is None for mark in marks) else 0)
    figure = Figure(figsize=(WIDTH_IN, 1.5 + lane_in * (workers - 0.5 - top)), layout="constrained")
    axes = figure.add_subplot()
    end = _end(profile)
    shade = _show_lanes(profile, axes, end)
    for border in range(workers + 1):
        axes.axhline(border - 0.5, color="#DDDDDD", linewidth=0.5, zorder=0)
    _show_losses(axes, marks, above=(top - 0.5) / 2)
    size = 9 if workers <= 16 else 6
    names = [f"worker {n + 1}" + (f"  :{server_port + 1 + n}" if server_port else "") for n in range(workers)]
    axes.set_yticks(range(workers), names, fontsize=size)
    axes.set_ylim(workers - 0.5, top)
    axes.set_xlim(0, end)
    axes.set_xlabel("time (s)")
    shares = _share(profile)
    right_axis = axes.twinx()
    right_axis.set_ylim(axes.get_ylim())
    right_axis.set_yticks(range(workers), [f"{share:.0%}" for share in shares], fontsize=size)
    right_axis.set_ylabel("share of time busy")
    for side in (axes, right_axis):
        side.tick_params(axis="y", length=0)
    title = f"What {plural(workers, 'worker')} did: filled while busy{shade}"
    axes.set_title(title, loc="left", fontsize=11, pad=22 if marks else 6)  # The legend is below it.
    return figure


def throughput(profile: Profile) -> Figure:
    """Tasks finished per second over a sliding window, the overall figure, and clients waiting below."""
    ratios = [1] if profile.waiting is None else [3, 1]
    figure = Figure(figsize=(WIDTH_IN, 2 + 1.6 * len(ratios)), layout="constrained")
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    axes: Axes = panels[0]
    end = _end(profile)
    overall = profile.throughput
    window = window_s(end, overall)
    grid = np.linspace(0, end, GRID)
    done = np.concatenate(([0.0], profile.finished))
    counted = done[np.searchsorted(profile.seconds, grid, side="right")]
    counted_before = done[np.searchsorted(profile.seconds, grid - window, side="right")]
    # Before a whole window has passed, there is less time to divide by.
    rates = (counted - counted_before) / np.clip(grid, window / 4, window)
    axes.fill_between(grid, rates, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(grid, rates, color=BLUE, linewidth=1.4, label=f"over the last {short_time(window)}")
    name = f"overall: {significant(overall)}"
    axes.plot(profile.span_s, (overall, overall), "--", color=ORANGE, linewidth=1.6, label=name)
    axes.set_ylim(0, max(float(np.max(rates)), overall) * 1.25 or 1)
    axes.set_ylabel(f"tasks per second\n(sliding window of {short_time(window)})")
    axes.legend(loc="upper right", ncols=2, frameon=False)
    axes.set_title(f"Throughput: {significant(overall)} tasks per second", loc="left", fontsize=11)
    if float(profile.finished[-1]) == 0:
        axes.text(0.5, 0.5, "no task finished", transform=axes.transAxes, ha="center", color=GREY)
    if profile.waiting is not None:
        _show_waiting(panels[1], profile.seconds, profile.waiting, grid)
    panels[-1].set_xlabel("time (s)")
    panels[-1].set_xlim(0, end)
    tidy(*panels)
    return figure


def resources(profile: Profile) -> Figure | None:
    """CPU and memory of each worker with its child processes; None if the profile has no sample."""
    if profile.cpu_percent is None or profile.memory_bytes is None:
        return None
    few = profile.workers <= len(LINES)
    figure = Figure(figsize=(WIDTH_IN, 5.6 if few else 4 + 0.09 * profile.workers), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    names = ("CPU (% of one core)", "memory (MiB)")
    times, series = _thin(profile.sampled, (profile.cpu_percent, profile.memory_bytes / 2**20))
    for axes, values, name in zip(panels, series, names, strict=True):
        if few:
            _show_lines(axes, times, values)
            axes.set_ylabel(name)
        else:
            # A sample is about the time before it. The only one, at the very start, is about all there is.
            edges = np.append(0.0, times if times[-1] > 0 else _end(profile))
            lanes = np.arange(profile.workers + 1) + 0.5
            mesh = axes.pcolormesh(edges, lanes, values.T, cmap="cividis", vmin=0, rasterized=True)
            axes.set_ylabel("worker")
            axes.set_ylim(profile.workers + 0.5, 0.5)
            figure.colorbar(mesh, ax=axes, label=name)
    if few:
        panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    panels[1].set_xlim(0, _end(profile))
    panels[1].set_xlabel("time (s)")
    panels[0].set_title("What each worker took, its child processes included", loc="left", fontsize=11)
    return figure


def _show_lanes(profile: Profile, axes: Axes, end: float) -> str:
    """Fill the lanes; what the title says about that, if there is more to it."""
    changes = np.diff(profile.busy.astype(np.int8), axis=0, prepend=0, append=0)
    begins, ends = np.nonzero(changes.T > 0), np.nonzero(changes.T < 0)
    edges = np.append(profile.seconds, profile.seconds[-1])
    if len(begins[0]) <= MOST_SHAPES:
        left, right, lane = edges[begins[1]], edges[ends[1]], begins[0]
        low, high = lane - 0.38, lane + 0.38
        corners = [(left, low), (right, low), (right, high), (left, high)]
        shapes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
        axes.add_collection(PolyCollection(list(shapes), facecolors=BLUE, edgecolors="none"))
        return ""
    shares = _busy_share_per_bin(profile, BINS)
    extent = (0.0, end, profile.workers - 0.5, -0.5)
    axes.imshow(shares, aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    return f"; the darker, the more of each {short_time(end / BINS)}"


def _show_losses(axes: Axes, marks: list[losses.Mark], above: float) -> None:
    """A cross where a worker was lost, a ring where its successor answered."""
    styles: dict[str, dict[str, Any]] = {
        "lost": {"marker": "x", "color": RED, "zorder": 4},
        "replaced": {
            "marker": "o",
            "facecolors": "none",
            "edgecolors": ORANGE,
            "linewidths": 1.8,
            "zorder": 3,
        },
    }
    for event, style in styles.items():
        shown = [mark for mark in marks if mark.event == event]
        if shown:
            unknown = any(mark.lane is None for mark in shown)
            label = f"{event} ({len(shown)}{'; above: worker unknown' if unknown else ''})"
            x = [mark.time_s for mark in shown]
            y = [above if mark.lane is None else mark.lane for mark in shown]
            axes.scatter(x, y, s=32, label=label, clip_on=False, **style)
    if marks:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8)


def _show_waiting(axes: Axes, times: Values, waiting: Values, grid: NDArray[np.floating[Any]]) -> None:
    """The clients in line: of many rows, the most in each step of the grid."""
    if len(times) > GRID:
        starts = np.unique(np.clip(np.searchsorted(times, grid, side="right") - 1, 0, None))
        times, waiting = times[starts], np.maximum.reduceat(waiting, starts)
    axes.fill_between(times, waiting, step="post", color=GREY, linewidth=0)
    axes.set_ylim(0, max(float(np.max(waiting)), 1) * 1.4)  # The uppermost number stays inside.
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_ylabel("clients\nwaiting")


def _show_lines(axes: Axes, times: Values, values: Values) -> None:
    """A line for each worker. Where they lie on each other all are seen: later ones are thinner, on top."""
    workers = values.shape[1]
    dots = ".-" if len(times) < 40 else "-"
    for worker in range(workers):
        width = 1.2 + min(1, 5 / workers) * (workers - 1 - worker)
        style: dict[str, Any] = {"color": LINES[worker], "linewidth": width, "markersize": width + 4}
        axes.plot(times, values[:, worker], dots, label=f"worker {worker + 1}", **style)
    axes.set_ylim(0, max(float(np.nanmax(values, initial=0)) * 1.1, 1))
    tidy(axes)


def _end(profile: Profile) -> float:
    """Where the time axis ends: a second, if no time passes in the profile."""
    return float(profile.seconds[-1]) or 1.0


def window_s(end: float, throughput: float) -> float:
    """A sliding window: a 20th of the time, or more for several tasks to end in it, but at most half."""
    window = _nice(max(end / 20, TASKS_IN_WINDOW / throughput if throughput else 0))
    while window > end / 2:
        window = _nice(window / 2.5)  # The one before.
    return window


def _share(profile: Profile) -> Values:
    """The share of time that each worker was busy."""
    if not profile.seconds[-1]:
        return np.array(profile.busy[-1], np.float64)
    return _busy_share_per_bin(profile, 1)[:, 0]


def _busy_share_per_bin(profile: Profile, bins: int) -> Values:
    """How much of each bin of time each worker was busy: an array (workers, bins)."""
    edges = np.linspace(0, float(profile.seconds[-1]), bins + 1)
    lengths = np.diff(profile.seconds, append=profile.seconds[-1])
    shares = np.empty((profile.workers, bins))
    for worker in range(profile.workers):
        spent = np.concatenate(([0.0], np.cumsum(lengths[:-1] * profile.busy[:-1, worker])))
        shares[worker] = np.diff(np.interp(edges, profile.seconds, spent)) / np.diff(edges)
    return shares


def _thin(times: Values, series: Iterable[Values]) -> tuple[Values, list[Values]]:
    """At most `GRID` samples, each the mean of some that follow each other, at the time of the last."""
    step = math.ceil(len(times) / GRID)
    starts = np.arange(0, len(times), step)
    sizes = np.diff(np.append(starts, len(times)))[:, None]
    means = [np.add.reduceat(values, starts, axis=0) / sizes for values in series]
    return times[starts + sizes[:, 0] - 1], means


def _nice(seconds: float) -> float:
    """The next of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(seconds))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= seconds * 0.999)


def tidy(*panels: Axes) -> None:
    """Give panels the look of all our figures."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
