"""A record as one HTML file, which opens offline: what the live page shows, of all of its time.

It owns how much of a record goes into that file, and refuses to know how it is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from bokeh.embed import file_html
from bokeh.resources import INLINE

from distribute_challenge.pictures.live import tables
from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.live.page import CHARTS, LEGEND, TEMPLATE, Section, variables
from distribute_challenge.pictures.live.view import View
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks
from distribute_challenge.pictures.words import plural, short_time, significant

MOST_SHAPES = 12_000


def write_report(path: Path, profile: Profile, tasks: Tasks | None, ports: Mapping[int, int]) -> str:
    """Write the report of a profile; what it says about how exact it is.

    `ports` says which worker, by its number, is at which. Raises OSError.
    """
    record = Record(profile, tasks, ports, whole=MOST_SHAPES)
    view = View(record, None, with_outlines=True)
    note = exactness(record)
    sections = [
        Section(
            "summary",
            "",
            html=tables.summary(record, **{"tasks per second": significant(profile.throughput)}),
            is_whole=True,
        ),
        Section(
            "lanes", "what the workers did", ("lanes",), f"{LEGEND}<p class=note>{note}</p>", is_whole=True
        ),
        *CHARTS,
        Section("functions", "functions", html=tables.functions(record, view.colours), is_whole=True),
        Section("failures", "newest failures", html=tables.failures(record), is_whole=True),
    ]
    began, ended = (
        time.strftime("%d %b %Y %H:%M:%S", time.localtime(at)) for at in (record.began, record.now)
    )
    span = f"{began} to {ended}, {short_time(record.now - record.began)}"
    about = variables(sections, f"{span}; {plural(record.workers.count, 'worker')}")
    charts = view.charts.all
    text = str(file_html(charts, INLINE, profile.path.name, template=TEMPLATE, template_variables=about))
    path.write_text(text, encoding="utf-8")
    return note


def exactness(record: Record) -> str:
    """Whether each task is drawn, or what stands for many."""
    (level,) = record.levels
    count = sum(record.statuses.values())
    number = plural(count, "task")
    if level.is_exact:
        return f"{number}, each drawn for itself."
    return (
        f"{number}, aggregated where they are dense: those shorter than {short_time(level.width_s)} "
        "are drawn together, in the colour of the function that took most of the time."
    )
