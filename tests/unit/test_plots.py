"""Every figure can be drawn at every size, from every kind of file, and no text lies on another."""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from distribute_challenge.pictures.figures.busy import Run, busy, run_of
from distribute_challenge.pictures.figures.efficiency import benchmark, ideal
from distribute_challenge.pictures.figures.functions import functions
from distribute_challenge.pictures.figures.overview import overview
from distribute_challenge.pictures.figures.resources import Usage, resources, show_range
from distribute_challenge.pictures.figures.style import times_of_day
from distribute_challenge.pictures.figures.throughput import FEW, counter, throughput, window_s
from distribute_challenge.pictures.lanes import marks
from distribute_challenge.pictures.reading import Profile, read_profile
from distribute_challenge.pictures.tasks import read_tasks
from distribute_challenge.record import profile as profile_format
from distribute_challenge.record import tasks as tasks_format
from distribute_challenge.record.tasks import tasks_path

HEADER = ",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event\n"
PROFILE = profile_format.HEADER + (
    '0,1000.0,"[0, 0]",0,0,0,,,start,0,\n'
    '1,1001.0,"[1, 0]",0,0,0,,,acquire,0,0\n'
    '2,1001.5,"[1, 1]",0,0,0,,,acquire,0,1\n'
    '3,1009.0,"[0, 1]",3,0,0,,,free,0,0\n'
    '4,1009.5,"[0, 0]",4,0,0,,,free,0,1\n'
    '5,1010.0,"[0, 0]",4,0,0,,,stop,0,\n'
)


# How tasks of a made-up record end, with the chance of each.
ENDS = {"done": 90, "failed": 5, "timeout": 2, "killed": 1, "lost": 2}


def make_profile(folder: Path, workers: int, rows: int, *, with_tasks: bool = False) -> Profile:
    """A pool at random work, with losses, and a sample every twentieth row; with a tasks file if wanted.

    Each lease is a task then, and some are two, one within the other.
    """
    chance = random.Random(workers)
    busy = [0] * workers
    since = [0.0] * workers
    down: list[int] = []
    time, finished = 1.7e9, 0
    lines, tasks = [], []
    for number in range(rows):
        time += chance.expovariate(workers)
        worker = chance.randrange(workers)
        event = usage = about = ""
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
            if event == "acquire":
                since[worker] = time
            else:
                (status,) = chance.choices(list(ENDS), list(ENDS.values()))
                for within in range(chance.choice((1, 1, 1, 2))):
                    name = f"function_{chance.randrange(10)}"
                    spent = time - since[worker]
                    started = since[worker] + within * spent / 2
                    times = f"{since[worker] - 1:.6f},{started:.6f},{time:.6f}"
                    tasks.append(f"{name},a.py:7,{18812 + worker},{times},1,{spent:.6f},{status},1,1,,")
        about = "" if event == "sample" else str(worker)
        waiting = chance.randrange(4)
        counts = f"{finished},0,{waiting}"
        lines.append(f'{number},{time:.6f},"{busy}",{counts},{usage or ","},{event},{waiting * 9},{about}\n')
    path = folder / "profile.csv"
    path.write_text(profile_format.HEADER + "".join(lines))
    if with_tasks:
        rows_of_tasks = "".join(f"{number},{row}\n" for number, row in enumerate(tasks))
        tasks_path(path).write_text(tasks_format.HEADER + rows_of_tasks)
    return read_profile(path)


def run(folder: Path, rows: list[str], profile: str = PROFILE) -> Run:
    """A run of two workers for ten seconds, with these tasks."""
    path = folder / "p.csv"
    path.write_text(profile)
    text = "".join(f"{number},{row}\n" for number, row in enumerate(rows))
    tasks_path(path).write_text(tasks_format.HEADER + text)
    return run_of(read_profile(path), read_tasks(tasks_path(path)), 18811)


