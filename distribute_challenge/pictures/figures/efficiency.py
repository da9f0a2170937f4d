"""The figure of a sweep, beside the ideal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from distribute_challenge.pictures.figures.style import LINES, WIDTH_IN, tidy
from distribute_challenge.pictures.words import plural

Cells = NDArray[np.float64]  # (workers, clients)
FEW = 8  # Up to so many, each line has a colour of the common list, and each cell a number in it.
MOST_TICKS = 16
MANY = colormaps["viridis"]


def benchmark(cells: pd.DataFrame, tasks: int, seconds: float) -> Figure:
    """The sweep: throughput for each number of workers and clients beside the ideal, and efficiency."""
    table = cells.pivot(index="Workers", columns="Functions", values="Throughput")
    workers, clients = (list(map(int, counts)) for counts in (table.index, table.columns))
    measured = table.to_numpy(float)
    perfect = np.array([[ideal(w, c, tasks, seconds) for c in clients] for w in workers])
    larger = max(len(workers), len(clients)) > FEW
    figure = Figure(figsize=(WIDTH_IN + 1, 6.2 if larger else 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _show_throughput(left, workers, clients, measured, perfect)
    _show_efficiency(right, workers, clients, measured / perfect)
    return figure


def _show_throughput(
    axes: Axes, workers: list[int], clients: list[int], measured: Cells, perfect: Cells
) -> None:
    """A line for each number of workers, and dashes where the ideal is.

    Lines that lie on each other are all seen: the one with fewer workers is thinner, and above.
    """
    are_few = len(workers) <= FEW
    thickest, dash = (min(1.4 * (len(workers) - 1), 6), 14) if are_few else (3.5, 8)
    for row, count in enumerate(workers):
        share = row / len(workers)
        color = LINES[row] if are_few else MANY(share)
        style: dict[str, Any] = {"color": color, "lw": 1.6 + thickest * share, "zorder": 3 - share}
        axes.plot(clients, measured[row], "o-", label=plural(count, "worker"), **style)
        axes.plot(clients, perfect[row], "_", color="black", ms=dash, zorder=4)
    axes.plot([], [], "_", color="black", ms=14, label="ideal")
    columns = 2 if are_few else 3
    # The legend is above the lines. Its rows take a share of the height: of larger axes, a smaller one.
    rows = math.ceil((len(workers) + 1) / columns)
    room = max(0.95 - rows / (16 if are_few else 24), 0.4)
    axes.set_ylim(0, max(float(np.nanmax(perfect)), float(np.nanmax(measured))) / room)
    axes.legend(loc="upper left", frameon=False, fontsize=8, ncols=columns)
    margin = (clients[-1] - clients[0]) / 20 or 0.5
    axes.set_xlim(clients[0] - margin, clients[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("clients, each running one function after another")
    axes.set_ylabel("throughput (tasks per second)")
    axes.set_title("Throughput, beside the ideal", loc="left", fontsize=11)
    tidy(axes)


def _show_efficiency(axes: Axes, workers: list[int], clients: list[int], efficiency: Cells) -> None:
    """A map, with numbers in it as long as they fit."""
    lowest = min(0.9, float(np.nanmin(efficiency)))
    image = axes.imshow(efficiency, cmap="cividis", vmin=lowest, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(efficiency):
        if np.isfinite(value) and len(clients) <= FEW and len(workers) <= MOST_TICKS:
            color = "black" if value > (lowest + 1) / 2 else "white"
            size = 9 if len(clients) <= 4 else 6.5
            axes.text(column, row, f"{value:.1%}", ha="center", va="center", color=color, fontsize=size)
    for axis, counts in ((axes.xaxis, clients), (axes.yaxis, workers)):
        step = math.ceil(len(counts) / MOST_TICKS)
        axis.set_ticks(range(0, len(counts), step), [str(count) for count in counts[::step]])
    axes.set_xlabel("clients")
    axes.set_ylabel("workers")
    axes.set_title("Efficiency: measured / ideal", loc="left", fontsize=11)
    axes.figure.colorbar(image, ax=axes, format="{x:.0%}")


def ideal(workers: int, clients: int, tasks: int, seconds: float) -> float:
    """Tasks per second if nothing but the functions took time: each client runs `tasks` of `seconds` each.

    >>> ideal(2, 3, 5, 3), ideal(4, 1, 5, 2)  # One client keeps one worker busy.
    (0.625, 0.5)
    """
    total = tasks * clients
    return total / (seconds * math.ceil(total / min(workers, clients)))
