"""Tasks files as arrays and sums; and what is wrong with those that are none, with its line."""

from __future__ import annotations

import csv
import io
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.tasks import Tasks, quantiles, read_tasks, summarize
from distribute_challenge.record.tasks import HEADER

ROWS = (
    "0,square,a.py:7,18812,100.0,101.0,101.5,4,0.4,done,100,20,,\n"
    "1,square,b.py:8@host,18813,100.5,101.0,103.0,1,2.0,failed,50,10,4096,ValueError: odd\n"
    "2,hello,127.0.0.1:40000,18812,,102.0,102.25,1,0.25,done,30,0,,\n"
    '3,sleep,a.py:7,18813,101.0,103.0,104.0,1,1.0,timeout,40,0,8192,"TaskTimeout: not, ""nor"" stop"\n'
)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "tasks.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_tasks_are_read_as_they_were_written(tmp_path: Path):
    tasks = read_tasks(write(tmp_path, HEADER + ROWS))
    assert [tasks.functions[code] for code in tasks.function] == ["square", "square", "hello", "sleep"]
    assert [tasks.clients[code] for code in tasks.client][1:3] == ["b.py:8@host", "127.0.0.1:40000"]
    assert tasks.worker.tolist() == [18812, 18813, 18812, 18813]
    np.testing.assert_array_equal(tasks.queued, [100, 100.5, np.nan, 101])
    assert tasks.started.tolist() == [101, 101, 102, 103]
    assert tasks.ended.tolist() == [101.5, 103, 102.25, 104]
    assert tasks.count.tolist() == [4, 1, 1, 1]
    assert tasks.seconds.tolist() == [0.4, 2, 0.25, 1]
    assert tasks.has_failed.tolist() == [False, True, False, True]
    assert tasks.sent.tolist() == [100, 50, 30, 40]
    assert tasks.returned.tolist() == [20, 10, 0, 0]
    np.testing.assert_array_equal(tasks.memory, [np.nan, 4096, np.nan, 8192])
    assert tasks.error.tolist() == ["", "ValueError: odd", "", 'TaskTimeout: not, "nor" stop']
    assert (len(tasks), tasks.is_cut_short) == (4, False)


def test_a_file_that_a_spreadsheet_has_marked_is_read(tmp_path: Path):
    assert len(read_tasks(write(tmp_path, "\ufeff" + HEADER + ROWS))) == len(ROWS.splitlines())


def test_a_file_that_pandas_has_written_anew_is_read(tmp_path: Path):
    path = write(tmp_path, "Unnamed: 0" + HEADER + ROWS)
    assert len(read_tasks(path)) == len(ROWS.splitlines())
    path = write(tmp_path, "\n".join(line.partition(",")[2] for line in (HEADER + ROWS).splitlines()))
    with pytest.raises(ProfileFormatError, match="not a tasks file: it should begin with ,Function"):
        read_tasks(path)


def test_a_file_in_which_no_task_has_ended_is_read(tmp_path: Path):
    tasks = read_tasks(write(tmp_path, HEADER))
    assert (len(tasks), tasks.functions, summarize(tasks)) == (0, (), [])


@pytest.mark.parametrize("place", range(len(HEADER), len(HEADER + ROWS) + 1, 7))
def test_what_is_added_to_a_file_is_read_from_there_on(tmp_path: Path, place: int):
    """A row that is not whole yet comes with the next reading."""
    path = write(tmp_path, (HEADER + ROWS)[:place])
    before = read_tasks(path)
    write(tmp_path, HEADER + ROWS)
    after = read_tasks(path, before.read_until)
    assert before.is_cut_short == (place > before.read_until)
    assert [*names(before), *names(after)] == ["square", "square", "hello", "sleep"]
    assert len(read_tasks(path, after.read_until)) == 0


def names(tasks: Tasks) -> list[str]:
    return [tasks.functions[code] for code in tasks.function]