def all_figures(run: Run) -> dict[str, Figure]:
    found = {
        "busy": busy(run),
        "throughput": throughput(run.profile, run.tasks),
        "resources": resources(run.profile),
        "tasks": functions(run),
        "overview": overview(run),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """The pairs of texts whose boxes overlap by more than a hair."""
    drawn: list[Text] = []
    draw = Text.draw

    def note_and_draw(text: Text, renderer: Any) -> None:
        drawn.append(text)
        draw(text, renderer)

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # It has been found, and takes longer than to draw.
    with mock.patch.object(Text, "draw", note_and_draw):
        figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    inside = [
        (text.get_text(), text.get_window_extent(renderer)) for text in drawn if text.get_text().strip()
    ]
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(inside, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5
    ]


@pytest.mark.parametrize(
    ("workers", "rows", "with_tasks"),
    [(1, 200, True), (4, 400, False), (40, 4000, True)],
)
def test_a_record_of_any_size_is_drawn(tmp_path: Path, workers: int, rows: int, with_tasks: bool):
    profile = make_profile(tmp_path, workers, rows, with_tasks=with_tasks)
    tasks = read_tasks(tasks_path(profile.path)) if with_tasks else None
    figures = all_figures(run_of(profile, tasks, 18811))
    assert ("tasks" in figures) == with_tasks
    for figure in figures.values():
        assert overlapping(figure) == []
        for axes in figure.axes:
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title("left")


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
    for figure in all_figures(run_of(read_profile(path), None, None)).values():
        assert overlapping(figure) == []


def test_the_share_of_time_busy_is_that_of_the_time(tmp_path: Path):
    path = tmp_path / "profile.csv"
    path.write_text(',Timestamp,Busy,Finished\n0,0,"[1, 0]",0\n1,3,"[0, 1]",0\n2,4,"[0, 0]",0\n')
    figure = busy(run_of(read_profile(path), None, 18811))
    lanes, shares = figure.axes
    assert [label.get_text() for label in shares.get_yticklabels()] == ["75%", "25%"]
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["worker 1  :18812", "worker 2  :18813"]


def test_of_many_workers_the_mean_is_drawn_and_around_it_the_range():
    axes = Figure().subplots()
    values = np.array([[0.0, 100.0], [50.0, np.nan], [10.0, 30.0]])
    show_range(axes, Usage("CPU", np.arange(3.0), values, 100))
    (mean,) = axes.lines
    assert list(zip(*mean.get_data(), strict=True)) == [(0, 50), (1, 50), (2, 20)]
    (around,) = axes.collections
    corners = {(x, y) for x, y in around.get_paths()[0].vertices.tolist()}
    assert corners == {(0, 0), (0, 100), (1, 50), (2, 10), (2, 30)}
    assert [line.get_label() for line in (around, mean)] == ["from least to most", "mean of the workers"]


def test_without_time_the_axis_is_a_second_long(tmp_path: Path):
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + '0,1.5,"[0, 1]",0,0,0,"[0, 0]","[1, 2]",sample\n')
    for figure in all_figures(run_of(read_profile(path), None, None)).values():
        assert all(axes.get_xlim() == (0, 1) for axes in figure.axes)


@pytest.mark.parametrize("workers", [2, 16])
def test_all_figures_of_a_profile_have_the_same_time_axis(tmp_path: Path, workers: int):
    profile = make_profile(tmp_path, workers, 200)
    for figure in all_figures(run_of(profile, None, None)).values():
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert {axes.get_xlim() for axes in panels} == {(0, profile.seconds[-1])}


def test_a_sample_covers_the_time_before_it(tmp_path: Path):
    lists = f'"{[1] * 9}"'
    rows = [f'{n},{time},"{[0] * 9}",0,0,0,{lists},{lists},sample\n' for n, time in enumerate((10, 12, 13))]
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + f'0,8,"{[0] * 9}",0,0,0,,,start\n' + "".join(rows))
    figure = resources(read_profile(path))
    assert figure is not None
    (mesh,) = (part for part in figure.axes[0].collections if isinstance(part, QuadMesh))
    assert mesh.get_coordinates()[0, :, 0].tolist() == [0, 2, 4, 5]


def test_the_overall_throughput_is_drawn_where_there_was_work(tmp_path: Path):
    rows = [(0, "start", 0), (5, "acquire", 0), (9, "free", 2 * FEW), (20, "stop", 2 * FEW)]
    text = "".join(f'{n},{time},"[0]",{done},0,0,,,{event}\n' for n, (time, event, done) in enumerate(rows))
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + text)
    _, overall = throughput(read_profile(path)).axes[0].get_lines()
    assert list(overall.get_xdata()) == [5, 9]
    assert list(overall.get_ydata()) == [FEW / 2, FEW / 2]


