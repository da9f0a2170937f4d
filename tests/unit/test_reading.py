"""Profiles as arrays; and what is wrong with those that are none, with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.profile.reading import read_profile, read_sweep

HEADER = ",Timestamp,Busy,Finished,Failed,Waiting,CPU,Memory,Event\n"
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


def test_files_with_the_first_four_columns_are_read_odd_ones_included(tmp_path: Path):
    """Counts as floats, lists without spaces, and a free of a worker that was free."""
    old = ',Timestamp,Busy,Finished\n0,10.5,"[0,1]",0.0\n1,11.5,"[0,0]",1.0\n2,12.5,"[0, 0]",5.0\n'
    profile = read_profile(write(tmp_path, old))
    assert profile.busy.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert profile.throughput == 2.5
    assert (profile.waiting, profile.events, profile.cpu_percent) == (None, None, None)


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
        (HEADER + ROWS + "5,110\n", "line 7: "),
    ],
    ids=range(17),
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, content: str | bytes, message: str):
    path = write(tmp_path, content)
    with pytest.raises(ProfileFormatError) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


def test_a_sweep_that_is_none_is_told(tmp_path: Path):
    with pytest.raises(ProfileFormatError, match="not a sweep"):
        read_sweep(write(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(ProfileFormatError, match="not a sweep"):
        read_sweep(write(tmp_path, ""))
    cells = read_sweep(write(tmp_path, "Workers,Functions,Throughput\n1,1,0.33\n1,1,0.3\n"))
    assert cells.to_dict("records") == [{"Workers": 1, "Functions": 1, "Throughput": 0.3}]
