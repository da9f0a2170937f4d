"""What a browser is told when somebody looks at another window of a record."""

from __future__ import annotations

from pathlib import Path

from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ColumnsStreamedEvent, DocumentChangedEvent

from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.live.view import View
from tests.records import Row
from tests.unit.test_live_record import write


def test_the_rows_of_a_new_window_are_set_in_one_step(tmp_path: Path):
    """What a source holds is sent as it is then: rows that are added to an empty one may come twice."""
    record = Record.read(write(tmp_path, [Row("f", 1, 1, 2 + number, 1) for number in range(3)]))
    view = View(record, 60)
    sources = [*view.charts.shapes, view.charts.edges, view.charts.marks]
    document = Document()
    for source in sources:
        document.add_root(source)
    events: list[DocumentChangedEvent] = []
    document.on_change(events.append)
    view.choose(3600)
    told = [event for event in events if isinstance(event, ColumnDataChangedEvent | ColumnsStreamedEvent)]
    assert [type(event) for event in told] == [ColumnDataChangedEvent] * len(sources)
    assert any(len(source.data["right"]) for source in view.charts.shapes)
