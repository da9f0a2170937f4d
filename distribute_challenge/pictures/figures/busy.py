"""What each worker did: a lane for each, a block for each task in it, and how tasks and workers ended."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distribute_challenge.pictures import lanes, period
from distribute_challenge.pictures.figures import blocks
from distribute_challenge.pictures.figures.style import (
    BLUE,
    RED,
    Values,
    end_of,
    new_figure,
    show_time,
)
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks
from distribute_challenge.pictures.words import plural, short_time, shortened
from distribute_challenge.record.tasks import FAILED, KILLED, LOST, STATUSES, TIMEOUT

LEASED = "#DEDEDE"
UNKNOWN_LANE = 0.4  # of a lane: of lanes that are thinner, more
MOST_TALL = 16  # With more workers than this, lanes are thin, and what is in them is small.
MARKS_ACROSS = 250  # Of marks of one kind in one lane that lie on each other, one is drawn.
MARK_SIZE = 34
ABOVE, BELOW = 0.12, 0.24  # the middle of a lane, where the marks of ends and of replacements are
# How tasks end that do not return, each by shape and colour; then what becomes of workers.
MARKS: dict[str, dict[str, Any]] = {
    FAILED: {"marker": "X", "facecolors": "#D40000", "edgecolors": "white"},
    TIMEOUT: {"marker": "D", "facecolors": "#FFD400", "edgecolors": "black"},
    KILLED: {"marker": "s", "facecolors": "black", "edgecolors": "white"},
    LOST: {"marker": "*", "facecolors": "#D40000", "edgecolors": "white", "s": 85},
    "worker lost": {"marker": "x", "facecolors": RED, "linewidths": 1.6},
    "worker replaced": {"marker": "o", "facecolors": "none", "edgecolors": "black", "linewidths": 1.3},
}
COLUMNS = 4  # of the legend
LEGEND_ROW_IN = 0.19


class Run(NamedTuple):
    """A profile, and with its tasks file its tasks, their lanes, and the colours of their functions."""

    profile: Profile
    tasks: Tasks | None
    ports: dict[int, int]  # of workers, whose numbers are known by them
    colours: blocks.Colours | None

    def part(self, begin: float, end: float) -> Run:
        """What was recorded between two times, in seconds since the profile began."""
        profile = period.part(self.profile, begin, end)
        if self.tasks is None:
            return self._replace(profile=profile)
        tasks = period.tasks_in(profile, self.tasks)
        return self._replace(profile=profile, tasks=tasks, colours=blocks.colours(tasks))


class Mark(NamedTuple):
    """Marks of one kind: where they are, and of how many functions or workers."""

    name: str
    x: Values
    y: Values
    number: int


def run_of(profile: Profile, tasks: Tasks | None, server_port: int | None) -> Run:
    """What figures with lanes take. Raises ProfileFormatError if the two are not of the same run."""
    ports = {} if tasks is None else lanes.ports(profile, tasks, server_port)
    if not ports and server_port is not None and not profile.places:
        ports = {server_port + 1 + number: number for number in range(profile.workers)}
    return Run(profile, tasks, ports, None if tasks is None else blocks.colours(tasks))


def busy(run: Run) -> Figure:
    """A lane for each worker, with a block for each of its tasks; its share of time busy."""
    profile = run.profile
    workers = profile.workers
    lane_in = 0.42 if workers <= 8 else 0.3 if workers <= MOST_TALL else 0.155
    figure = new_figure(2 + lane_in * workers)
    axes = figure.add_subplot()
    title, handles = show_lanes(axes, run)
    top = axes.get_ylim()[1]
    rows = -(-len(handles) // COLUMNS)
    figure.set_figheight(1.75 + lane_in * (workers - 0.5 - top) + LEGEND_ROW_IN * rows)
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=COLUMNS, frameon=False, fontsize=8)
    shares = _share(profile)
    right_axis = axes.twinx()
    right_axis.set_ylim(axes.get_ylim())
    size = 9 if workers <= MOST_TALL else 6
    right_axis.set_yticks(range(workers), [f"{share:.0%}" for share in shares], fontsize=size)
    right_axis.set_ylabel("share of time busy")
    right_axis.tick_params(axis="y", length=0)
    show_time(axes, axes, profile)
    axes.set_title(title, loc="left", fontsize=11)
    return figure


def show_lanes(axes: Axes, run: Run) -> tuple[str, list[Artist]]:
    """Draw the lanes; a title, and what belongs in the legend."""
    profile, workers, end = run.profile, run.profile.workers, end_of(run.profile)
    handles: list[Artist] = []
    leases = blocks.of_leases(profile)
    what = "filled while busy"
    if run.tasks is not None and run.colours is not None:
        lane = np.array([run.ports[int(port)] for port in run.tasks.worker], np.int32)
        blocks.show(axes, leases, (LEASED,), workers, end)
        shapes = blocks.of_tasks(profile, run.tasks, lane, run.colours)
        is_shaded = blocks.show(axes, shapes, (*blocks.PALETTE, blocks.OTHERS), workers, end)
        what = "a block for each task"
        handles += _functions(run.colours)
        handles.append(Patch(color=LEASED, label="held by a client, or being replaced"))
        found = [*_ends(profile, run.tasks, lane), *_losses(profile, run.tasks, lane)]
    else:
        is_shaded = blocks.show(axes, leases, (BLUE,), workers, end)
        found = _losses(profile)
    if is_shaded:
        part = f"paler: busy for a part of each {short_time(end / blocks.BINS)}"
        handles.append(Patch(color=blocks.OTHERS if run.tasks else BLUE, alpha=0.4, linewidth=0, label=part))
    for border in range(workers + 1):
        axes.axhline(border - 0.5, color="#DDDDDD", linewidth=0.5, zorder=0)
    # Marks of which is not known to which worker they belong have a place above the lanes.
    is_unknown = any(np.isnan(mark.y).any() for mark in found)
    top = -0.5 - (UNKNOWN_LANE * max(1, workers / 8) if is_unknown else 0)
    size, scale = (9, 1.0) if workers <= MOST_TALL else (6, 0.35)
    handles += [_show_marks(axes, mark, (top - 0.5) / 2, end, scale) for mark in found]
    where = lanes.where(profile.places, run.ports)
    names = [f"worker {n + 1}  {where.get(n, '')}".rstrip() for n in range(workers)]
    axes.set_yticks(range(workers), names, fontsize=size)
    axes.set_ylim(workers - 0.5, top)
    axes.tick_params(axis="y", length=0)
    return f"What {plural(workers, 'worker')} did: {what}", handles


def _functions(colours: blocks.Colours) -> list[Artist]:
    """The entries of functions in the legend."""
    found: list[Artist] = [
        Patch(color=color, label=shortened(name, 34))
        for color, name in zip((*blocks.PALETTE, blocks.OTHERS), colours.names, strict=False)
    ]
    if colours.others:
        found.append(Patch(color=blocks.OTHERS, label=plural(colours.others, "other function")))
    return found


def _ends(profile: Profile, tasks: Tasks, lane: np.ndarray[Any, Any]) -> list[Mark]:
    """Where tasks ended in another way than by returning."""
    found = []
    for name in (FAILED, TIMEOUT, KILLED, LOST):
        rows = np.flatnonzero(tasks.status == STATUSES.index(name))
        if rows.size:
            x = tasks.ended[rows] - profile.began
            found.append(Mark(name, x, lane[rows] - ABOVE, int(tasks.count[rows].sum())))
    return found


def _losses(
    profile: Profile, tasks: Tasks | None = None, lane: np.ndarray[Any, Any] | None = None
) -> list[Mark]:
    """Where workers were lost and replaced; not the losses that a task's mark tells of.

    Both fit in a lane at one time: the loss in its upper half, the replacement in its lower.
    """
    found = []
    for event, shift in (("lost", -ABOVE), ("replaced", BELOW)):
        shown = [mark for mark in lanes.marks(profile) if mark.event == event]
        if event == "lost" and tasks is not None and lane is not None:
            ends, where = tasks.ended[tasks.is_cut_off] - profile.began, lane[tasks.is_cut_off]
            shown = [mark for mark in shown if not _is_told(mark, ends, where)]
        if shown:
            y = [np.nan if mark.lane is None else mark.lane + shift for mark in shown]
            x = np.array([mark.time_s for mark in shown])
            found.append(Mark(f"worker {event}", x, np.array(y), len(shown)))
    return found


def _is_told(mark: lanes.Mark, ends: Values, where: np.ndarray[Any, Any]) -> bool:
    """Whether a task ended with a worker: `where` is the lane in which each has ended."""
    times = ends if mark.lane is None else ends[where == mark.lane]
    return bool((np.abs(times - mark.time_s) <= lanes.LOSS_S).any())


def _show_marks(axes: Axes, mark: Mark, above: float, end: float, scale: float) -> Artist:
    """Draw marks of one kind; their entry in the legend."""
    style = {"s": MARK_SIZE, "linewidths": 0.6, "edgecolors": None} | MARKS[mark.name]
    is_unknown = np.isnan(mark.y)
    y = np.where(is_unknown, above, mark.y)
    places = np.stack((np.round(mark.x / end * MARKS_ACROSS), y))
    _, rows = np.unique(places, axis=1, return_index=True)
    zorder = 4 + list(MARKS).index(mark.name) / 10
    small = {"s": style["s"] * scale, "linewidths": style["linewidths"] * scale**0.5}
    axes.scatter(mark.x[rows], y[rows], clip_on=False, zorder=zorder, **style | small)
    label = f"{mark.name} ({mark.number:,}{'; above: worker unknown' if is_unknown.any() else ''})"
    return Line2D(
        [],
        [],
        linestyle="none",
        label=label,
        marker=style["marker"],
        markersize=style["s"] ** 0.5,
        markerfacecolor=style["facecolors"],
        markeredgecolor=style["edgecolors"] or style["facecolors"],
        markeredgewidth=style["linewidths"],
    )


def _share(profile: Profile) -> Values:
    """The share of time that each worker was busy."""
    if not profile.seconds[-1]:
        return np.array(profile.busy[-1], np.float64)
    lengths = np.diff(profile.seconds)
    # One after another: all at once would take eight times the memory of the busy lists.
    spent = [lengths @ profile.busy[:-1, worker] for worker in range(profile.workers)]
    return np.array(spent, np.float64) / float(profile.seconds[-1])