def test_a_row_counts_as_often_as_functions_it_stands_for(tmp_path: Path):
    square, sleep, hello = summarize(read_tasks(write(tmp_path, HEADER + ROWS)))
    assert square[:5] == ("square", 5, 1, 2.4, 0.48)
    assert (square.run_median, square.run_p99) == pytest.approx((0.1, 0.1 + 1.9 * 0.96))
    assert (square.wait_mean, square.wait_median) == pytest.approx((0.9, 1.0))
    assert (sleep.function, sleep.failed, sleep.wait_p99) == ("sleep", 1, 2)
    assert hello[:7] == ("hello", 1, 0, 0.25, 0.25, 0.25, 0.25)
    assert all(math.isnan(value) for value in hello[7:])


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=20), st.floats(0, 1))
def test_quantiles_are_those_of_each_value_written_out_so_many_times(
    pairs: list[tuple[float, int]], share: float
):
    values, counts = np.array([value for value, _ in pairs]), np.array([count for _, count in pairs])
    found, most = quantiles(values, counts, (share, 1.0))
    assert found == pytest.approx(np.quantile(np.repeat(values, counts), share), abs=1e-9)
    assert most == values.max()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the file is empty"),
        ("a,b\n1,2\n", "line 1: not a tasks file: it should begin with ,Function,Client,Worker,Queued"),
        (HEADER.replace("Sent", "Count"), "line 1: not a tasks file"),
        (HEADER.replace("\n", ",Count\n"), "line 1: not a tasks file: it has the column Count twice"),
        (HEADER + ROWS + "3,f,c,1,,1,2,1,1,done,0,0,,\n", "line 6: the row's number, '3', is not above"),
        (HEADER + ROWS + "x,f,c,1,,1,2,1,1,done,0,0,,\n", "line 6: the row's number, 'x', is not above"),
        (HEADER + ROWS + "4,f,c,1,,soon,2,1,1,done,0,0,,\n", "line 6: 'soon' is not a time (Started)"),
        (HEADER + ROWS + "4,f,c,1,,1,,1,1,done,0,0,,\n", "line 6: '' is not a time (Ended)"),
        (HEADER + ROWS + "4,f,c,1,x,1,2,1,1,done,0,0,,\n", "line 6: 'x' is not a time (Queued)"),
        (HEADER + ROWS + "4,f,c,1,nan,1,2,1,1,done,0,0,,\n", "line 6: 'nan' is not a time (Queued)"),
        (HEADER + ROWS + "4,f,c,1,inf,1,2,1,1,done,0,0,,\n", "line 6: 'inf' is not a time (Queued)"),
        (HEADER + ROWS + "4,f,c,1,-1e30,1,2,1,1,done,0,0,,\n", "line 6: '-1e30' is not a time (Queued)"),
        (HEADER + ROWS + "4,f,c,1,,1,1e12,1,1,done,0,0,,\n", "line 6: '1e12' is not a time (Ended)"),
        (f"{HEADER}{ROWS}4,f,c,1,,1,2,{'9' * 400},1,done,0,0,,\n", f"line 6: '{'9' * 80}...' is not a"),
        ("\ufeff" + HEADER + ROWS + "4,f,c,1,,1,,1,1,done,0,0,,\n", "line 6: '' is not a time (Ended)"),
        (HEADER + ROWS + "4,f,c,1,,3,2,1,1,done,0,0,,\n", "line 6: Ended is before Started: 2 and 3"),
        (HEADER + ROWS + "4,f,c,1,2,1,2,1,1,done,0,0,,\n", "line 6: Started is before Queued: 1 and 2"),
        (HEADER + ROWS + "4,f,c,70000,,1,2,1,1,done,0,0,,\n", "line 6: '70000' is not a whole number from 1"),
        (HEADER + ROWS + "4,f,c,1,,1,2,0,1,done,0,0,,\n", "line 6: '0' is not a whole number from 1"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1.5,1,done,0,0,,\n", "line 6: '1.5' is not a whole number from 1"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,-1,done,0,0,,\n", "line 6: '-1' is not a count (Seconds)"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,1,done,x,0,,\n", "line 6: 'x' is not a number (Sent)"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,1,done,0,,,\n", "line 6: '' is not a number (Returned)"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,1,done,0,0,1e999,\n", "line 6: '1e999' is not a count (Memory)"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,1,over,0,0,,\n", "line 6: 'over' is not a status: done, failed,"),
        (HEADER + ROWS + "4,f,c,1,,1,2,1,1,,0,0,,\n", "line 6: '' is not a status"),
        (HEADER + ROWS + "4,f,c,1\n", "line 6: "),
        (HEADER + ROWS + '4,f,c,1,,1,2,1,1,done,0,0,,"E\n', "line 6: the file ends within quotes"),
        (HEADER.encode() + bytes(range(128, 256)) * 100 + b"\n", "line 2: "),
    ],
    ids=range(29),
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, content: str | bytes, message: str):
    path = write(tmp_path, content)
    with pytest.raises(ProfileFormatError) as caught:
        read_tasks(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_what_was_added_has_its_line_in_the_whole_file(tmp_path: Path):
    path = write(tmp_path, HEADER + ROWS)
    end = read_tasks(path).read_until
    write(tmp_path, HEADER + ROWS + "4,f,c,1,,1,2,1,1,over,0,0,,\n")
    with pytest.raises(ProfileFormatError, match="line 6: 'over' is not a status"):
        read_tasks(path, end)


@given(st.data())
def test_a_row_broken_anywhere_is_said_with_its_line(data: st.DataObject):
    """Whatever takes the place of a field: it is read, or the line of that field is named."""
    lines = (HEADER + ROWS).splitlines()
    line = data.draw(st.integers(1, len(lines) - 1))
    fields = next(csv.reader([lines[line]]))
    text = st.one_of(st.text("0123456789.,-+eE[]{} nulatrif_\t\"'", max_size=9), st.text(max_size=4))
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(text)
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields)
    lines[line] = row.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "".join(f"{line}\n" for line in lines))
        fault = what_is_wrong(path)
    # A field may hold line ends itself; and a number that leaps ahead, say, is wrong only beside the next.
    breaks = len(re.findall(r"\r\n|\r|\n", row.getvalue()))
    meant = range(line + 1, line + breaks + 3)
    assert fault is None or fault.startswith(tuple(f"{path}, line {number}: " for number in meant))


def what_is_wrong(path: Path) -> str | None:
    try:
        tasks = read_tasks(path)
    except ProfileFormatError as error:
        return str(error)
    assert len(summarize(tasks)) == len(tasks.functions)
    return None
