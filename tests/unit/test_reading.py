"""Profiles as arrays; and what is wrong with those that are none, with its line."""

from __future__ import annotations

import csv
import io
import itertools
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.reading import read_profile, read_sweep
from distribute_challenge.record import faults

HEADER = ",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event\n"
SWEEP = "Workers,Functions,Throughput\n"
ROWS = (
    '0,100.0,"[0, 0]",0,0,0,,,start\n'
    '1,101.0,"[1, 0]",0,0,2,,,acquire\n'
    '2,102.5,"[1, 0]",0,0,1,"[50.0, null]","[1024, null]",sample\n'
    '3,103.0,"[0, 0]",1,0,0,,,free\n'
    '4,109.0,"[0, 0]",1,0,0,,,stop\n'
)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "profile.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_profile_is_read_as_it_was_written(tmp_path: Path):
    profile = read_profile(write(tmp_path, HEADER + ROWS))
    assert profile.seconds.tolist() == [0, 1, 2.5, 3, 9]
    assert profile.busy.tolist() == [[0, 0], [1, 0], [1, 0], [0, 0], [0, 0]]
    assert profile.finished.tolist() == [0, 0, 0, 1, 1]
    assert profile.waiting is not None
    assert profile.waiting.tolist() == [0, 2, 1, 0, 0]
    assert profile.sampled.tolist() == [2.5]
    assert profile.cpu_percent is not None
    np.testing.assert_array_equal(profile.cpu_percent, [[50, np.nan]])
    assert profile.span_s == (1, 3)
    assert profile.throughput == 0.5
    assert not profile.is_cut_short


def test_tasks_in_line_and_the_worker_of_each_row_are_read(tmp_path: Path):
    header = HEADER.replace("\n", ",Tasks,Worker\n")
    rows = ROWS.replace("start\n", "start,0,\n").replace("acquire\n", "acquire,7,0\n")
    rows = (
        rows.replace("sample\n", "sample,5,\n").replace("free\n", "free,3,1\n").replace("stop\n", "stop,0,\n")
    )
    path = write(tmp_path, header + rows)
    profile = read_profile(path)
    assert profile.tasks is not None
    assert profile.about is not None
    assert profile.tasks.tolist() == [0, 7, 5, 3, 0]
    assert profile.about.tolist() == [-1, 0, -1, 1, -1]
    added = '5,110.0,"[0, 1]",2,0,0,,,acquire,1,1\n'
    write(tmp_path, header + rows + added)
    more = read_profile(path, profile.read_until)
    assert (more.began, more.busy.tolist(), more.finished.tolist()) == (110, [[0, 1]], [2])
    for wrong in ("2", "-1", "0.5", "x"):
        write(tmp_path, header + rows + added[:-2] + f"{wrong}\n")
        with pytest.raises(
            ProfileFormatError, match=f"line 7: '{wrong}' is not the number of a worker, 0 to 1"
        ):
            read_profile(path)


CLUSTER = (
    '0,100.0,"[0]",0,0,0,,,start,0,\n'
    '1,100.0,"[0]",0,0,0,,,joined 10.0.0.5:4000,0,0\n'
    '2,101.0,"[1]",0,0,2,"[50.0]","[1024]",sample,0,\n'
    '3,102.0,"[1, 0]",0,0,0,,,joined 10.0.0.6:4000,0,1\n'
    '4,103.0,"[0, 0]",1,0,0,"[25.0, null]","[1024, 2048]",sample,0,\n'
    '5,104.0,"[0, 0]",1,0,0,,,left,0,0\n'
    '6,105.0,"[0, 0]",1,0,0,,,joined 10.0.0.7:4000,0,0\n'
)


