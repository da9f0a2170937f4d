"""The figure of the results: a panel for each case, a bar for each peer."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks.peers.cases import COMPARED, TARGETS, Case
from benchmarks.peers.results import Results
from benchmarks.peers.rivals import PEERS
from benchmarks.peers.table import BARE, shown
from distribute_challenge.pictures.figures.style import BLUE, RED, WIDTH_IN

PLOTS = Path(__file__).parents[2] / "plots"
OTHERS, WITHOUT = "#B9C1CA", "#E3E7EB"
COLUMNS = 2
BAR_IN = 0.21
TITLE_IN = 0.6  # of a panel, with what is below it
LEGEND_BARS = 3
INSIDE = 0.3  # of the width of all bars: a shorter bar does not hold its number


def save(results: Results) -> None:
    """Draw it, as PNG for the README and as PDF."""
    figure = draw(results)
    for suffix in ("png", "pdf"):
        figure.savefig(PLOTS / f"performance.{suffix}", dpi=160)


def draw(results: Results) -> Figure:
    """A panel for each case in which this pool was measured; the last one explains the others."""
    cases = [case for case in COMPARED if results.rounds(case.name, "pool")]
    panels = -(-(len(cases) + 1) // COLUMNS)
    bars = [len(measured_in(results, case)) for case in cases]
    # Bars are of one height in all rows: a row is as high as its longer panel, the last one as the legend.
    rows = [
        max(bars[first : first + COLUMNS], default=LEGEND_BARS)
        for first in range(0, panels * COLUMNS, COLUMNS)
    ]
    heights = [TITLE_IN + BAR_IN * max(count, LEGEND_BARS) for count in rows]
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09)
    figure = Figure(figsize=(WIDTH_IN + 2.5, sum(heights)), layout=layout)
    every = figure.subplots(panels, COLUMNS, squeeze=False, height_ratios=heights).ravel()
    for axes, case in zip(every, cases, strict=False):
        show_case(axes, results, case)
    for axes in every[len(cases) :]:
        axes.set_axis_off()
    explain(every[len(cases)])
    return figure


def measured_in(results: Results, case: Case) -> dict[str, float]:
    """The peers of a case, the best one first."""
    values = {name: value for name in PEERS if (value := results.value(case.name, name)) is not None}
    return dict(sorted(values.items(), key=lambda item: item[1], reverse=not case.is_time))


def show_case(axes: Axes, results: Results, case: Case) -> None:
    """Bars on a logarithmic axis, each with its value."""
    values = measured_in(results, case)
    low, high = min(values.values()), max(values.values())
    left = low / 10 ** (0.25 + 0.12 * (high / low > 5))
    goal = promised(results, case)
    for place, (name, value) in enumerate(values.items()):
        is_ours = name == "pool"
        color = BLUE if is_ours else WITHOUT if name in BARE else OTHERS
        axes.barh(place, value - left, left=left, height=0.74, color=color)
        text = shown(value, case.unit)
        if not is_ours or goal is None:
            write_at(axes, text, value, place, ours=is_ours)
            continue
        axes.plot([goal, goal], [place - 0.48, place + 0.48], color=RED, lw=2.2, solid_capstyle="butt")
        if goal <= value:
            write_at(axes, text, value, place, ours=True)
            continue
        asked = f"{'≤' if case.is_time else '≥'} {shown(goal, case.unit)}"
        if math.log(value / left) < INSIDE * math.log(high / left):
            write_at(axes, f"{text} ({asked})", goal, place, ours=True)
        else:
            write_at(axes, text, value, place, inside=True, ours=True)
            write_at(axes, asked, goal, place, color=RED)
    axes.set_xscale("log")
    # The longest bar leaves a quarter of the width to its number.
    longest = max(high, goal or 0)
    axes.set_xlim(left, longest * (longest / left) ** 0.34)
    axes.set_yticks(range(len(values)), [PEERS[name].title for name in values], fontsize=8.5)
    for tick, name in zip(axes.get_yticklabels(), values, strict=True):
        if name == "pool":
            tick.set(weight="bold", color=BLUE)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(NullLocator())  # Each bar says its value; the axis would say it again.
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color("#999999")
    title = case.title.replace("`", "")
    axes.set_title(title[0].upper() + title[1:], loc="left", fontsize=10.5)
    better = "less is better" if case.is_time else "more is better"
    axes.set_xlabel(better, loc="left", fontsize=8, color="#777777", labelpad=2)


def write_at(
    axes: Axes, text: str, at: float, place: int, *, inside: bool = False, ours: bool = False, color: str = ""
) -> None:
    """A value, at the end of its bar."""
    axes.annotate(
        text,
        (at, place),
        xytext=(-5 if inside else 5, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=8,
        weight="bold" if ours else "normal",
        color=color or ("white" if inside else BLUE if ours else "#444444"),
    )


def promised(results: Results, case: Case) -> float | None:
    """Where this pool has to be: the hardest of its promises; None if there is none."""
    goals = [
        target.limit * other
        for target in TARGETS
        if (target.case, target.one) == (case.name, "pool")
        and (other := results.value(case.name, target.other)) is not None
    ]
    if not goals:
        return None
    return min(goals) if case.is_time else max(goals)


def explain(axes: Axes) -> None:
    """What colours and marks mean."""
    handles = [
        Patch(color=BLUE, label="this pool"),
        Patch(color=OTHERS, label="other pools, two workers each"),
        Patch(color=WITHOUT, label="without a pool"),
        Line2D([], [], color=RED, lw=2.2, label="promised for this pool, at the most or at least"),
    ]
    axes.legend(
        handles=handles,
        loc="center left",
        frameon=False,
        fontsize=9,
        title="Bars on logarithmic scales",
        title_fontsize=9,
        alignment="left",
    )
