"""What one browser is shown of a record, and sent of it each second."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape

from bokeh.document import Document
from bokeh.events import ConnectionLost, RangesUpdate, Reset
from bokeh.layouts import row
from bokeh.models import CustomJS, Div, Select, Toggle

from distribute_challenge.pictures.live import tables
from distribute_challenge.pictures.live.data.record import DAY, HOUR, MINUTE, Record
from distribute_challenge.pictures.live.page import (
    CHARTS,
    CONTROLS,
    LEGEND,
    TABLES,
    TEMPLATE,
    Section,
    variables,
)
from distribute_challenge.pictures.live.view import View
from distribute_challenge.pictures.words import plural

ALL = "all of it"
WINDOWS = {
    "the last minute": MINUTE,
    "the last 10 minutes": 10 * MINUTE,
    "the last hour": HOUR,
    "the last 6 hours": 6 * HOUR,
    "the last day": DAY,
    "the last week": 7 * DAY,
    ALL: None,
}
EVERY_MS = 1000
SECTIONS = [
    Section("summary", "", ("state", "summary_text"), is_whole=True),
    Section("lanes", "what the workers do", ("choice", "lanes"), LEGEND, is_whole=True),
    *CHARTS,
    Section("workers", "workers", ("workers_table",)),
    Section("functions", "functions", ("functions_table",)),
    Section("failures", "newest failures", ("failures_table",), is_whole=True),
]
GONE = """
document.body.classList.add("gone")
"""


class Session:
    """Fills the document of one browser; `current` gives the record, which another one may follow."""

    def __init__(self, document: Document, current: Callable[[], Record]) -> None:
        self._current = current
        self._record = record = current()
        window = "the last minute" if record.is_written else ALL
        self._view = View(record, WINDOWS[window])
        self._texts = {
            name: Div(name=name, stylesheets=[TABLES], sizing_mode="stretch_width")
            for name in ("state", "summary_text", "workers_table", "functions_table", "failures_table")
        }
        self._window = Select(options=list(WINDOWS), value=window, width=170, stylesheets=[CONTROLS])
        self._window.on_change("value", self._choose)
        self._pause = Toggle(label="pause", width=80, visible=record.is_written, stylesheets=[CONTROLS])
        # Whoever looks closer is left alone.
        for chart in self._view.charts.all:
            chart.js_on_event(RangesUpdate, CustomJS(args={"pause": self._pause}, code="pause.active = true"))
            chart.js_on_event(Reset, CustomJS(args={"pause": self._pause}, code="pause.active = false"))
        self._outdated = Div(visible=False, name="outdated")
        self._outdated.js_on_change("text", CustomJS(code="window.location.reload()"))
        document.js_on_event(ConnectionLost, CustomJS(code=GONE))
        self._lanes = tables.lanes(record)
        document.title = record.path.name
        document.template = TEMPLATE
        document.template_variables.update(variables(SECTIONS, _subtitle(record)))
        choice = row(self._window, self._pause, self._outdated, name="choice")
        for model in (*self._view.charts.all, *self._texts.values(), choice):
            document.add_root(model)
        self._write()
        document.add_periodic_callback(self._follow, EVERY_MS)

    def _choose(self, _name: str, _old: str, new: str) -> None:
        self._pause.active = False
        self._view.choose(WINDOWS[new])

    def _follow(self) -> None:
        if self._current() is not self._record or tables.lanes(self._record) != self._lanes:
            self._outdated.text = "there is another one, or other workers"
            return
        self._view.follow(moves=not self._pause.active)
        self._write()

    def _write(self) -> None:
        """Write all texts: Bokeh sends what has changed."""
        record, texts = self._record, self._texts
        texts["state"].text = _state(record)
        texts["summary_text"].text = tables.summary(record)
        texts["workers_table"].text = tables.workers(record)
        texts["functions_table"].text = tables.functions(record, self._view.colours)
        texts["failures_table"].text = tables.failures(record)


def _subtitle(record: Record) -> str:
    began = time.strftime("%d %b %Y %H:%M:%S", time.localtime(record.began))
    return f"{plural(record.workers.count, 'worker')}, since {began}"


def _state(record: Record) -> str:
    """Whether it goes on."""
    if record.problem is not None:
        return f"<p class=bad>{escape(record.problem)}. What follows is not shown.</p>"
    if record.is_written:
        return "<p class=note><b class=good>&#9679;</b> live, each second</p>"
    ended = time.strftime("%d %b %Y %H:%M:%S", time.localtime(record.now))
    return f"<p class=note>The record ends at {ended}: no server writes it.</p>"