def test_the_workers_of_a_cluster_come_and_go(tmp_path: Path):
    profile = read_profile(write(tmp_path, HEADER.replace("\n", ",Tasks,Worker\n") + CLUSTER))
    assert profile.busy.tolist() == [[0, 0], [0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [0, 0]]
    assert profile.places == {0: "10.0.0.7:4000", 1: "10.0.0.6:4000"}
    assert profile.cpu_percent is not None
    assert profile.memory_bytes is not None
    np.testing.assert_array_equal(profile.cpu_percent, [[50, np.nan], [25, np.nan]])
    np.testing.assert_array_equal(profile.memory_bytes, [[1024, np.nan], [1024, 2048]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("joined 10.0.0.6:4000", "acquire", "line 5: the busy list has 2 workers, and 1 before"),
        ('"[0, 0]",1,0,0,,,left', '"[0]",1,0,0,,,left', "line 7: the busy list has 1 workers, and 2 before"),
        ('"[25.0, null]"', '"[25.0]"', "line 6: '[25.0]' is not a list of one value for each worker (CPU)"),
        ("sample,0,\n3", "sample,0,1\n3", "line 4: '1' is not the number of a worker, 0 to 0"),
    ],
)
def test_what_is_wrong_with_a_list_that_grows(tmp_path: Path, old: str, new: str, message: str):
    assert old in CLUSTER
    path = write(tmp_path, HEADER.replace("\n", ",Tasks,Worker\n") + CLUSTER.replace(old, new))
    with pytest.raises(ProfileFormatError, match=re.escape(message)):
        read_profile(path)


def test_values_beyond_the_last_column_are_left_out(tmp_path: Path):
    profile = read_profile(write(tmp_path, HEADER + ROWS + '5,110,"[1, 1]",1,0,0,,,acquire,more\n'))
    assert profile.busy.tolist()[-1] == [1, 1]


def test_files_with_the_first_four_columns_are_read_odd_ones_included(tmp_path: Path):
    """Counts as floats, lists without spaces, and a free of a worker that was free."""
    old = ',Timestamp,Busy,Finished\n0,10.5,"[0,1]",0.0\n1,11.5,"[0,0]",1.0\n2,12.5,"[0, 0]",5.0\n'
    profile = read_profile(write(tmp_path, old))
    assert profile.busy.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert profile.throughput == 2.5
    assert (profile.waiting, profile.events, profile.cpu_percent) == (None, None, None)
    assert (profile.tasks, profile.about) == (None, None)


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_row_that_was_cut_short_is_left_out(tmp_path: Path, cut: int):
    profile = read_profile(write(tmp_path, (HEADER + ROWS)[:-cut]))
    assert len(profile.seconds) == (4 if cut <= 29 else 3)
    assert profile.is_cut_short


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the file is empty"),
        ("\n\n", "line 1: the file is empty"),
        (HEADER, "line 2: there is no row"),
        (HEADER[:-1], "line 2: there is no row"),
        (HEADER + ROWS[:10], "line 2: there is no row"),
        (HEADER.replace("Waiting", "Busy"), "line 1: not a profile: it has the column Busy twice"),
        ("a,b\n1,2\n", "line 1: not a profile: it should begin with ,Timestamp,Busy,Finished"),
        (bytes(range(256)) * 100, "line 1: not a profile"),
        (HEADER.encode() + bytes(range(128, 256)) * 100 + b"\n", "line 2: "),
        (HEADER + ROWS + '5,110,"[0]",1,0,0,,,free\n', "line 7: the busy list has 1 workers, and 2 before"),
        (HEADER + ROWS + '5,90,"[0, 0]",1,0,0,,,free\n', "line 7: the time goes back, from 109.0 to 90.0"),
        (HEADER + ROWS + '5,soon,"[0, 0]",1,0,0,,,free\n', "line 7: 'soon' is not a time"),
        (HEADER + ROWS + '5,nan,"[0, 0]",1,0,0,,,free\n', "line 7: 'nan' is not a time"),
        (HEADER + ROWS + '5,110,"[0, 2]",1,0,0,,,free\n', "line 7: '[0, 2]' is not a busy list"),
        (HEADER + ROWS + "5,110,busy,1,0,0,,,free\n", "line 7: 'busy' is not a busy list"),
        (HEADER + ROWS + "5,110,,1,0,0,,,free\n", "line 7: '' is not a busy list"),
        (HEADER + ROWS + '5,110,"[0, 0]",many,0,0,,,free\n', "line 7: 'many' is not a number (Finished)"),
        (HEADER + ROWS + '5,110,"[0, 0]",,0,0,,,free\n', "line 7: '' is not a number (Finished)"),
        (
            HEADER + ROWS + '5,110,"[0, 0]",1,0,0,"[1]","[1]",sample\n',
            "line 7: '[1]' is not a list of one value",
        ),
        (
            HEADER + ROWS + '5,110,"[0, 0]",1,0,0,"[""a"", 1]","[1, 1]",sample\n',
            """line 7: '["a", 1]' is not a list of one value""",
        ),
        (HEADER + ROWS + '5,110,"[0, 0]",1,0,0,"[1, 1e999]","[1, 1]",sample\n', "line 7: '[1, 1e999]' is"),
        (HEADER + ROWS + '5,110,"[0, 0]",1,0,0,"[1, NaN]","[1, 1]",sample\n', "line 7: '[1, NaN]' is"),
        (HEADER + ROWS + "5,110\n", "line 7: "),
        (HEADER + ROWS + '5,110,"[0, 0]",nan,0,0,,,free\n', "line 7: 'nan' is not a number (Finished)"),
        (HEADER + ROWS + '5,110,"[0, 0]",1_0,0,0,,,free\n', "line 7: '1_0' is not a number (Finished)"),
        (HEADER + ROWS + '5,110,"[0, 0]",inf,0,0,,,free\n', "line 7: 'inf' is not a number (Finished)"),
        (HEADER + ROWS + '5,110,"[0, 0]",1e999,0,0,,,free\n', "line 7: '1e999' is not a count (Finished)"),
        (HEADER + ROWS + '5,110,"[0, 0]",0,0,0,,,free\n', "line 7: Finished falls, from 1 to 0"),
        (HEADER + ROWS + '5,110,"[0, 0]",1,-1,0,,,free\n', "line 7: '-1' is not a count (Failed)"),
        (HEADER + ROWS + '5,110,"[0, 0]",1,0,nan,,,free\n', "line 7: 'nan' is not a number (Waiting)"),
        (HEADER + ROWS + '5,110,"[0, 0]",1,0,0,,,"free\n', "line 7: the file ends within quotes"),
        (HEADER + ROWS + f'5,{"1" * 500}x,"[0, 0]",1,0,0,,,free\n', f"line 7: '{'1' * 80}...' is not a time"),
    ],
    ids=range(32),
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, content: str | bytes, message: str):
    path = write(tmp_path, content)
    with pytest.raises(ProfileFormatError) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_row_broken_anywhere_is_said_with_its_line(data: st.DataObject):
    """Whatever takes the place of a field: it is read, or the line of that field is named."""
    lines = (HEADER + ROWS).splitlines()
    line = data.draw(st.integers(1, len(lines) - 1))
    fields = next(csv.reader([lines[line]]))
    text = st.one_of(st.text("0123456789.,-+eE[]{} nulatrif_\t\"'", max_size=9), st.text(max_size=4))
    fields[data.draw(st.integers(1, len(fields) - 2))] = data.draw(text)
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields)
    lines[line] = row.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "".join(f"{line}\n" for line in lines))
        fault = what_is_wrong(path)
    # A field may hold line ends itself; and a time that leaps ahead, say, is wrong only beside the next row.
    breaks = len(re.findall(r"\r\n|\r|\n", row.getvalue()))
    lines_meant = range(line + 1, line + breaks + 3)
    assert fault is None or fault.startswith(tuple(f"{path}, line {number}: " for number in lines_meant))