def test_of_few_tasks_each_is_drawn_when_it_finished(tmp_path: Path):
    rows = ["f,c:1,18812,,1001,1004,1,3,done,1,1,,", "f,c:1,18812,,1004,1006,1,3,failed,1,1,,E: x"]
    rows.append("g,c:1,18813,,1002,1009,3,3,done,1,1,,")
    drawn = run(tmp_path, rows)
    _, dots, overall = throughput(drawn.profile, drawn.tasks).axes[0].get_lines()
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([4, 9], [1, 4])
    assert (list(overall.get_xdata()), list(overall.get_ydata())) == ([1, 9.5], [0, 4])


def test_what_a_row_stands_for_finished_one_after_another(tmp_path: Path):
    drawn = run(tmp_path, ["f,c:1,18812,,1001,1009,4,8,done,1,1,,", "f,c:1,18813,,1002,1005,1,3,done,1,1,,"])
    finished = counter(drawn.profile, drawn.tasks)
    assert finished(np.array([0.0, 1, 3, 5, 9, 10])).tolist() == pytest.approx([0, 0, 1, 3, 5, 5])


@pytest.mark.parametrize(
    ("end", "window"), [(100, 5), (15, 0.5), (25, 1), (1e-6, 5e-8), (39.9, 1), (7200, 200)]
)
def test_the_sliding_window_is_at_most_a_20th_of_the_record(end: float, window: float):
    assert window_s(end) == pytest.approx(window)


def test_the_sliding_window_lies_around_each_moment(tmp_path: Path):
    """A hundred tasks finish at once, in the middle of the record: the curve is as wide on both sides."""
    path = tmp_path / "profile.csv"
    path.write_text(',Timestamp,Busy,Finished\n0,0,"[1]",0\n1,50,"[0]",100\n2,100,"[0]",100\n')
    rates, _ = throughput(read_profile(path)).axes[0].get_lines()
    times = np.array(rates.get_xdata())[np.array(rates.get_ydata()) > 0]
    assert (times.min(), times.max()) == pytest.approx((47.5, 52.5), abs=0.2)


def test_times_in_which_nothing_was_asked_for_are_shown(tmp_path: Path):
    rows = [
        (0, 0, "start"),
        (1, 1, "acquire"),
        (3, 0, "free"),
        (8, 1, "acquire"),
        (9, 0, "free"),
        (20, 0, "stop"),
    ]
    text = "".join(f'{n},{time},"[{busy}]",{n},0,0,,,{event}\n' for n, (time, busy, event) in enumerate(rows))
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + text)
    profile = read_profile(path)
    assert (profile.idle, profile.idle_s) == ([(3, 8)], 5)
    legend = throughput(profile).axes[0].get_legend()
    assert legend is not None
    assert "nothing asked for" in [text.get_text() for text in legend.get_texts()]
    waiting = text.replace('3,8,"[1]",3,0,0', '3,8,"[1]",3,0,0').replace('2,3,"[0]",2,0,0', '2,3,"[0]",2,0,1')
    path.write_text(HEADER + waiting)
    assert read_profile(path).idle == []


def test_the_axes_of_cpu_and_memory_begin_at_0_and_reach_a_whole_core(tmp_path: Path):
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + '0,1.5,"[0, 1]",0,0,0,"[2, 1]","[0, 0]",sample\n')
    figure = resources(read_profile(path))
    assert figure is not None
    cpu, memory = figure.axes
    assert cpu.get_ylim()[0] == memory.get_ylim()[0] == 0
    assert cpu.get_ylim()[1] >= 100
    assert memory.get_ylim()[1] >= 1
    path.write_text(HEADER + f'0,1.5,"[0, 1]",0,0,0,"[250, 1]","[0, {2**31}]",sample\n')
    figure = resources(read_profile(path))
    assert figure is not None
    cpu, memory = figure.axes
    assert cpu.get_ylim()[1] >= 250
    assert (memory.get_ylabel(), memory.get_ylim()[1] >= 2) == ("memory (GiB)", True)


