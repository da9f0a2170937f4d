"""A record that is read as it grows is what it would be if read at once; and what is wrong is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.live.data.record import HELD, LATEST, MOST_NAMES, Names, Record
from distribute_challenge.pictures.live.data.series import Functions, Series
from distribute_challenge.pictures.reading import read_profile
from distribute_challenge.pictures.tasks import read_tasks, summarize
from distribute_challenge.record.tasks import DONE, FAILED, LOST, tasks_path
from tests.records import BEGAN, Row, random_rows, write_profile, write_tasks

PORTS = [18812, 18813, 18814]


def write(folder: Path, rows: list[Row], seconds: int = 30) -> Path:
    path = folder / "p.csv"
    write_profile(path, len(PORTS), seconds)
    write_tasks(path, rows, PORTS)
    return path


def shown(record: Record) -> dict[int, int]:
    """How many functions are in the shapes of each window."""
    return {
        number: sum(
            int(rows["number"].sum()) for layer in level.layers if (rows := layer.since(0)) is not None
        )
        for number, level in enumerate(record.levels)
    }


@pytest.mark.parametrize("step", [1000, 4097])
def test_a_record_that_grows_is_the_same_as_one_read_at_once(tmp_path: Path, step: int):
    rows = random_rows(600, 3)
    path = write(tmp_path, rows)
    whole = Record.read(path)
    contents = {file: file.read_bytes() for file in (path, tasks_path(path))}
    heads = {file: sum(map(len, content.splitlines(keepends=True)[:6])) for file, content in contents.items()}
    for file, content in contents.items():
        file.write_bytes(content[: heads[file]])
    grown = Record.read(path)
    for end in range(step, max(map(len, contents.values())) + step, step):
        for file, content in contents.items():  # Rows may be cut anywhere.
            file.write_bytes(content[: max(end, heads[file])])
        grown.update()
    assert grown.problem is None
    assert grown.statuses == whole.statuses
    assert sum(whole.statuses.values()) == sum(row.count for row in rows)
    assert (grown.now, grown.waiting) == (whole.now, whole.waiting)
    assert shown(grown)[1] == shown(whole)[1] == sum(row.count for row in rows)
    assert list(grown.failures) == list(whole.failures)
    assert grown.workers.busy_since.tolist() == whole.workers.busy_since.tolist()
    by_name = [
        {
            record.functions.names[number]: int(record.figures.tasks[number])
            for number in record.figures.by_time(99)
        }
        for record in (whole, grown)
    ]
    assert by_name[0] == by_name[1]
    for one, other in zip(whole.series, grown.series, strict=True):
        columns = (series.columns(whole.began, whole.now, whole.began) for series in (one, other))
        for left, right in zip(*(part.values() for part in columns), strict=True):
            np.testing.assert_allclose(left, right)


@pytest.mark.parametrize(("rows", "near_to"), [(3000, 0.06), (200, 1e-6)])
def test_the_figures_of_functions_are_those_of_the_table(tmp_path: Path, rows: int, near_to: float):
    """Of few tasks exactly."""
    path = write(tmp_path, random_rows(rows, 3))
    record = Record.read(path)
    exact = summarize(read_tasks(tasks_path(path)))
    found = [record.figures.figures(number) for number in record.figures.by_time(99)]
    assert [record.functions.names[of.function] for of in found] == [of.function for of in exact]
    for near, of in zip(found, exact, strict=True):
        assert near[1:3] == of[1:3]
        assert near[3:] == pytest.approx(of[3:], rel=near_to)


def test_figures_of_what_nobody_said_since_when_it_waited_are_unknown():
    functions = Functions(2)
    rows = np.array([1], np.int32), np.array([4]), np.array([0.0]), np.array([math.nan]), np.array([False])
    functions.add(*rows)
    found = functions.figures(1)
    assert (found.tasks, found.total, found.run_median) == (4, 0, 0)
    assert all(math.isnan(wait) for wait in found[-3:])


def test_failures_are_kept_with_their_text_and_only_the_newest(tmp_path: Path):
    failed = [Row("f", n % 2, n, n + 0.5, 1, FAILED, f"ValueError: {n}") for n in range(1, LATEST + 3)]
    record = Record.read(write(tmp_path, [*failed, Row("f", 2, 1, 20, 3, LOST, "WorkerLost: exit code 3")]))
    assert len(record.failures) == LATEST
    newest = record.failures[-1]
    assert (newest.function, newest.lane, newest.number, newest.status) == ("f", 2, 3, LOST)
    assert newest.error == "WorkerLost: exit code 3"


def test_a_record_without_tasks_shows_when_workers_were_held(tmp_path: Path):
    path = tmp_path / "old.csv"
    path.write_text(
        ",Timestamp,Busy,Finished\n"
        '0,100,"[0, 0]",0\n1,101,"[1, 0]",0\n2,105,"[0, 1]",1.0\n3,107,"[0, 0]",3.0\n'
    )
    record = Record.read(path)
    rows = [rows for layer in record.levels[0].layers if (rows := layer.since(0)) is not None]
    found = sorted(
        (int(lane), left, right)
        for part in rows
        for lane, left, right in zip(part["lane"], part["left"], part["right"], strict=True)
    )
    assert found == [(0, 101, 105), (1, 105, 107)]
    assert HELD in record.functions.names
    assert record.statuses[DONE] == 3


def test_a_broken_row_is_said_with_its_line_and_what_came_before_stays(tmp_path: Path):
    path = write(tmp_path, [Row("f", 0, 1, 2)])
    record = Record.read(path)
    with tasks_path(path).open("a") as file:
        file.write("1,f,a.py:7,18812,,105,104,1,0.1,done,1,1,,\n")
    record.update()
    assert record.problem is not None
    assert f"{tasks_path(path)}, line 3: Ended is before Started" in record.problem
    record.update()
    assert record.statuses[DONE] == 1
    with pytest.raises(ProfileFormatError, match="line 3"):
        Record.read(path)


def test_another_record_in_its_place_is_noticed(tmp_path: Path):
    path = write(tmp_path, [Row("f", 0, 1, 2)])
    record = Record.read(path)
    assert not record.is_replaced
    path.rename(tmp_path / "older.csv")
    assert not record.is_replaced
    write_profile(path, 2, 5)
    assert record.is_replaced


def test_too_many_functions_are_one(tmp_path: Path):
    names = Names()
    many = tuple(f"f{number}" for number in range(MOST_NAMES + 5))
    numbers = names.numbers(many)
    assert len(names.names) == MOST_NAMES
    assert numbers[-1] == 0
    assert names.numbers(("f0",)).tolist() == [numbers[0]]


def test_a_series_adds_up_whenever_its_parts_come():
    series = Series(60, 1)
    series.move_to(BEGAN + 60)
    series.add("done", BEGAN + np.array([0.5, 10.2, 10.9]), np.array([1.0, 2.0, 3.0]))
    series.add("done", BEGAN + np.array([5.0, -100.0]), np.array([4.0, 99.0]))
    series.raise_to("clients", BEGAN + np.array([10.1, 10.2]), np.array([7.0, 3.0]))
    columns = series.columns(BEGAN, BEGAN + 60, BEGAN)
    assert columns["done"].sum() == 10
    assert columns["clients"].max() == 7
    series.move_to(BEGAN + 65)
    assert series.columns(BEGAN, BEGAN + 65, BEGAN)["done"].sum() == 9  # The first is out of the window.
    series.move_to(BEGAN + 1000)
    assert series.columns(BEGAN, BEGAN + 1000, BEGAN)["done"].sum() == 0


def test_rates_are_right_in_the_first_step_of_a_window_and_of_a_record():
    series = Series(600, 2)
    began = BEGAN + 1  # In the middle of a step.
    series.move_to(BEGAN + 600)
    series.add("done", BEGAN + np.array([1.5, 301.5]), np.array([3.0, 8.0]))
    assert series.columns(began, BEGAN + 600, began)["done"][0] == 3
    assert series.columns(BEGAN + 301.9, BEGAN + 600, began)["done"][0] == 4


def test_of_a_record_that_is_over_the_last_step_is_shown_too():
    series = Series(60, 1)
    series.move_to(BEGAN + 3.5)
    series.add("done", BEGAN + np.array([0.5, 3.25]), np.array([1.0, 2.0]))
    assert series.columns(BEGAN, BEGAN + 3.5, BEGAN)["done"].tolist() == [1, 0, 0]
    assert series.columns(BEGAN, BEGAN + 3.5, BEGAN, is_over=True)["done"].tolist() == [1, 0, 0, 4]


def test_a_sample_holds_until_the_next_one():
    series = Series(60, 1)
    series.move_to(BEGAN + 60)
    at, cpu, memory = (
        BEGAN + np.array([20.2, 20.7, 30.5]),
        np.array([10.0, 20.0, 90.0]),
        np.array([1.0, 3.0, 5.0]),
    )
    series.sample(at, cpu, memory)
    columns = series.columns(BEGAN, BEGAN + 60, BEGAN)
    assert np.isnan(columns["cpu_percent"][:20]).all()
    assert columns["cpu_percent"][20:30].tolist() == [15] * 10
    assert columns["memory_bytes"][30:].tolist() == [5] * len(columns["time"][30:])


def test_a_window_that_holds_all_has_each_task_for_itself_if_they_are_few(tmp_path: Path):
    rows = random_rows(500, 3)
    path = write(tmp_path, rows)
    for most, is_exact in ((1000, True), (30, False)):
        record = Record(read_profile(path), read_tasks(tasks_path(path)), {}, whole=most)
        (level,) = record.levels
        assert level.is_exact == is_exact
        assert shown(record)[0] == sum(row.count for row in rows)
