"""All of a run on one time axis."""

from __future__ import annotations

from matplotlib.figure import Figure

from distribute_challenge.pictures.figures.busy import COLUMNS, Run, show_lanes
from distribute_challenge.pictures.figures.resources import show_lines, show_range, usages
from distribute_challenge.pictures.figures.style import new_figure, show_time
from distribute_challenge.pictures.figures.throughput import show_throughput, show_waiting, waiting
from distribute_challenge.pictures.words import significant

MOST_LINES = 4  # With more workers than this, their mean and range are drawn.


def overview(run: Run) -> Figure:
    """Lanes, throughput, clients and tasks that wait, CPU and memory."""
    profile = run.profile
    lines, measured = waiting(profile), usages(profile)
    lanes_in = 0.6 + min(max(0.3 * profile.workers, 0.6), 5)
    heights = [lanes_in, 1.6, *[0.8] * len(lines), *[1.3] * len(measured)]
    figure = new_figure(sum(heights) + 2.2)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    title, handles = show_lanes(panels[0], run)
    show_throughput(panels[1], profile, run.tasks)
    for axes, (name, values) in zip(panels[2:], lines.items(), strict=False):
        show_waiting(axes, profile, name, values)
    for axes, usage in zip(panels[2 + len(lines) :], measured, strict=True):
        if profile.workers <= MOST_LINES:
            show_lines(axes, usage)
        else:
            show_range(axes, usage)
        axes.set_ylabel(usage.name.replace(" (", "\n("))
    if measured:
        cpu = panels[2 + len(lines)]
        cpu.set_ylim(0, cpu.get_ylim()[1] * 1.25)  # Room for the legend.
        cpu.legend(loc="upper left", ncols=4, frameon=False, fontsize=8)
    show_time(panels[0], panels[-1], profile)
    for axes in panels[1:]:
        axes.yaxis.label.set_fontsize(9)
        axes.tick_params(axis="y", labelsize=9)
    figure.align_ylabels(panels[1:])
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=COLUMNS, frameon=False, fontsize=8)
    panels[0].set_title(
        f"{title}; {significant(profile.throughput)} tasks per second", loc="left", fontsize=11
    )
    return figure