@pytest.mark.parametrize(
    ("length", "labels"),
    [
        (0.01, ["01:46:40.000", "01:46:40.002", "01:46:40.004"]),
        (3, ["01:46:40.0", "01:46:40.5", "01:46:41.0"]),
        (40, ["01:46:40", "01:46:50", "01:47:00"]),
        (600, ["01:48", "01:50", "01:52"]),
        (70_000, ["03:00", "06:00", "09:00"]),
        (200_000, ["12:00", "09-10", "12:00"]),
        (5e6, ["09-19", "09-29", "10-09"]),
    ],
)
def test_ticks_are_where_the_time_of_day_is_round(
    monkeypatch: pytest.MonkeyPatch, length: float, labels: list[str]
):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    ticks = times_of_day(1e9, length)
    assert ticks.labels[:3] == labels
    assert ticks.name == "time of day (2001-09-09, UTC+00:00)"
    assert all(-1e-8 <= place <= length + 1e-8 for place in ticks.places)
    assert 3 <= len(ticks.places) <= 8


def test_the_time_of_day_is_that_of_the_zone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    ticks = times_of_day(1e9, 7200)
    assert (ticks.places[0], ticks.labels[0]) == (800, "07:30")
    assert ticks.name.endswith("UTC+05:30)")


def blocks_in(figure: Figure) -> dict[str, list[tuple[float, ...]]]:
    """Left, right and lower edge of all blocks that are drawn, by their colours."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for part in figure.axes[0].collections:
        if isinstance(part, PolyCollection):
            for path, color in zip(part.get_paths(), part.get_facecolor(), strict=True):
                (x0, y0), (x1, _) = path.vertices.min(axis=0), path.vertices.max(axis=0)
                found.setdefault(to_hex(color).upper(), []).append((round(x0, 3), round(x1, 3), round(y0, 3)))
    return found


def test_each_task_is_a_block_of_its_functions_colour_with_a_gap_before_the_next(tmp_path: Path):
    rows = [
        "long,c:1,18812,,1001,1004,1,3,done,1,1,,",
        "long,c:1,18812,,1004,1008,1,4,done,1,1,,",
        "short,c:1,18813,,1002,1003,1,1,done,1,1,,",
    ]
    figure = busy(run(tmp_path, rows))
    found = blocks_in(figure)
    (first, second), (short,) = found["#0072B2"], found["#E69F00"]
    assert (first[0], second[0], short[0]) == (1, 4, 2)
    assert 3.98 < first[1] < second[0] < 7.98 < second[1] < 8
    assert (first[2], short[2]) == (-0.375, 0.625)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["long", "short", "held by a client, or being replaced"]


def test_a_task_within_a_task_is_within_its_block(tmp_path: Path):
    rows = ["in,c:1,18812,,1002,1003,1,1,done,1,1,,", "out,c:1,18812,,1001,1004,1,3,done,1,1,,"]
    found = blocks_in(busy(run(tmp_path, rows)))
    ((x0, x1, y),), ((a0, a1, b),) = found["#0072B2"], found["#E69F00"]
    assert x0 < a0 < a1 < x1
    assert y < b


def test_the_seven_functions_with_most_time_have_colours_and_the_rest_is_grey(tmp_path: Path):
    rows = [f"f{n},c:1,18812,,{1001 + n / 10},{1001.1 + n / 10},1,{n + 1},done,1,1,," for n in range(10)]
    figure = busy(run(tmp_path, rows))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:8] == [*(f"f{n}" for n in range(9, 2, -1)), "3 other functions"]
    found = blocks_in(figure)
    assert len(found["#8C8C8C"]) == 3
    # One that is alone among the others is named.
    figure = busy(run(tmp_path, rows[:8]))
    assert [text.get_text() for text in figure.legends[0].get_texts()][:8] == [
        f"f{n}" for n in range(7, -1, -1)
    ]


def test_each_way_to_end_has_a_mark_of_its_own(tmp_path: Path):
    """A worker's loss of which a task's mark tells has none; that of an idle worker has."""
    names = ("failed", "timeout", "killed", "lost")
    rows = [f"f,c:1,18812,,{1001 + n},{1002 + n},2,1,{name},1,1,,E: x" for n, name in enumerate(names)]
    losses = (
        '6,1011.0,"[1, 0]",4,1,0,,,lost,0,0\n'
        '7,1020.0,"[1, 1]",4,1,0,,,lost,0,1\n'
        '8,1021.0,"[0, 1]",4,1,0,,,replaced,0,0\n'
        '9,1021.0,"[0, 0]",4,1,0,,,replaced,0,1\n'
    )
    rows[-1] = "f,c:1,18812,,1010,1011,2,1,lost,1,0,,WorkerLost: x"
    figure = busy(run(tmp_path, rows, PROFILE + losses))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[2:] == [*(f"{name} (2)" for name in names), "worker lost (1)", "worker replaced (2)"]
    marks = [part for part in figure.axes[0].collections if isinstance(part, PathCollection)]
    shapes = {(part.get_paths()[0].vertices.tobytes(), part.get_facecolor().tobytes()) for part in marks}
    assert len(shapes) == len(marks) == 6


def test_a_loss_and_a_replacement_at_one_time_do_not_hide_each_other(tmp_path: Path):
    both = '6,1011.0,"[0, 1]",4,1,0,,,lost,0,1\n7,1011.0,"[0, 0]",4,1,0,,,replaced,0,1\n'
    figure = busy(run(tmp_path, [], PROFILE + both))
    lost, replaced = (
        part.get_offsets()[0] for part in figure.axes[0].collections if isinstance(part, PathCollection)
    )
    assert lost[0] == replaced[0] == 11
    assert replaced[1] - lost[1] > 0.3


def test_a_worker_that_is_handed_over_without_a_pause_has_two_blocks(tmp_path: Path):
    path = tmp_path / "p.csv"
    rows = PROFILE.replace("4,1009.5", '4,1009.2,"[0, 1]",4,0,0,,,acquire,0,1\n5,1009.5').replace(
        "5,1010", "6,1010"
    )
    path.write_text(rows)
    found = blocks_in(busy(run_of(read_profile(path), None, None)))["#0072B2"]
    assert [block[0] for block in found] == [1, 1.5, 9.2]


def test_short_tasks_are_shaded_by_their_share_of_time(tmp_path: Path):
    """Worker 1 is busy for half of the time, by turns, and worker 2 all of it, with one long task."""
    short = [
        f"short,c:1,18812,,{1000 + n / 400},{1000 + n / 400 + 0.00125},1,0.1,done,1,1,," for n in range(4000)
    ]
    figure = busy(run(tmp_path, [*short, "long,c:1,18813,,1000,1010,1,10,done,1,1,,"]))
    (image,) = figure.axes[0].get_images()
    pixels = np.array(image.get_array())
    lane = pixels[pixels.shape[0] // 4]
    assert lane[:, 3].mean() == pytest.approx(0.25 + 0.75 / 2, abs=0.02)
    assert to_hex(lane[700, :3]).upper() == "#0072B2"
    assert pixels[pixels.shape[0] * 3 // 4, :, 3].max() == 0
    assert len(blocks_in(figure)["#E69F00"]) == 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "paler: busy for a part of each 6.67 ms"


def test_run_and_waiting_times_are_drawn_beside_each_other(tmp_path: Path):
    rows = ["f,c:1,18812,1000.5,1001,1004,2,3,done,1,1,,", "g,c:1,18812,,1004,1008,1,4,done,1,1,,"]
    figure = functions(run(tmp_path, rows))
    assert figure is not None
    runs, waits = figure.axes
    assert [label.get_text() for label in runs.get_yticklabels()] == ["g\n(1)", "f\n(2)"]
    dots = [line.get_xdata()[0] for line in runs.get_lines() if line.get_marker() == "o"]
    assert dots == [4, 1.5]
    assert [line.get_xdata()[0] for line in waits.get_lines() if line.get_marker() == "o"] == [0.5]
    assert [text.get_text() for text in waits.texts] == ["unknown"]


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
    figure = busy(run_of(profile, None, 18811))
    assert overlapping(figure) == []
    lanes = figure.axes[0]
    (legend,) = figure.legends
    is_unknown = any(lane is None for _, _, lane in expected)
    assert any("above: worker unknown" in text.get_text() for text in legend.get_texts()) == is_unknown
    assert (lanes.get_ylim()[1] < -0.5) == is_unknown


@pytest.mark.parametrize("size", [1, 9, 40])
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
