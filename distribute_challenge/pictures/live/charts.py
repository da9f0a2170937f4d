"""The charts of a record, in Bokeh: lanes, throughput, who waits, CPU and memory, on one axis of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    DatetimeTickFormatter,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    NoOverlap,
    Plot,
    Range1d,
    WheelZoomTool,
)
from bokeh.plotting import figure

from distribute_challenge.pictures.live.data.levels import LAYERS
from distribute_challenge.record.tasks import FAILED, KILLED, LOST, TIMEOUT

BLUE, ORANGE, GREEN, RED, PINK, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, "#B8A800", "#7570B3")  # of the functions with most time
OTHERS = "#8C8C8C"
# On white and on black alike.
INK, GRID = "#808489", "#80848940"
# How tasks end that do not return; then what becomes of workers. As in the figures.
MARKS = {
    FAILED: ("x", RED),
    TIMEOUT: ("diamond", "#E0B400"),
    KILLED: ("square", "#50555B"),
    LOST: ("star", "#D40000"),
    "worker lost": ("inverted_triangle", RED),
    "worker replaced": ("circle", GREEN),
}
LANE, EDGE, MARK_PX = 0.8, 0.14, 7
GAP: dict[str, Any] = {"line_color": "white", "line_alpha": 0.6, "line_width": 0.7}
OUTLINE: dict[str, Any] = {"line_alpha": "share", "line_width": 0.5}
HATCH: dict[str, Any] = {"line_color": None, "hatch_pattern": "right_diagonal_line", "hatch_alpha": 0.5}
SHAPE = ("left", "right", "lane", "function", "share", "name", "client", "what")
MARK = ("right", "lane", "marker", "color", "text")
SERIES = ("time", "done", "failed", "clients", "tasks", "cpu_percent", "memory_mib")


class Charts:
    """The charts, and the sources of what they show.

    With outlines what is shorter than a dot is seen; they take a browser long, many times over.
    """

    def __init__(self, names: list[str], *, with_outlines: bool) -> None:
        self.shapes = [_source("shapes", SHAPE) for _ in range(LAYERS)]
        self.running = _source("running", SHAPE)
        self.edges = _source("edges", ("left", "right", "lane"))
        self.marks = _source("marks", MARK)
        self.series = _source("series", SERIES)
        self.times = Range1d(0, 1)
        self.mapper = LinearColorMapper(palette=[OTHERS], low=-0.5, high=0.5)
        # Of each chart of numbers its vertical axis, which reaches at least so far, and as far as these go.
        self.axes: list[tuple[Range1d, float, list[str]]] = []
        self.all: list[Plot] = [
            self._lanes(names, with_outlines),
            self._chart("throughput", 1, done=(GREEN, "returned"), failed=(RED, "failed")),
            self._chart("waiting", 4, tasks=(PINK, "tasks"), clients=(SKY, "clients")),
            self._chart("cpu", 100, cpu_percent=(BLUE, "CPU")),
            self._chart("memory", 10, memory_mib=(ORANGE, "memory")),
        ]

    def _figure(self, name: str, height: int, **options: Any) -> figure:
        chart = figure(
            name=name,
            height=height,
            sizing_mode="stretch_width",
            x_axis_type="datetime",
            x_range=self.times,
            tools="xpan,reset,save",
            toolbar_location="above",
            toolbar_inner=True,
            min_border_left=64,
            min_border_right=14,
            background_fill_alpha=0,
            border_fill_alpha=0,
            outline_line_color=None,
            output_backend="canvas",
            **options,
        )
        chart.toolbar.logo = None
        chart.toolbar.autohide = True
        zoom = WheelZoomTool(
            dimensions="width", modifiers={"ctrl": True}, description="zoom: Ctrl and the wheel"
        )
        chart.add_tools(zoom, BoxZoomTool(dimensions="width"))
        chart.toolbar.active_scroll = zoom
        chart.xaxis.formatter = DatetimeTickFormatter(
            **dict.fromkeys(("microseconds", "milliseconds"), "%H:%M:%S.%3N"),
            **dict.fromkeys(("seconds", "minsec"), "%H:%M:%S"),
            **dict.fromkeys(("minutes", "hourmin", "hours"), "%H:%M"),
        )
        chart.xaxis.ticker.desired_num_ticks = 5
        chart.xaxis.major_label_policy = NoOverlap()
        for axis in (*chart.xaxis, *chart.yaxis):
            axis.update(
                axis_line_color=GRID,
                major_tick_line_color=GRID,
                minor_tick_line_color=None,
                major_label_text_color=INK,
                major_label_text_font_size="11px",
            )
        chart.xgrid.grid_line_color = None
        chart.ygrid.grid_line_color = GRID
        return chart

    def _lanes(self, names: list[str], with_outlines: bool) -> figure:
        lane_px = 26 if len(names) <= 8 else 18 if len(names) <= 24 else 11
        chart = self._figure("lanes", 60 + lane_px * len(names), y_range=Range1d(len(names) - 0.5, -0.5))
        chart.yaxis.ticker = FixedTicker(ticks=list(range(len(names))))
        chart.yaxis.major_label_overrides = dict(enumerate(names))
        chart.yaxis.major_label_text_font_size = "11px" if lane_px > 11 else "8px"
        chart.ygrid.grid_line_color = None
        color = {"field": "function", "transform": self.mapper}
        bars = [
            chart.hbar(
                y="lane",
                left="left",
                right="right",
                height=LANE,
                source=source,
                fill_color=color,
                fill_alpha="share",
                **style,
            )
            for source, style in (
                (self.running, HATCH | {"hatch_color": color}),
                # Long ones are told apart by thin gaps; of short ones nothing is lost in a gap.
                *((shapes, GAP) for shapes in self.shapes[:-1]),
                (self.shapes[-1], OUTLINE | {"line_color": color if with_outlines else None}),
            )
        ]
        # Where something failed, the lower edge is red.
        chart.hbar(y="lane", left="left", right="right", height=EDGE, source=self.edges, color=RED)
        marks = chart.scatter(
            "right",
            "lane",
            marker="marker",
            size=MARK_PX,
            source=self.marks,
            fill_color="color",
            line_color="color",
            fill_alpha=0.9,
        )
        formatters = {"@left": "datetime", "@right": "datetime"}
        about = "<b>@name</b> @what<br>@client<br>@left{%H:%M:%S.%3N}"
        chart.add_tools(HoverTool(renderers=bars, tooltips=about, formatters=formatters, name="tasks"))
        end = "@text<br>@right{%H:%M:%S.%3N}"
        chart.add_tools(HoverTool(renderers=[marks], tooltips=end, formatters=formatters, name="marks"))
        return chart

    def _chart(self, name: str, least: float, **lines: tuple[str, str]) -> figure:
        axis = Range1d(0, 1)
        self.axes.append((axis, least, list(lines)))
        chart = self._figure(name, 130, y_range=axis)
        shown = []
        for column, (color, _) in lines.items():
            chart.varea_step(
                "time", 0, column, source=self.series, step_mode="center", fill_color=color, fill_alpha=0.18
            )
            shown.append(
                chart.step("time", column, source=self.series, mode="center", color=color, line_width=1.4)
            )
        chart.yaxis.ticker.desired_num_ticks = 3
        tips = [(label, f"@{column}{{0,0.[0]}}") for column, (_, label) in lines.items()]
        tips.append(("at", "@time{%H:%M:%S}"))
        hover = HoverTool(renderers=shown[:1], tooltips=tips, formatters={"@time": "datetime"}, mode="vline")
        chart.add_tools(hover)
        return chart


def _source(name: str, columns: Iterable[str]) -> ColumnDataSource:
    return ColumnDataSource({column: [] for column in columns}, name=name)
