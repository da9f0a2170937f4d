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
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from distribute_challenge.pictures import plots
from distribute_challenge.pictures.efficiency import benchmark, ideal
from distribute_challenge.pictures.losses import marks
from distribute_challenge.pictures.reading import Profile, read_profile

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


def test_without_time_the_axis_is_a_second_long(tmp_path: Path):
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + '0,1.5,"[0, 1]",0,0,0,"[0, 0]","[1, 2]",sample\n')
    profile = read_profile(path)
    for figure in (plots.busy(profile, None), plots.throughput(profile), plots.resources(profile)):
        assert figure is not None
        assert all(axes.get_xlim() == (0, 1) for axes in figure.axes)


@pytest.mark.parametrize("workers", [2, 16])
def test_all_figures_of_a_profile_have_the_same_time_axis(tmp_path: Path, workers: int):
    profile = make_profile(tmp_path, workers, 200)
    figures = plots.busy(profile, None), plots.throughput(profile), plots.resources(profile)
    for figure in figures:
        assert figure is not None
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert {axes.get_xlim() for axes in panels} == {(0, profile.seconds[-1])}


def test_a_sample_covers_the_time_before_it(tmp_path: Path):
    lists = f'"{[1] * 9}"'
    rows = [f'{n},{time},"{[0] * 9}",0,0,0,{lists},{lists},sample\n' for n, time in enumerate((10, 12, 13))]
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + f'0,8,"{[0] * 9}",0,0,0,,,start\n' + "".join(rows))
    figure = plots.resources(read_profile(path))
    assert figure is not None
    (mesh,) = (part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert mesh.get_coordinates()[0, :, 0].tolist() == [0, 2, 4, 5]


def test_the_overall_throughput_is_drawn_where_there_was_work(tmp_path: Path):
    rows = ((0, "start"), (5, "acquire"), (9, "free"), (20, "stop"))
    text = "".join(
        f'{n},{time},"[0]",{int(time > 5)},0,0,,,{event}\n' for n, (time, event) in enumerate(rows)
    )
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + text)
    _, overall = plots.throughput(read_profile(path)).axes[0].get_lines()
    assert list(overall.get_xdata()) == [5, 9]
    assert list(overall.get_ydata()) == [0.25, 0.25]


@pytest.mark.parametrize(
    ("end", "throughput", "window"),
    [
        (100, 1, 10),
        (100, 100, 5),
        (15, 0.33, 5),
        (25, 0.95, 10),
        (1e-6, 1e6, 5e-7),
        (10, 0, 0.5),
        (3, 0.3, 1),
    ],
)
def test_several_tasks_finish_in_the_sliding_window(end: float, throughput: float, window: float):
    assert plots.window_s(end, throughput) == pytest.approx(window)


START, LEASED = '0,1,"[0, 0]",0,0,0,,,start\n', '1,2,"[1, 0]",0,0,0,,,acquire\n'
LOST_LEASED = START + LEASED + '2,3,"[1, 0]",0,0,0,,,lost\n'


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (LOST_LEASED, [("lost", 2, None)]),
        (LOST_LEASED + '3,5,"[0, 0]",0,0,0,,,replaced\n', [("lost", 2, 0), ("replaced", 4, 0)]),
        (LOST_LEASED + '3,5,"[1, 0]",0,0,0,,,replaced\n', [("lost", 2, None), ("replaced", 4, None)]),
        (
            START + '1,3,"[0, 1]",0,0,0,,,lost\n2,5,"[0, 0]",0,0,0,,,replaced\n',
            [("lost", 2, 1), ("replaced", 4, 1)],
        ),
        (
            LOST_LEASED.replace("[0, 0]", "[0]").replace("[1, 0]", "[1]"),
            [("lost", 2, 0)],
        ),
    ],
    ids=["never replaced", "free after it", "handed over at once", "lost while free", "the only one"],
)
def test_which_worker_was_lost_is_told_from_the_rows(
    tmp_path: Path, rows: str, expected: list[tuple[str, float, int | None]]
):
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + rows)
    profile = read_profile(path)
    assert marks(profile) == expected
    figure = plots.busy(profile, 18811)
    assert overlapping(figure) == []
    lanes = figure.axes[0]
    legend = lanes.get_legend()
    assert legend is not None
    is_unknown = any(lane is None for _, _, lane in expected)
    assert any("above: worker unknown" in text.get_text() for text in legend.get_texts()) == is_unknown
    assert (lanes.get_ylim()[1] < -0.5) == is_unknown


@pytest.mark.parametrize("size", [1, 4, 8, 9, 16, 40])
def test_a_sweep_of_any_size_is_drawn(size: int):
    counts = range(1, size + 1)
    cells = pd.DataFrame(
        [(w, c, 0.99 * ideal(w, c, 5, 3)) for w in counts for c in counts],
        columns=["Workers", "Functions", "Throughput"],
    )
    figure = benchmark(cells, 5, 3)
    assert overlapping(figure) == []
    colors = {line.get_color() for line in figure.axes[0].get_lines() if line.get_marker() == "o"}
    assert len(colors) == size
    if size > 1:
        assert overlapping(benchmark(cells.drop(index=1), 5, 3)) == []


@pytest.mark.parametrize(("workers", "clients"), [(16, 2), (2, 16), (4, 1), (40, 4)])
def test_a_sweep_of_any_shape_is_drawn(workers: int, clients: int):
    cells = pd.DataFrame(
        [(w, c, 0.99 * ideal(w, c, 5, 3)) for w in range(1, workers + 1) for c in range(1, clients + 1)],
        columns=["Workers", "Functions", "Throughput"],
    )
    assert overlapping(benchmark(cells, 5, 3)) == []
