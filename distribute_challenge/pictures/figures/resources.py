"""CPU and memory of the workers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distribute_challenge.pictures.figures.style import (
    GRID,
    LINES,
    Values,
    end_of,
    new_figure,
    show_time,
    tidy,
)
from distribute_challenge.pictures.reading import Profile


class Usage(NamedTuple):
    """What is measured of each worker: samples at these times, an array (samples, workers)."""

    name: str
    times: Values
    values: Values
    least_top: float  # The axis reaches at least so far.


def resources(profile: Profile) -> Figure | None:
    """CPU and memory of each worker with its child processes; None if the profile has no sample."""
    measured = usages(profile)
    if not measured:
        return None
    few = profile.workers <= len(LINES)
    figure = new_figure(5.8 if few else 4.2 + 0.09 * profile.workers)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, usage in zip(panels, measured, strict=True):
        if few:
            show_lines(axes, usage)
        else:
            _show_map(axes, usage, end_of(profile))
    if few:
        panels[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    show_time(panels[0], panels[1], profile)
    panels[0].set_title("What each worker took, its child processes included", loc="left", fontsize=11)
    return figure


def usages(profile: Profile) -> list[Usage]:
    """CPU and memory of each worker; nothing if there is no sample."""
    cpu, memory = profile.cpu_percent, profile.memory_bytes
    if cpu is None or memory is None:
        return []
    unit, size = ("GiB", 2**30) if np.nanmax(memory, initial=0) >= 2**30 else ("MiB", 2**20)
    return [
        _thin("CPU (% of one core)", profile.sampled, cpu, 100),
        _thin(f"memory ({unit})", profile.sampled, memory / size, 1),
    ]


def show_lines(axes: Axes, usage: Usage) -> None:
    """A line for each worker. Where they lie on each other all are seen: later ones are thinner, on top."""
    workers = usage.values.shape[1]
    dots = ".-" if len(usage.times) < 40 else "-"
    for worker in range(workers):
        width = 1.2 + min(1, 5 / workers) * (workers - 1 - worker)
        style: dict[str, Any] = {"color": LINES[worker], "linewidth": width, "markersize": width + 4}
        axes.plot(usage.times, usage.values[:, worker], dots, label=f"worker {worker + 1}", **style)
    axes.set_ylim(0, max(float(np.nanmax(usage.values, initial=0)), usage.least_top) * 1.1)
    axes.set_ylabel(usage.name)
    tidy(axes)


def show_range(axes: Axes, usage: Usage) -> None:
    """Of many workers: the mean, and around it the range in which all are."""
    masks: Any = np.ma  # Not every version has types for it.
    known = masks.masked_invalid(usage.values)
    low, mean, high = (values.filled(np.nan) for values in (known.min(1), known.mean(1), known.max(1)))
    axes.fill_between(
        usage.times, low, high, color=LINES[0], alpha=0.2, linewidth=0, label="from least to most"
    )
    axes.plot(usage.times, mean, color=LINES[0], linewidth=1.4, label="mean of the workers")
    axes.set_ylim(0, max(float(np.nanmax(usage.values, initial=0)), usage.least_top) * 1.1)
    axes.set_ylabel(usage.name)
    tidy(axes)


def _show_map(axes: Axes, usage: Usage, end: float) -> None:
    """Of many workers: a row for each, coloured by value."""
    times, workers = usage.times, usage.values.shape[1]
    # A sample is about the time before it. The only one, at the very start, is about all there is.
    edges = np.append(0.0, times if times[-1] > 0 else end)
    most = max(float(np.nanmax(usage.values, initial=0)), usage.least_top)
    lanes = np.arange(workers + 1) + 0.5
    mesh = axes.pcolormesh(edges, lanes, usage.values.T, cmap="cividis", vmin=0, vmax=most, rasterized=True)
    axes.set_ylabel("worker")
    axes.set_ylim(workers + 0.5, 0.5)
    axes.figure.colorbar(mesh, ax=axes, label=usage.name)


def _thin(name: str, times: Values, values: Values, least_top: float) -> Usage:
    """At most `GRID` samples, each the mean of some that follow each other, at the time of the last."""
    step = math.ceil(len(times) / GRID)
    starts = np.arange(0, len(times), step)
    sizes = np.diff(np.append(starts, len(times)))[:, None]
    means = np.add.reduceat(values, starts, axis=0) / sizes
    return Usage(name, times[starts + sizes[:, 0] - 1], means, least_top)
