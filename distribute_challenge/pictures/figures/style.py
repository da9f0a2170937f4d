"""What all figures have in common: colours, sizes, and the axes of time.

Colours are those of Okabe and Ito, and the map `cividis`: all safe for the colour-blind.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from distribute_challenge.pictures.reading import Profile
from distribute_challenge.record.faults import MOST_TIME

Values = NDArray[np.float64]
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
PINK, SKY, OLIVE, INDIGO = "#CC79A7", "#56B4E9", "#B8A800", "#332288"
LINES = (BLUE, ORANGE, GREEN, RED, PINK, SKY, "#000000", OLIVE)
WIDTH_IN = 9.0
GRID = 1000  # points of a curve
MOST_TICKS = 7
# Steps of a clock's ticks, in seconds: below a second and above a day, powers of ten are taken.
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
matplotlib.rcParams["text.parse_math"] = False  # Names of functions may hold any sign.


class Ticks(NamedTuple):
    """Where the time of day is round, in seconds from the beginning; what it is there; and what it is of."""

    places: list[float]
    labels: list[str]
    name: str


def new_figure(height_in: float) -> Figure:
    """A figure of our width, with a margin in which the last number of an axis fits."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(w_pad=0.1)
    return figure


def tidy(axes: Axes) -> None:
    """Give a panel the look of all our figures."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def end_of(profile: Profile) -> float:
    """Where the time axis ends: a second, if no time passes in the profile."""
    return float(profile.seconds[-1]) or 1.0


def show_time(top: Axes, bottom: Axes, profile: Profile) -> None:
    """Label the time, which panels share: seconds below the lowest, the time of day above the uppermost."""
    end = end_of(profile)
    bottom.set_xlim(0, end)
    bottom.set_xlabel("time (s)")
    if 0 < profile.began < MOST_TIME and end < MOST_TIME:
        ticks = times_of_day(profile.began, end)
        axis = top.secondary_xaxis("top")
        axis.set_xticks(ticks.places, ticks.labels, fontsize=8, color=GREY)
        axis.set_xlabel(ticks.name, fontsize=8, color=GREY)
        axis.tick_params(color=GREY, length=3)


def times_of_day(began: float, length: float) -> Ticks:
    """The round times of day in so many seconds from Unix seconds `began` on, where this program runs."""
    step = _step(length)
    local = datetime.fromtimestamp(began).astimezone()
    offset = (local.utcoffset() or timedelta()).total_seconds()
    # Of the day: a microsecond is more than the rounding of such numbers.
    midnight = math.floor((began + offset) / 86_400) * 86_400
    of_day = began + offset - midnight
    first = math.ceil(of_day / step - 1e-6)
    rounds = [number * step for number in range(first, math.floor((of_day + length) / step + 1e-6) + 1)]
    labels = [_label(midnight, seconds, step, length) for seconds in rounds]
    hours, minutes = divmod(round(abs(offset) / 60), 60)
    zone = f"UTC{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"
    return Ticks([seconds - of_day for seconds in rounds], labels, f"time of day ({local:%Y-%m-%d}, {zone})")


def _step(length: float) -> float:
    """The step between ticks: so long that there are not too many."""
    least = length / MOST_TICKS
    for step in STEPS_S:
        if STEPS_S[0] / 2 < least <= step:
            return step
    unit = STEPS_S[-1] if least > 1 else 1
    power = 10.0 ** math.floor(math.log10(least / unit))
    return next(factor * power * unit for factor in (1, 2, 5, 10) if factor * power * unit >= least * 0.999)


def _label(midnight: float, seconds: float, step: float, length: float) -> str:
    moment = datetime.fromtimestamp(midnight, timezone.utc) + timedelta(seconds=round(seconds, 6))
    if length > 86_400 and seconds % 86_400 == 0:
        return f"{moment:%m-%d}"
    if step >= 60:
        return f"{moment:%H:%M}"
    if step >= 1:
        return f"{moment:%H:%M:%S}"
    digits = min(math.ceil(-math.log10(step) - 1e-9), 6)
    return f"{moment:%H:%M:%S.%f}"[: -(6 - digits) or None]
