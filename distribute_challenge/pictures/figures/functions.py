"""How long each function runs and waits, as distributions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from distribute_challenge.pictures.figures import blocks
from distribute_challenge.pictures.figures.busy import Run
from distribute_challenge.pictures.figures.style import Values, new_figure, tidy
from distribute_challenge.pictures.tasks import Tasks, quantiles, summarize
from distribute_challenge.pictures.words import plural, short_time, shortened

MOST_FUNCTIONS = 20
FEW = 12  # With no more rows than this, each is a dot.
BINS = 80
SHORTEST_S = 1e-8  # What is shorter is drawn as this: no function is.
HEIGHT = 0.8  # of the highest bar in a row that is 1 high
LEAST = 0.04  # of that: one of thousands is still to be seen


def functions(run: Run) -> Figure | None:
    """For each function its run times and its waiting times; None if no task is known to have ended."""
    tasks, colours = run.tasks, run.colours
    if tasks is None or colours is None:
        return None
    summaries = summarize(tasks)
    if not summaries:
        return None
    shown = summaries[:MOST_FUNCTIONS]
    figure = new_figure(1.7 + 0.45 * len(shown))
    panels = figure.subplots(1, 2, sharey=True)
    columns = {"run time": tasks.seconds / tasks.count, "time waited before": tasks.started - tasks.queued}
    for axes, (name, times) in zip(panels, columns.items(), strict=True):
        _show(axes, tasks, [summary.function for summary in shown], times.clip(SHORTEST_S), colours)
        axes.set_xlabel(name)
    labels = [f"{shortened(summary.function, 30)}\n({summary.tasks:,})" for summary in shown]
    panels[0].set_yticks(range(len(shown)), labels, fontsize=8)
    panels[0].set_ylim(len(shown) - 0.5, -0.5 - 0.35)
    title = plural(len(shown), "function")
    if len(summaries) > len(shown):
        title = f"The {len(shown)} functions with most time of {len(summaries):,}"
    panels[0].set_title(title, loc="left", fontsize=11)
    panels[1].set_title("| median    ¦ 99 % are shorter", loc="right", fontsize=9)
    return figure


def _show(axes: Axes, tasks: Tasks, names: list[str], times: Values, colours: blocks.Colours) -> None:
    """A row for each function: bars as high as there are times so long."""
    known = times[~np.isnan(times)]
    low, high = _limits(known) if known.size else (1e-3, 1.0)
    edges = np.geomspace(low, high, BINS + 1).astype(np.float64)
    palette = (*blocks.PALETTE, blocks.OTHERS)
    for row, name in enumerate(names):
        code = tasks.functions.index(name)
        here = np.flatnonzero((tasks.function == code) & ~np.isnan(times))
        floor = row + HEIGHT / 2
        axes.axhline(floor, color="#CCCCCC", linewidth=0.6, zorder=0)
        if not here.size:
            axes.text(
                np.sqrt(low * high), row, "unknown", color="#888888", ha="center", va="center", fontsize=8
            )
            continue
        color = palette[colours.of_function[code]]
        _show_row(axes, times[here], tasks.count[here], floor, edges, color)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_time(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _show_row(
    axes: Axes, times: Values, counts: NDArray[np.int64], floor: float, edges: Values, color: str
) -> None:
    if len(times) <= FEW:
        axes.plot(
            times, np.full(len(times), floor - HEIGHT / 4), "o", color=color, markersize=5, clip_on=False
        )
    else:
        heights, _ = np.histogram(times, edges, weights=counts.astype(float))
        shares = heights / heights.max()
        shares[heights > 0] = np.maximum(shares[heights > 0], LEAST)
        axes.stairs(floor - HEIGHT * shares, edges, baseline=floor, color=color, fill=True)
    median, late = quantiles(times, counts, (0.5, 0.99))
    axes.plot([median, median], [floor, floor - HEIGHT], color="black", linewidth=1.4)
    axes.plot([late, late], [floor, floor - HEIGHT], ":", color="black", linewidth=1.4)


def _limits(times: Values) -> tuple[float, float]:
    """Whole decades around all times."""
    low = np.floor(np.log10(times.min()) - 1e-9)
    high = np.ceil(np.log10(times.max()) + 1e-9)
    return float(10.0**low), float(10.0 ** max(high, low + 1))
