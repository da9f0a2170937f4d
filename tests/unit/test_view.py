"""What a browser is told when somebody looks at another window of a record."""

from __future__ import annotations

from pathlib import Path

from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ColumnsStreamedEvent, DocumentChangedEvent

from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.live.view import View
from tests.records import Row, write_profile, write_tasks


def test_the_rows_of_a_new_window_are_set_in_one_step(tmp_path: Path):
    """What a source holds is sent as it is then: rows that are added to an empty one may come twice."""
    path = tmp_path / "p.csv"
    write_profile(path, 1, 30)
    write_tasks(path, [Row("f", 0, 1, 2, 1), Row("f", 0, 3, 4, 1)], [18812])
    view = View(Record.read(path), 60)
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
