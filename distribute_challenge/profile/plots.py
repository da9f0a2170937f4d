"""Figures of a profile. Each function takes arrays and returns a matplotlib figure.

Colours are those of Okabe and Ito, and the maps `Blues` and `cividis`: all safe for the colour-blind.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from distribute_challenge.profile.reading import Profile
from distribute_challenge.profile.words import plural, short_time, significant

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LINES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#000000", "#B8A800")
WIDTH_IN = 9.0
MOST_SHAPES = 20_000  # With more intervals than this, lanes are shaded by share of time instead.
BINS = 1500
GRID = 1000


def busy(profile: Profile, server_port: int | None) -> Figure:
    """One lane for each worker, filled while it is busy; its share of time busy; losses and replacements."""
    workers = profile.workers
    lane_in = 0.42 if workers <= 8 else 0.3 if workers <= 16 else 0.155
    figure = Figure(figsize=(WIDTH_IN, 1.5 + lane_in * workers), layout="constrained")
    axes = figure.add_subplot()
    end = max(float(profile.seconds[-1]), 1e-6)
    changes = np.diff(profile.busy.astype(np.int8), axis=0, prepend=0, append=0)
    begins, ends = np.nonzero(changes.T > 0), np.nonzero(changes.T < 0)
    edges = np.append(profile.seconds, profile.seconds[-1])
    if len(begins[0]) <= MOST_SHAPES:
        left, right, lane = edges[begins[1]], edges[ends[1]], begins[0]
        low, high = lane - 0.38, lane + 0.38
        corners = [(left, low), (right, low), (right, high), (left, high)]
        shapes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
        axes.add_collection(PolyCollection(list(shapes), facecolors=BLUE, edgecolors="none"))
        shade = ""
    else:
        shares = _busy_share_per_bin(profile, BINS)
        extent = (0.0, end, workers - 0.5, -0.5)
        axes.imshow(shares, aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1, interpolation="none")
        shade = f"; the darker, the more of each {short_time(end / BINS)}"
    for border in range(workers + 1):
        axes.axhline(border - 0.5, color="#DDDDDD", linewidth=0.5, zorder=0)
    _mark_losses(profile, axes)
    size = 9 if workers <= 16 else 6
    names = [f"worker {n + 1}" + (f"  :{server_port + 1 + n}" if server_port else "") for n in range(workers)]
    axes.set_yticks(range(workers), names, fontsize=size)
    axes.set_ylim(workers - 0.5, -0.5)
    axes.set_xlim(0, end)
    axes.set_xlabel("time (s)")
    shares = _share(profile)
    right_axis = axes.twinx()
    right_axis.set_ylim(axes.get_ylim())
    right_axis.set_yticks(range(workers), [f"{share:.0%}" for share in shares], fontsize=size)
    right_axis.set_ylabel("share of time busy")
    for side in (axes, right_axis):
        side.tick_params(axis="y", length=0)
    axes.set_title(f"What {plural(workers, 'worker')} did: filled while busy{shade}", loc="left", fontsize=11)
    return figure


def throughput(profile: Profile) -> Figure:
    """Tasks finished per second over a sliding window, the overall figure, and clients waiting below."""
    has_waiting = profile.waiting is not None
    figure = Figure(figsize=(WIDTH_IN, 5.2 if has_waiting else 3.6), layout="constrained")
    ratios = [3, 1] if has_waiting else [1]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    axes: Axes = panels[0]
    end = max(float(profile.seconds[-1]), 1e-6)
    window = _nice(end / 20)
    grid = np.linspace(0, end, GRID)
    done = np.concatenate(([0.0], profile.finished))
    counted = done[np.searchsorted(profile.seconds, grid, side="right")]
    counted_before = done[np.searchsorted(profile.seconds, grid - window, side="right")]
    # Before a whole window has passed, there is less time to divide by.
    rates = (counted - counted_before) / np.clip(grid, window / 4, window)
    axes.fill_between(grid, rates, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(grid, rates, color=BLUE, linewidth=1.4, label=f"over the last {short_time(window)}")
    overall = profile.throughput
    axes.axhline(
        overall, color=ORANGE, linewidth=1.6, linestyle="--", label=f"overall: {significant(overall)}"
    )
    axes.set_ylim(0, max(float(rates.max()), overall, 1e-3) * 1.25)
    axes.set_ylabel(f"tasks per second\n(sliding window of {short_time(window)})")
    axes.legend(loc="upper right", ncols=2, frameon=False)
    axes.set_title(f"Throughput: {significant(overall)} tasks per second", loc="left", fontsize=11)
    if float(profile.finished[-1]) == 0:
        axes.text(0.5, 0.5, "no task finished", transform=axes.transAxes, ha="center", color=GREY)
    if profile.waiting is not None:
        lower: Axes = panels[1]
        position = np.clip(np.searchsorted(profile.seconds, grid, side="right") - 1, 0, None)
        waiting = (
            np.maximum.reduceat(profile.waiting, np.unique(position)) if len(profile.seconds) > GRID else None
        )
        if waiting is None:
            lower.fill_between(profile.seconds, profile.waiting, step="post", color=GREY, linewidth=0)
        else:
            lower.fill_between(
                profile.seconds[np.unique(position)], waiting, step="post", color=GREY, linewidth=0
            )
        lower.set_ylim(0, max(float(profile.waiting.max()), 1) * 1.4)  # The uppermost number stays inside.
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        lower.set_ylabel("clients\nwaiting")
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
    mebi = profile.memory_bytes / 2**20
    parts = ((panels[0], profile.cpu_percent, "CPU (% of one core)"), (panels[1], mebi, "memory (MiB)"))
    times, (cpu, memory) = _thin(profile.sampled, (profile.cpu_percent, mebi))
    dots = ".-" if len(times) < 40 else "-"
    for (axes, _, name), values in zip(parts, (cpu, memory), strict=True):
        if few:
            for worker in range(profile.workers):
                axes.plot(times, values[:, worker], dots, color=LINES[worker], label=f"worker {worker + 1}")
            axes.set_ylabel(name)
            axes.set_ylim(0, max(float(np.nanmax(values, initial=0)) * 1.1, 1))
            tidy(axes)
        else:
            edges = np.append(
                times, times[-1] + max(times[-1] - times[-2], 1e-6) if len(times) > 1 else times[-1] + 1
            )
            lanes = np.arange(profile.workers + 1) + 0.5
            mesh = axes.pcolormesh(edges, lanes, values.T, cmap="cividis", vmin=0, rasterized=True)
            axes.set_ylabel("worker")
            axes.set_ylim(profile.workers + 0.5, 0.5)
            figure.colorbar(mesh, ax=axes, label=name)
    if few:
        panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    panels[1].set_xlabel("time (s)")
    panels[0].set_title("What each worker took, its child processes included", loc="left", fontsize=11)
    return figure


def _share(profile: Profile) -> NDArray[np.float64]:
    """The share of time that each worker was busy."""
    lengths = np.diff(profile.seconds)
    total = lengths.sum()
    if not total:
        return np.array(profile.busy[-1], np.float64)
    shares: NDArray[np.float64] = lengths @ profile.busy[:-1] / total
    return shares


def _busy_share_per_bin(profile: Profile, bins: int) -> NDArray[np.float64]:
    """How much of each bin of time each worker was busy: an array (workers, bins)."""
    edges = np.linspace(0, float(profile.seconds[-1]), bins + 1)
    lengths = np.diff(profile.seconds, append=profile.seconds[-1])
    shares = np.empty((profile.workers, bins))
    for worker in range(profile.workers):
        spent = np.concatenate(([0.0], np.cumsum(lengths[:-1] * profile.busy[:-1, worker])))
        shares[worker] = np.diff(np.interp(edges, profile.seconds, spent)) / np.diff(edges)
    return shares


def _mark_losses(profile: Profile, axes: Axes) -> None:
    """A cross where a worker was lost, a ring where its successor answered.

    A row names no worker: the bit that changed tells which it was. A worker that was lost under its lease
    was busy before and after, and is the one that is replaced next. Where that is open too (it was handed
    over at once), the mark is at the top.
    """
    marks: dict[str, list[tuple[float, float]]] = {"lost": [], "replaced": []}
    owed: list[float] = []  # when workers were lost of which is not known yet which they are
    known: set[float] = set()  # lanes whose loss is marked, and whose successor has not answered
    for row in np.sort(np.concatenate((profile.rows_of("lost"), profile.rows_of("replaced")))):
        event = str(profile.events[row]) if profile.events is not None else ""
        changed = np.flatnonzero(profile.busy[row] != profile.busy[row - 1]) if row else np.empty(0, int)
        lane = float(changed[0]) if changed.size == 1 else None
        if event == "lost" and lane is None:
            owed.append(float(profile.seconds[row]))
            continue
        if event == "lost" and lane is not None:
            known.add(lane)
        elif lane in known:
            known.discard(lane)
        elif owed:
            marks["lost"].append((owed.pop(0), -0.45 if lane is None else lane))
        marks[event].append((float(profile.seconds[row]), -0.45 if lane is None else lane))
    marks["lost"] += [(time, -0.45) for time in owed]
    styles = (("lost", "x", RED), ("replaced", "o", ORANGE))
    for event, marker, color in styles:
        if marks[event]:
            x, y = zip(*marks[event], strict=True)
            label = f"{event} ({len(x)})"
            axes.scatter(x, y, marker=marker, color=color, s=28, zorder=3, label=label, clip_on=False)
    if marks["lost"] or marks["replaced"]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8)


def _thin(
    times: NDArray[np.float64], series: tuple[NDArray[np.float64], ...]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """At most `GRID` samples, each the mean of its neighbours."""
    step = math.ceil(len(times) / GRID)
    starts = np.arange(0, len(times), step)
    sizes = np.diff(np.append(starts, len(times)))[:, None]
    return times[starts], [np.add.reduceat(values, starts, axis=0) / sizes for values in series]


def _nice(seconds: float) -> float:
    """The next of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(seconds, 1e-6)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= seconds * 0.999)


def tidy(*panels: Axes) -> None:
    """Give panels the look of all our figures."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
