"""What is made of measurements: medians, ratios, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import figure, results, table
from benchmarks.peers.cases import CASES, TARGETS, Target
from benchmarks.peers.heavy import chunked
from benchmarks.peers.rivals import PEERS

LONE = Target("lone", "ray", 0.2)


@pytest.fixture
def measured() -> results.Results:
    some = results.Results()
    for number, (ours, theirs) in enumerate([(1e-4, 1e-3), (3e-4, 1e-3), (9e-4, 9e-3)]):
        some.add("lone", "pool", number, ours, "1")
        some.add("lone", "ray", number, theirs, "2")
    some.add("map", "pool", 0, 2e6, "1", "its own choice")
    some.add("map", "processpool", 0, 1e6, "3.12.1", "chunks of 100")
    return some


def test_a_ratio_is_the_median_of_those_of_the_rounds(measured: results.Results):
    assert measured.value("lone", "pool") == 300  # µs
    assert measured.ratio(LONE) == pytest.approx(0.1)


def test_a_ratio_to_what_was_not_measured_is_none(measured: results.Results):
    assert measured.ratio(Target("lone", "dask", 1)) is None


def test_a_round_that_one_side_lacks_does_not_count(measured: results.Results):
    measured.add("lone", "pool", 3, 1.0, "1")
    assert measured.ratio(LONE) == pytest.approx(0.1)


def test_results_survive_their_file(measured: results.Results, tmp_path: Path):
    measured.write(tmp_path / "results.csv")
    assert results.read(tmp_path / "results.csv").rows == measured.rows


def test_the_table_says_what_is_kept_and_what_is_not(measured: results.Results):
    text = table.text(measured)
    assert "| a lone no-op, there and back | Ray | ≤ 0.2 | 0.1 | kept |" in text
    assert "| 100,000 no-ops through `map` | ProcessPoolExecutor, fork | ≥ 1.2 | 2 | kept |" in text
    for number in range(3, 9):
        measured.add("lone", "pool", number, 5e-3, "1")
        measured.add("lone", "ray", number, 1e-3, "2")
    assert "| a lone no-op, there and back | Ray | ≤ 0.2 | 5 | **falls short** |" in table.text(measured)


def test_the_table_takes_the_place_of_the_one_before(
    measured: results.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(table, "README", readme)
    table.put_into_readme(measured)
    assert readme.read_text() == f"before\n{table.BEGIN}\n{table.text(measured)}\n{table.END}\nafter\n"


def test_the_figure_has_a_panel_for_each_case_and_one_that_explains(measured: results.Results):
    drawn = figure.draw(measured)
    assert [axes.get_title(loc="left") for axes in drawn.axes[:2]] == [
        "A lone no-op, there and back",
        "100,000 no-ops through map",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1234.5, "calls/s", "1,230/s"), (1234567, "calls/s", "1.23 M/s"), (0.4567, "s", "0.457 s")],
)
def test_values_have_three_digits(value: float, unit: str, text: str):
    assert table.shown(value, unit) == text


def test_every_promise_is_about_something_that_is_measured():
    for target in TARGETS:
        assert target.case in CASES
        if target.one == "pool":
            assert target.case in PEERS[target.other].cases


def test_the_last_chunk_may_be_shorter():
    assert chunked([1, 2, 3], 2) == [[1, 2], [3]]