def what_is_wrong(path: Path) -> str | None:
    try:
        profile = read_profile(path)
    except ProfileFormatError as error:
        return str(error)
    assert np.isfinite(profile.finished).all()
    assert profile.throughput >= 0
    return None


def test_lists_that_are_only_well_formed_together_are_none():
    assert faults.matrix(["[1", "2],[3]"]) is None
    assert faults.matrix(["[1],[2]", "[3]"]) is None
    assert faults.matrix(['["]', '["]']) is None


def test_lists_are_parsed_in_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "BLOCK", 2)
    values = faults.matrix(["[1, 2]", "[3, 4]", "[5, null]"])
    assert values is not None
    np.testing.assert_array_equal(values, [[1, 2], [3, 4], [5, np.nan]])
    assert faults.matrix(["[1, 2]", "[3, 4]", "[5]"]) is None
    assert faults.matrix(["[1, 2]", "[3, 4]", "[5, x]"]) is None


CHANGES = {"acquire": 1, "free": 0}


@pytest.mark.parametrize(
    ("events", "span_s", "throughput"),
    [
        (["start", "acquire", "free", "acquire", "free", "stop"], (1, 4), 4 / 3),
        (["start", "acquire", "sample", "sample", "sample", "sample"], (1, 5), 5 / 4),
        (["free", "start", "acquire", "sample", "lost", "replaced"], (2, 5), 5 / 3),
        (["start", "sample", "sample", "sample", "sample", "stop"], (0, 5), 1),
        (["start", "acquire", "free", "acquire", "sample", "sample"], (1, 5), 5 / 4),
    ],
    ids=["to the last free", "without a free", "a free before", "without an acquire", "while one is busy"],
)
def test_the_work_begins_with_an_acquire_and_ends_with_a_free(
    tmp_path: Path, events: list[str], span_s: tuple[float, float], throughput: float
):
    """In these profiles one task finishes each second: what does so after the work does not count."""
    busy = list(itertools.accumulate(events, lambda was, event: CHANGES.get(event, was), initial=0))[1:]
    rows = [f'{n},{100 + n},"[{busy[n]}]",{n},0,0,,,{event}\n' for n, event in enumerate(events)]
    profile = read_profile(write(tmp_path, HEADER + "".join(rows)))
    assert (profile.span_s, profile.throughput) == (span_s, throughput)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: not a sweep: it should begin with Workers,Functions,Throughput"),
        ("a,b\n1,2\n", "line 1: not a sweep"),
        (SWEEP, "line 2: there is no row"),
        (SWEEP + "1,1,0.33\n1.5,2,0.33\n", "line 3: Workers and Functions should be whole numbers from 1"),
        (SWEEP + "1,0,0.33\n", "line 2: Workers and Functions"),
        (SWEEP + "nan,1,0.33\n", "line 2: Workers and Functions"),
        (SWEEP + "1,1e999,0.33\n", "line 2: Workers and Functions"),
        (SWEEP + "1,1\n", "line 2: '' is not a throughput"),
        (SWEEP + "1,1,0.33\n\n1,2,nan\n", "line 4: 'nan' is not a throughput"),
        (SWEEP + "1,1,0\n", "line 2: '0' is not a throughput"),
        (SWEEP + "1,1,1e999\n", "line 2: '1e999' is not a throughput"),
    ],
    ids=range(11),
)
def test_what_is_wrong_in_a_sweep_is_said_with_its_line(tmp_path: Path, content: str, message: str):
    path = write(tmp_path, content)
    with pytest.raises(ProfileFormatError) as caught:
        read_sweep(path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_of_a_cell_that_was_measured_twice_the_last_result_counts(tmp_path: Path):
    cells = read_sweep(write(tmp_path, SWEEP + "1,1,0.33\n1,1,0.3\n"))
    assert cells.to_dict("records") == [{"Workers": 1, "Functions": 1, "Throughput": 0.3}]
