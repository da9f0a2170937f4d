"""What a browser is told when somebody looks at another window of a record."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ColumnsStreamedEvent, DocumentChangedEvent

from distribute_challenge import cli
from distribute_challenge.pictures.live import content
from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.live.session import Session
from distribute_challenge.pictures.live.view import View
from distribute_challenge.record.profile import HEADER, Change, Rows
from tests.records import BEGAN, Row, write_profile, write_tasks


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


def test_a_page_is_loaded_anew_when_a_worker_comes(tmp_path: Path):
    """Its lanes are as many as there were."""
    path = tmp_path / "p.csv"
    rows = Rows(1)
    text = rows.change(Change(BEGAN, "start", None, 0, 0, 0, 0, 0))
    path.write_text(HEADER + text + rows.change(Change(BEGAN, "joined h:1", 0, 0, 0, 0, 0, 0)))
    record, document = Record.read(path), Document()
    Session(document, lambda: record)
    (follow,) = document.session_callbacks
    (outdated,) = document.select({"name": "outdated"})
    follow.callback()
    assert outdated.text == ""
    with path.open("a") as file:
        file.write(rows.change(Change(BEGAN + 1, "joined h:2", 1, 0, 0, 0, 0, 0)))
    record.update()
    follow.callback()
    assert outdated.text != ""


def test_all_times_of_a_record_are_by_the_clock_of_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The clock that it is looked at by may be another one: in winter, at a record of the summer."""
    path = tmp_path / "p.csv"
    write_profile(path, 1, 30)
    record = Record.read(path)
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        summer, winter = 1_784_000_000.0, 1_769_000_000.0  # in July and in January 2026
        monkeypatch.setattr(record, "began", summer)
        assert content.on_axis(record, summer) == (summer + 7200) * 1000
        assert content.on_axis(record, winter) == (winter + 7200) * 1000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", 8787),
        ("[::1]", "::1", 8787),
        ("9000", "127.0.0.1", 9000),
        (":0", "127.0.0.1", 0),
        ("localhost:9000", "localhost", 9000),
    ],
)
def test_where_a_page_is_to_be(text: str, host: str, port: int):
    """It has a port of its own, which is not the server's."""
    assert cli.place(text) == (host, port)


def test_a_worker_that_is_being_replaced_is_still_one_of_its_pool(tmp_path: Path):
    rows = Rows(2)
    text = rows.change(Change(BEGAN, "start", None, 0, 0, 0, 0, 0))
    text += rows.change(Change(BEGAN, "acquire", 0, 1, 0, 0, 0, 0))
    text += rows.change(Change(BEGAN, "lost", 1, 1, 0, 0, 0, 0))
    (tmp_path / "p.csv").write_text(HEADER + text)
    workers = Record.read(tmp_path / "p.csv").workers
    assert (workers.busy.sum(), workers.present) == (2, 2)
