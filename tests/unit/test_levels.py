"""Shapes of tasks: none is left out, and there are no more than fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.pictures.live.data.levels import LATE_S, MOST_ALONE, Batch, Level, Stream
from distribute_challenge.record.tasks import KILLED, STATUSES

NOW = 1000.0
times = st.integers(0, 9000).map(lambda tenths: NOW - 100 + tenths / 100)
lengths = st.sampled_from([0.0, 0.001, 0.3, 0.99, 1.0, 2.5, 40.0])
tasks = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 4), times, lengths, st.integers(1, 9), st.sampled_from([0, 0, 1, 4])
    )
)


def batch(rows: list[tuple[int, int, float, float, int, int]]) -> Batch:
    """Rows: lane, function, begin, length, how many functions, status."""
    lane, function, started, length, number, status = np.array(rows, float).reshape(-1, 6).T
    return Batch(
        *(lane.astype(np.int32), function.astype(np.int32), np.zeros(len(lane), np.int32), started),
        *(started + length, number.astype(np.int64), status.astype(np.int8), np.full(len(lane), "", object)),
    )


def shapes(level: Level) -> dict[str, np.ndarray]:
    parts = [part for layer in level.layers if (part := layer.since(0)) is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


@given(tasks, st.integers(0, 20))
def test_every_function_is_in_one_shape_however_tasks_come(rows, cut):
    level = Level(100, 1)
    for part in (rows[:cut], rows[cut:]):
        level.add(batch(part), NOW)
    level.add(batch([]), NOW, is_over=True)
    found = shapes(level)
    assert sum(found.get("number", [])) == sum(row[4] for row in rows)
    assert sum(found.get("failed", [])) == sum(row[4] for row in rows if row[5])
    for lane in range(3):
        in_lane = [row[4] for row in rows if row[0] == lane]
        assert sum(found["number"][found["lane"] == lane]) == sum(in_lane) if found else not in_lane


@given(tasks)
def test_a_task_as_long_as_a_stretch_is_a_shape_of_its_own(rows):
    level = Level(100, 1)
    level.add(batch(rows), NOW, is_over=True)
    expected = sorted((row[2], row[0], row[4]) for row in rows if (row[2] + row[3]) - row[2] >= 1)
    found = shapes(level)
    if found:
        is_long = (found["right"] - found["left"] >= 1) & (found["share"] == 1) & (found["client"] >= 0)
        alone = zip(*(found[name][is_long].tolist() for name in ("left", "lane", "number")), strict=True)
        assert set(expected) <= set(alone)


def test_of_what_is_short_there_are_no_more_shapes_than_stretches():
    level = Level(100, 1)
    rows = [(0, number % 3, NOW - 90 + number / 100, 0.009, 1, 0) for number in range(8000)]
    level.add(batch(rows), NOW, is_over=True)
    found = shapes(level)
    assert len(found["left"]) == 80
    np.testing.assert_allclose(found["share"], 0.9, rtol=1e-3)
    assert set(found["others"].tolist()) == {2}
    assert (found["right"] - found["left"]).tolist() == pytest.approx([1] * 80)


def test_a_stretch_has_the_function_that_took_most_of_it():
    level = Level(100, 1)
    rows = [(0, 1, NOW - 50, 0.2, 1, 0), (0, 2, NOW - 49.7, 0.3, 1, 0), (0, 1, NOW - 49.3, 0.2, 1, 0)]
    level.add(batch(rows), NOW, is_over=True)
    found = shapes(level)
    assert (found["function"].tolist(), found["number"].tolist()) == ([1], [3])


def test_a_task_that_took_its_worker_along_is_a_shape_of_its_own_however_short():
    level = Level(100, 1)
    rows = [
        (0, 1, NOW - 50, 0.1, 1, 0),
        (0, 2, NOW - 49.9, 0.1, 1, STATUSES.index(KILLED)),
        (0, 1, NOW - 49.5, 0.1, 1, 1),
    ]
    level.add(batch(rows), NOW, is_over=True)
    found = shapes(level)
    assert sorted(zip(found["function"].tolist(), found["failed"].tolist(), strict=True)) == [(1, 1), (2, 1)]


def test_of_very_many_tasks_that_took_their_workers_along_there_are_no_more_shapes_than_fit():
    level = Level(100, 1)
    killed = STATUSES.index(KILLED)
    level.add(
        batch([(0, 1, NOW - 90 + n / 100, 0.005, 1, killed) for n in range(MOST_ALONE + 1)]),
        NOW,
        is_over=True,
    )
    assert len(shapes(level)["left"]) == 21


def test_a_stretch_is_shown_once_it_is_over():
    level = Level(100, 1)
    rows = [(0, 1, NOW - 0.9, 0.1, 1, 0), (0, 1, NOW - 0.5, 0.1, 1, 0)]
    level.add(batch(rows), NOW)
    assert not shapes(level)
    level.add(batch([]), NOW + LATE_S)
    assert shapes(level)["number"].tolist() == [2]


def test_what_is_longer_is_drawn_below_what_can_run_within_it():
    level = Level(100, 0.01)
    level.add(
        batch([(0, 1, NOW - 60, 50, 1, 0), (0, 1, NOW - 55, 5, 1, 0), (0, 1, NOW - 54, 0.5, 1, 0)]), NOW
    )
    order = [
        length
        for layer in level.layers
        if (rows := layer.since(0))
        for length in rows["right"] - rows["left"]
    ]
    assert order == pytest.approx([50, 5, 0.5])


def test_a_stream_tells_what_was_added_since_and_forgets_what_is_old():
    stream = Stream()
    for number in range(5):
        stream.add(
            {"right": np.array([number, number + 0.5]), "name": np.array([f"a{number}", f"b{number}"])}
        )
    assert stream.since(7)["name"].tolist() == ["b3", "a4", "b4"]
    assert stream.since(10) is None
    stream.forget(3)
    assert (stream.added, stream.since(0)["name"].tolist()) == (10, ["a3", "b3", "a4", "b4"])
