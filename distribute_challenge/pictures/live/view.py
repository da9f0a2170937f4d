"""One look at a record: the charts, and how much of the record they show already."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource

from distribute_challenge.pictures.live import content, tables
from distribute_challenge.pictures.live.charts import Charts
from distribute_challenge.pictures.live.data.levels import Columns, Stream
from distribute_challenge.pictures.live.data.record import Record

MOST_ROWS = 30_000  # of one source in a browser: those that go first are long out of sight


class View:
    """Charts of a record over a window of time that ends now; all of it, if `window_s` is None."""

    def __init__(self, record: Record, window_s: float | None, *, with_outlines: bool = False) -> None:
        self.record = record
        self.charts = Charts(tables.lanes(record), with_outlines=with_outlines)
        self.colours: list[str] = []
        self._palette = content.Palette()
        self._seen: dict[Stream, int] = {}  # how many rows of each are shown
        self._shown_until: float | None = None
        self.choose(window_s)

    def choose(self, window_s: float | None) -> None:
        """Show another window."""
        self.window_s = window_s
        age_s = self.record.now - self.record.began
        self._number = self.record.level_for(window_s or age_s)
        self._seen, self._shown_until = {}, None
        self.follow(is_new=True)

    def follow(self, *, moves: bool = True, is_new: bool = False) -> None:
        """Show what was added, and the time now, unless somebody looks at another one."""
        record, charts = self.record, self.charts
        if (now := record.now) == self._shown_until:
            return  # It is finished.
        self._shown_until = now
        colours = self._palette.colours(record)
        if colours != self.colours:
            self.colours = colours
            charts.mapper.update(palette=colours, high=len(colours) - 0.5)
        added: list[tuple[ColumnDataSource, content.Data]] = []
        for layer, source in zip(record.levels[self._number].layers, charts.shapes, strict=True):
            if (rows := self._unseen(layer)) is not None:
                added += (
                    (source, content.shapes(record, rows)),
                    (charts.edges, content.edges(record, rows)),
                    (charts.marks, content.failures(record, rows)),
                )
        if (rows := self._unseen(record.workers.losses)) is not None:
            added.append((charts.marks, content.losses(record, rows)))
        for source in (*charts.shapes, charts.edges, charts.marks):
            parts = [rows for place, rows in added if place is source and len(rows["right"])]
            _show(source, parts, is_new=is_new)
        charts.running.data = content.running(record)
        begin = record.began if self.window_s is None else now - self.window_s
        data = content.series(record, self._number, begin)
        charts.series.data = data
        for axis, least, columns in charts.axes:
            highest = max(float(np.nanmax(data[column], initial=0)) for column in columns)
            axis.end = max(highest * 1.1, least)
        if moves:
            start, end = content.on_axis(record, begin), content.on_axis(record, now)
            charts.times.update(start=start, end=end, reset_start=start, reset_end=end)

    def _unseen(self, stream: Stream) -> Columns | None:
        seen, self._seen[stream] = self._seen.get(stream, 0), stream.added
        return stream.since(seen)


def _show(source: ColumnDataSource, parts: list[content.Data], *, is_new: bool) -> None:
    """Add rows to what a browser shows; or, if they are of a new window, show them alone.

    If it were emptied first, and they were added then, it might show them twice: what a source holds is
    sent to the browser as it is when it is sent, which may be after the rows were added.
    """
    if is_new:
        source.data = {
            name: np.concatenate([part[name] for part in parts])[-MOST_ROWS:] if parts else []
            for name in source.column_names
        }
        return
    for part in parts:
        source.stream(part, MOST_ROWS)
