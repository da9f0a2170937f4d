"""Every figure can be drawn at every size, from every kind of file, and no text lies on another."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from distribute_challenge.profile import plots
from distribute_challenge.profile.efficiency import benchmark, ideal
from distribute_challenge.profile.reading import Profile, read_profile

HEADER = ",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event\n"


def make_profile(folder: Path, workers: int, rows: int) -> Profile:
    """A pool at random work, with losses, and a sample every twentieth row."""
    chance = random.Random(workers)
    busy = [0] * workers
    down: list[int] = []
    time, finished = 1.7e9, 0
    lines = []
    for number in range(rows):
        time += chance.expovariate(workers)
        worker = chance.randrange(workers)
        event = usage = ""
        if number % 20 == 7:
            event = "sample"
            usage = f'"{json.dumps([chance.random() * 100 for _ in busy])}","{json.dumps([2**24] * workers)}"'
        elif down and chance.random() < 0.5:
            event, worker = "replaced", down.pop()
            busy[worker] = 0
        elif worker not in down and chance.random() < 10 / rows:
            event = "lost"
            busy[worker] = 1
            down.append(worker)
        elif worker in down:
            continue
        else:
            event = "free" if busy[worker] else "acquire"
            finished += busy[worker]
            busy[worker] = 1 - busy[worker]
        waiting = chance.randrange(4)
        lines.append(f'{number},{time:.6f},"{busy}",{finished},0,{waiting},{usage or ","},{event}\n')
    path = folder / "profile.csv"
    path.write_text(HEADER + "".join(lines))
    return read_profile(path)


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """The pairs of texts whose boxes overlap by more than a hair."""
    drawn: list[Text] = []
    draw = Text.draw

    def note_and_draw(text: Text, renderer: Any) -> None:
        drawn.append(text)
        draw(text, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # Finds the layout.
    with mock.patch.object(Text, "draw", note_and_draw):
        canvas.draw()
    renderer = canvas.get_renderer()
    inside = [
        (text.get_text(), text.get_window_extent(renderer)) for text in drawn if text.get_text().strip()
    ]
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(inside, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5
    ]


@pytest.mark.parametrize(("workers", "rows"), [(1, 200), (4, 400), (16, 3000), (64, 5000), (64, 100_000)])
def test_a_profile_of_any_size_is_drawn(tmp_path: Path, workers: int, rows: int):
    profile = make_profile(tmp_path, workers, rows)
    resources = plots.resources(profile)
    assert resources is not None
    for figure in (plots.busy(profile, 18811), plots.throughput(profile), resources):
        assert overlapping(figure) == []
        for axes in figure.axes:
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title()


@pytest.mark.parametrize(
    "content",
    [
        HEADER + '0,1.5,"[0]",0,0,0,,,start\n',
        HEADER + '0,1.5,"[0, 1]",0,0,0,"[0, 0]","[1, 2]",sample\n',
        HEADER + '0,1.5,"[0]",0,0,0,,,start\n1,2.5,"[1]",0,0,0,,,acquire\n2,3.5,"[1]",0,0,0,,,lost\n',
        ',Timestamp,Busy,Finished\n0,1.5,"[0, 0, 0]",0\n',
        ',Timestamp,Busy,Finished\n0,1.5,"[0]",0\n1,1.5,"[1]",0\n2,1.5,"[0]",1\n',
    ],
    ids=["one row", "one sample", "no task finished", "old, one row", "no time passes"],
)
def test_a_profile_with_next_to_nothing_in_it_is_drawn(tmp_path: Path, content: str):
    path = tmp_path / "profile.csv"
    path.write_text(content)
    profile = read_profile(path)
    for figure in (plots.busy(profile, None), plots.throughput(profile), plots.resources(profile)):
        if figure is not None:
            assert overlapping(figure) == []


def test_the_share_of_time_busy_is_that_of_the_time(tmp_path: Path):
    path = tmp_path / "profile.csv"
    path.write_text(',Timestamp,Busy,Finished\n0,0,"[1, 0]",0\n1,3,"[0, 1]",0\n2,4,"[0, 0]",0\n')
    figure = plots.busy(read_profile(path), 18811)
    lanes, shares = figure.axes
    assert [label.get_text() for label in shares.get_yticklabels()] == ["75%", "25%"]
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["worker 1  :18812", "worker 2  :18813"]


@pytest.mark.parametrize("size", [1, 4, 8])
def test_a_sweep_of_any_size_is_drawn(size: int):
    cells = pd.DataFrame(
        [(w, c, 0.99 * ideal(w, c, 5, 3)) for w in range(1, size + 1) for c in range(1, size + 1)],
        columns=["Workers", "Functions", "Throughput"],
    )
    assert overlapping(benchmark(cells, 5, 3)) == []
    if size > 1:
        assert overlapping(benchmark(cells.drop(index=1), 5, 3)) == []
