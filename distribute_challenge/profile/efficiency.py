"""The figure of a sweep, beside the ideal."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distribute_challenge.profile.plots import LINES, WIDTH_IN, tidy
from distribute_challenge.profile.words import plural


def benchmark(cells: pd.DataFrame, tasks: int, seconds: float) -> Figure:
    """The sweep: throughput for each number of workers and clients beside the ideal, and efficiency."""
    figure = Figure(figsize=(WIDTH_IN + 1, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    workers = sorted(set(cells["Workers"]))
    clients = sorted(set(cells["Functions"]))
    table = cells.pivot(index="Workers", columns="Functions", values="Throughput").reindex(
        workers, columns=clients
    )
    perfect = np.array([[ideal(w, c, tasks, seconds) for c in clients] for w in workers])
    for row, count in enumerate(workers):
        # Lines that lie on each other are all seen: the one with fewer workers is thinner, and above.
        style = {"color": LINES[row % len(LINES)], "marker": "o", "zorder": 3 - row / len(workers)}
        width = 1.6 + min(1.4 * row, 8)
        measured = table.loc[count].to_numpy(float)
        left.plot(clients, measured, linewidth=width, label=plural(count, "worker"), **style)
        left.plot(clients, perfect[row], color="black", linestyle="none", marker="_", ms=14, zorder=4)
    left.plot([], [], color="black", linestyle="none", marker="_", ms=14, label="ideal")
    left.set_xlabel("clients, each running one function after another")
    left.set_ylabel("throughput (tasks per second)")
    left.set_ylim(0, max(float(np.nanmax(perfect)), float(np.nanmax(table.to_numpy(float)))) * 1.3)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    left.set_title("Throughput, beside the ideal", loc="left", fontsize=11)
    tidy(left)
    efficiency = table.to_numpy(float) / perfect
    image = right.imshow(
        efficiency, cmap="cividis", vmin=min(0.9, float(np.nanmin(efficiency))), vmax=1, aspect="auto"
    )
    middle = sum(image.get_clim()) / 2
    size = 9 if efficiency.size <= 64 else 6
    for (row, column), value in np.ndenumerate(efficiency):
        if np.isfinite(value):
            color = "black" if value > middle else "white"
            right.text(column, row, f"{value:.1%}", ha="center", va="center", color=color, fontsize=size)
    right.set_xticks(range(len(clients)), [str(count) for count in clients])
    right.set_yticks(range(len(workers)), [str(count) for count in workers])
    right.set_xlabel("clients")
    right.set_ylabel("workers")
    right.set_title("Efficiency: measured / ideal", loc="left", fontsize=11)
    figure.colorbar(image, ax=right, format="{x:.0%}")
    return figure


def ideal(workers: int, clients: int, tasks: int, seconds: float) -> float:
    """Tasks per second if nothing but the functions took time: each client runs `tasks` of `seconds` each.

    >>> ideal(2, 3, 5, 3)
    0.625
    """
    total = tasks * clients
    return total / (seconds * math.ceil(total / min(workers, clients)))
