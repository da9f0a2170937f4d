"""The grapher and the benchmark as a user meets them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distribute_challenge import compute_this
from distribute_challenge.record.tasks import HEADER
from tests.acceptance.test_scripts import assert_is_one_helpful_line, processes_in
from tests.running import HANG_S, ROOT, RunningServer, eventually, grapher, script

PROFILE = ',Timestamp,Busy,Finished\n0,1,"[0, 1]",0\n1,5,"[0, 0]",5.0\n'
FIGURES = ["busy.pdf", "overview.pdf", "throughput.pdf"]
DONE, FAILED = "done,9,9,,\n", "failed,9,9,,ValueError: odd\n"
TASK = f"0,f,c:1,18812,,1,3,1,2,{DONE}"


def square(x):
    return x * x


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_a_profile_is_found_by_name_and_drawn(tmp_path: Path, suffix: str):
    (tmp_path / "profiling").mkdir()
    (tmp_path / "profiling" / "results_2.csv").write_text(PROFILE)
    run = script if suffix == "pdf" else lambda _, *arguments, cwd: grapher(*arguments, cwd=cwd)
    result = run("grapher.py", "results_2.csv", "--format", suffix, cwd=tmp_path)
    files = [f"plots/{name}.{suffix}" for name in ("overview", "busy", "throughput")]
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.splitlines() == ["Throughput = 1.250 tasks per second", *files]
    assert all((tmp_path / file).stat().st_size > 1000 for file in files)


def test_a_record_with_tasks_is_drawn_and_told(tmp_path: Path):
    (tmp_path / "p.csv").write_text(PROFILE)
    (tmp_path / "p.tasks.csv").write_text(HEADER + TASK + TASK.replace("0,f", "1,g").replace(DONE, FAILED))
    result = grapher("p.csv", "--out", ".", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    first, empty, _, head, f, g, _, failures, failure, _, *files = result.stdout.splitlines()
    assert (first, empty) == ("Throughput = 1.250 tasks per second", "")
    assert head.split()[:4] == ["function", "tasks", "failed", "total"]
    assert (f.split()[:5], g.split()[:5]) == (["f", "1", "0", "2", "s"], ["g", "1", "1", "2", "s"])
    assert failures == "the only failure:"
    assert failure.endswith("g  on :18812 for c:1  failed: ValueError: odd")
    assert files == ["overview.pdf", "busy.pdf", "tasks.pdf", "throughput.pdf"]
    part = grapher("p.csv", "--out", "part", "--last", "1s", cwd=tmp_path)
    assert "Throughput = " in part.stdout
    assert "tasks.pdf" not in part.stdout


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x", "p.tasks.csv, line 1: not a tasks file: it should begin with ,Function,Client"),
        (HEADER + TASK + TASK, "p.tasks.csv, line 3: the row's number, '0', is not above the one before"),
        (HEADER + TASK.replace("done", "over"), "p.tasks.csv, line 2: 'over' is not a status: done, failed"),
        (HEADER + TASK.replace(",1,3,", ",1e9,2e9,"), "p.tasks.csv, line 2: its tasks are of another run"),
    ],
    ids=["no tasks", "out of order", "a wrong field", "of another run"],
)
def test_what_is_wrong_in_a_tasks_file_is_said(tmp_path: Path, rows: str, message: str):
    (tmp_path / "p.csv").write_text(PROFILE)
    (tmp_path / "p.tasks.csv").write_text(rows)
    assert_is_one_helpful_line(grapher("p.csv", cwd=tmp_path), message)


def test_a_last_task_that_was_cut_short_is_left_out(tmp_path: Path):
    (tmp_path / "p.csv").write_text(PROFILE)
    (tmp_path / "p.tasks.csv").write_text(HEADER + TASK + "1,f")
    result = grapher("p.csv", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("the last row of p.tasks.csv was cut short, and is left out\n")


def test_what_the_overall_figure_counts_is_said(tmp_path: Path):
    rows = '2,11,"[0, 1]",5\n3,13,"[0, 0]",10\n'
    (tmp_path / "p.csv").write_text(PROFILE + rows)
    result = grapher("p.csv", cwd=tmp_path)
    assert result.stdout.splitlines()[:2] == [
        "Throughput = 0.8333 tasks per second",
        "in 6 s of its 12 s nothing was asked for; without those it is 1.667 tasks per second",
    ]


def test_what_was_idle_for_most_of_the_time_is_drawn_where_there_was_work(tmp_path: Path):
    (tmp_path / "p.csv").write_text(PROFILE + '2,1000,"[0, 0]",5\n')
    result = grapher("p.csv", cwd=tmp_path)
    said = "4.2 s of 16.6 min are drawn: in the rest nothing was asked for (--last 999s draws all)\n"
    assert result.stdout.startswith(said + "Throughput = ")
    result = grapher("p.csv", "--last", "999s", cwd=tmp_path)
    assert result.stdout.startswith("Throughput = 0.005005 tasks per second\n")


def test_the_sweep_is_drawn_with_its_own_profiles_and_by_its_own_name(tmp_path: Path):
    folder = tmp_path / "profiling"
    folder.mkdir()
    (folder / "benchmarks.csv").write_text(SWEEP)
    for name in ("results_1_1.csv", "results_2.csv"):
        (folder / name).write_text(PROFILE)
        result = grapher(name, cwd=tmp_path)
        assert ("plots/benchmark.pdf" in result.stdout.splitlines()) == (name == "results_1_1.csv")
    result = grapher("benchmarks.csv", "--out", "sweep", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("sweep/benchmark.pdf\n", 0)
    (folder / "benchmarks.csv").write_text("1,2\n")
    result = grapher("benchmarks.csv", cwd=tmp_path)
    assert_is_one_helpful_line(result, "profiling/benchmarks.csv, line 1: not a sweep")


def test_a_profile_without_a_finished_task_is_drawn_and_said(tmp_path: Path):
    (tmp_path / "p.csv").write_text(',Timestamp,Busy,Finished\n0,1,"[0, 1]",0\n')
    result = grapher("p.csv", "--out", "here", cwd=tmp_path)
    assert "no task finished in this profile\n" in result.stdout
    assert (tmp_path / "here" / "busy.pdf").exists()


def test_a_record_that_goes_on_after_an_early_lease_is_drawn(tmp_path: Path):
    """Nothing finished in that one; the lease that goes on has no free yet."""
    rows = '0,1,"[0]",0,acquire\n1,2,"[0]",0,free\n2,3,"[1]",0,acquire\n3,11,"[1]",500,sample\n'
    (tmp_path / "p.csv").write_text(f",Timestamp,Busy,Finished,Event\n{rows}")
    result = grapher("p.csv", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    assert "Throughput = 50.00 tasks per second" in result.stdout


def test_times_that_a_spreadsheet_has_rounded_are_said(tmp_path: Path):
    rows = "".join(f'{number},1.79540E+09,"[{number % 2}]",{number // 2}.0\n' for number in range(1, 11))
    (tmp_path / "rounded.csv").write_text(f",Timestamp,Busy,Finished\n{rows}")
    result = grapher("rounded.csv", cwd=tmp_path)
    assert_is_one_helpful_line(
        result, "5 tasks finished in no time at all", "use the file that the server wrote"
    )


def test_times_that_a_spreadsheet_has_rounded_a_little_are_said_too(tmp_path: Path):
    rows = "".join(
        f'{number},1.7954000{number}E+09,"[{number % 2}]",{number // 2}.0\n' for number in range(1, 10)
    )
    (tmp_path / "rounded.csv").write_text(f",Timestamp,Busy,Finished\n{rows}")
    result = grapher("rounded.csv", cwd=tmp_path)
    assert result.returncode == 0
    assert "its times are rounded to 10 s" in result.stdout
    (tmp_path / "exact.csv").write_text(PROFILE)
    assert "rounded" not in grapher("exact.csv", cwd=tmp_path).stdout


def test_a_trace_is_written_instead_of_the_figures(tmp_path: Path):
    (tmp_path / "p.csv").write_text(PROFILE)
    result = grapher("p.csv", "--trace", "trace.json", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.splitlines() == ["Throughput = 1.250 tasks per second", "trace.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "trace.json"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_a_trace_that_cannot_be_written_or_whose_tasks_are_broken_is_said(tmp_path: Path):
    (tmp_path / "p.csv").write_text(PROFILE)
    unwritable = grapher("p.csv", "--trace", "there/trace.json", cwd=tmp_path)
    assert unwritable.returncode == 2
    assert "cannot write there/trace.json (No such file or directory): name another file" in unwritable.stderr
    (tmp_path / "p.tasks.csv").write_text("nonsense")
    broken = grapher("p.csv", "--trace", "trace.json", cwd=tmp_path)
    assert broken.returncode == 2
    assert "p.tasks.csv, line 1: not a tasks file" in broken.stderr


def test_without_a_name_the_newest_profile_is_drawn(tmp_path: Path):
    folder = tmp_path / "profiling"
    folder.mkdir()
    for age_s, name in enumerate(("results_2.csv", "mine.csv", "results_1.csv")):
        (folder / name).write_text(PROFILE)
        os.utime(folder / name, (1e9 - age_s, 1e9 - age_s))
    (folder / "results_2.csv").touch()
    (folder / "tasks_2.csv").write_text(HEADER)
    drawn = grapher("--trace", "trace.json", cwd=tmp_path)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert drawn.stdout.startswith("profiling/results_2.csv is the newest profile:\n")


def test_the_grapher_says_what_is_wrong(tmp_path: Path):
    nothing = grapher(cwd=tmp_path)
    assert_is_one_helpful_line(nothing, "name a profile", "there are none: start a server first")
    missing = grapher("results_9.csv", cwd=tmp_path)
    assert_is_one_helpful_line(missing, "no profile results_9.csv", "there are none: start a server first")
    (tmp_path / "profiling").mkdir()
    (tmp_path / "profiling" / "results_2.csv").write_text("")
    (tmp_path / "profiling" / "tasks_2.csv").write_text("")
    tasks = grapher("tasks_2.csv", cwd=tmp_path)
    assert_is_one_helpful_line(tasks, "has the tasks of profiling/results_2.csv: name that")
    missing = grapher("results_9.csv", cwd=tmp_path)
    assert_is_one_helpful_line(missing, "there are results_2.csv")
    empty = grapher("results_2.csv", cwd=tmp_path)
    assert_is_one_helpful_line(empty, "profiling/results_2.csv, line 1: the file is empty")
    (tmp_path / "back.csv").write_text(PROFILE + '2,4,"[0, 0]",5.0\n')
    assert_is_one_helpful_line(grapher("back.csv", cwd=tmp_path), "back.csv, line 4: the time goes back")
    (tmp_path / "good.csv").write_text(PROFILE)
    folder = grapher("profiling", cwd=tmp_path)
    assert_is_one_helpful_line(folder, "profiling is a folder: name a profile in it")
    long_name = grapher("x" * 300, cwd=tmp_path)
    assert_is_one_helpful_line(long_name, "x (File name too long)")
    (tmp_path / "plots").write_text("a file where the folder should be")
    blocked = grapher("good.csv", cwd=tmp_path)
    assert blocked.returncode == 2
    assert "cannot write the figures to plots" in blocked.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("benchmarks.csv", "1,2\n", "profiling/benchmarks.csv, line 1: not a sweep"),
        ("benchmarks.json", '{"tasks": 0}', "profiling/benchmarks.json, line 1: it should say how"),
    ],
)
def test_a_broken_sweep_does_not_keep_a_good_profile_from_being_drawn(
    tmp_path: Path, name: str, content: str, message: str
):
    (tmp_path / "profiling").mkdir()
    (tmp_path / "profiling" / "results_1_1.csv").write_text(PROFILE)
    (tmp_path / "profiling" / "benchmarks.csv").write_text(SWEEP)
    (tmp_path / "profiling" / name).write_text(content)
    result = grapher("results_1_1.csv", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.startswith(f"grapher.py: the sweep is not drawn: {message}")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == FIGURES


@pytest.mark.parametrize("moment", range(3))
def test_the_profile_of_a_killed_server_can_be_drawn(start_server: Callable[..., RunningServer], moment: int):
    server = start_server(2, "--interval", "0.05")
    on_server = compute_this(server=server.address)(square)
    for number in range(10 * moment + 1):
        assert on_server(number).run() == number**2
    eventually(lambda: any(row["Event"] == "acquire" for row in server.rows()), "something is recorded")
    server.process.kill()
    server.process.wait(HANG_S)
    result = grapher("results_2.csv", cwd=server.folder)
    assert result.returncode == 0, result.stderr
    assert "plots/busy.pdf" in result.stdout


def test_the_benchmark_measures_draws_and_resumes(tmp_path: Path):
    arguments = ["--workers", "1-2", "--clients", "2", "--tasks", "2", "--seconds", "0.2"]
    result = script("benchmark.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = (tmp_path / "profiling" / "benchmarks.csv").read_text().splitlines()
    assert rows[0] == "Workers,Functions,Throughput"
    assert [row.rsplit(",", 1)[0] for row in rows[1:]] == ["1,2", "2,2"]
    one, two = (float(row.rsplit(",", 1)[1]) for row in rows[1:])
    assert one <= 4 / 0.8  # The ideal of one worker: four functions of 0.2 s one after another.
    assert two <= 4 / 0.4
    assert re.search(r"^ +1 +2 +\d\.\d{4} +5\.0000 +\d+\.\d%$", result.stdout, re.MULTILINE)
    names = sorted(path.name for path in (tmp_path / "profiling").iterdir())
    assert names == [
        *("benchmarks.csv", "benchmarks.json"),
        *("results_1_2.csv", "results_2_2.csv", "tasks_1_2.csv", "tasks_2_2.csv"),
    ]
    settings = json.loads((tmp_path / "profiling" / "benchmarks.json").read_text())
    assert settings == {"tasks": 2, "seconds": 0.2}
    before = (tmp_path / "profiling" / "results_1_2.csv").stat().st_mtime_ns
    again = script("benchmark.py", *arguments, cwd=tmp_path)
    known = "2 of 2 cells were measured before (profiling/benchmarks.csv): remove that file to measure anew\n"
    assert again.stdout == known + result.stdout
    assert (tmp_path / "profiling" / "results_1_2.csv").stat().st_mtime_ns == before
    assert processes_in(tmp_path) == []


def test_a_sweep_is_not_mixed_with_one_of_other_settings(tmp_path: Path):
    (tmp_path / "profiling").mkdir()
    sweep = tmp_path / "profiling" / "benchmarks.csv"
    sweep.write_text(SWEEP)
    result = script("benchmark.py", "--workers=1", "--clients=2", "--tasks=1", cwd=tmp_path)
    assert_is_one_helpful_line(
        result,
        "profiling/benchmarks.csv was measured with --tasks 5 --seconds 3: use those, or remove it",
    )
    settings = sweep.with_suffix(".json")
    settings.write_text('{"tasks": 1, "seconds": 0.5}')
    result = script("benchmark.py", cwd=tmp_path)
    assert_is_one_helpful_line(result, "was measured with --tasks 1 --seconds 0.5")
    arguments = ["--workers=1", "--clients=1", "--tasks=1", "--seconds=0.2"]
    for other in ("[1, 2]", '{"tasks": true, "seconds": 3}', '{"tasks": 5, "seconds": NaN}', "\0"):
        settings.write_text(other)
        result = script("benchmark.py", *arguments, cwd=tmp_path)
        assert_is_one_helpful_line(
            result, "benchmarks.json, line 1: it should say", '{"tasks": 5, "seconds": 3}'
        )
    sweep.unlink()  # Then the settings are of nothing, whatever they are.
    result = script("benchmark.py", *arguments, cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)
    assert "measured before" not in result.stdout
    assert json.loads(settings.read_text()) == {"tasks": 1, "seconds": 0.2}


SWEEP = "Workers,Functions,Throughput\n1,1,0.001667\n"
SETTINGS = '{"tasks": 1, "seconds": 600}\n'


def start_long_benchmark(folder: Path) -> subprocess.Popen[str]:
    """It resumes after the first cell, and is in the second, which would take ten minutes."""
    sweep = folder / "profiling" / "benchmarks.csv"
    sweep.parent.mkdir(exist_ok=True)
    sweep.write_text(SWEEP)
    sweep.with_suffix(".json").write_text(SETTINGS)
    command = [sys.executable, str(ROOT / "benchmark.py"), "--workers", "1", "--clients", "1-2"]
    command += ["--tasks", "1", "--seconds", "600"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # These tests, too, may run under nohup.
    try:
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    eventually(lambda: (sweep.parent / "results_1_2.partial").exists(), "the second cell is measured")
    eventually(
        lambda: len(processes_in(folder)) == 6,
        "the benchmark, a server with template and worker, two clients run",
    )
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_benchmark_leaves_nothing_running_and_no_broken_file(
    tmp_path: Path, number: signal.Signals
):
    process = start_long_benchmark(tmp_path)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + number
    assert stderr.splitlines()[-1].startswith("benchmark.py: stopped; what was measured is kept")
    assert processes_in(tmp_path) == []
    names = sorted(path.name for path in (tmp_path / "profiling").iterdir())
    assert names == ["benchmarks.csv", "benchmarks.json"]
    assert (tmp_path / "profiling" / "benchmarks.csv").read_text() == SWEEP


def test_a_killed_benchmark_leaves_nothing_running(tmp_path: Path):
    process = start_long_benchmark(tmp_path)
    process.kill()
    process.communicate(timeout=HANG_S)
    eventually(lambda: processes_in(tmp_path) == [], "its server, worker and clients have ended")
    assert (tmp_path / "profiling" / "benchmarks.csv").read_text() == SWEEP
    remains = sorted(path.name for path in (tmp_path / "profiling").iterdir())
    process = start_long_benchmark(tmp_path)
    assert sorted(path.name for path in (tmp_path / "profiling").iterdir()) == remains, "none is moved away"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANG_S)


def test_the_benchmark_says_what_is_wrong(tmp_path: Path):
    for wrong in ("0", "4-1", "a-b", "1-", "-"):
        result = script("benchmark.py", f"--workers={wrong}", cwd=tmp_path)
        assert_is_one_helpful_line(result, f"{wrong!r} is not a range: give it like 1-4")
    result = script("benchmark.py", "--seconds=0", cwd=tmp_path)
    assert_is_one_helpful_line(result, "'0' is too short: give more than 0 seconds")
    (tmp_path / "profiling").write_text("a file where the folder should be")
    assert_is_one_helpful_line(
        script("benchmark.py", cwd=tmp_path), "cannot write to profiling/ (File exists)"
    )
    (tmp_path / "profiling").unlink()
    (tmp_path / "profiling").mkdir()
    (tmp_path / "profiling" / "benchmarks.csv").write_text("something else")
    result = script("benchmark.py", cwd=tmp_path)
    assert_is_one_helpful_line(result, "profiling/benchmarks.csv, line 1: not a sweep")


def test_names_are_drawn_as_they_are(tmp_path: Path):
    """Dask's keys, for one, may hold anything: also what matplotlib takes for a formula."""
    (tmp_path / "p.csv").write_text(PROFILE)
    (tmp_path / "p.tasks.csv").write_text(HEADER + TASK.replace("0,f", "0,cost $x^{$ of $y$"))
    result = grapher("p.csv", "--out", ".", "--format", "svg", cwd=tmp_path)
    assert (result.stderr, result.returncode) == ("", 0)


@pytest.mark.parametrize("option", ["--html", "--trace"])
@pytest.mark.parametrize("file", ["p.csv", "p.tasks.csv", "p.csv (again)", "p.json"])
def test_no_record_is_written_over(tmp_path: Path, option: str, file: str):
    """Least of all where FILE was forgotten, and its name stands for the option's."""
    (tmp_path / "profiling").mkdir()
    for name in ("p.csv", "p.json", "profiling/results_1.csv"):
        (tmp_path / name).write_text(PROFILE)
    (tmp_path / "p.tasks.csv").write_text(HEADER + TASK)
    before = {path: path.read_text() for path in tmp_path.rglob("*.*")}
    words = {"p.csv (again)": ["p.csv", option, "./p.csv"], "p.json": ["p.json", option, "./p.json"]}
    result = grapher(*words.get(file, [option, file]), cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "will not write to" in result.stderr
    assert f"give {option} another name" in result.stderr
    assert {path: path.read_text() for path in tmp_path.rglob("*.*")} == before


def test_a_cell_above_the_ideal_is_not_believed(tmp_path: Path):
    (tmp_path / "profiling").mkdir()
    (tmp_path / "profiling" / "benchmarks.csv").write_text(SWEEP)
    (tmp_path / "profiling" / "benchmarks.json").write_text('{"tasks": 1, "seconds": 700}')
    result = script("benchmark.py", "--workers=1", "--clients=1", "--tasks=1", "--seconds=700", cwd=tmp_path)
    assert result.returncode == 1
    assert "the cell 1 x 1 is above the ideal, as no pool can be" in result.stderr


def test_the_benchmark_says_so_when_its_server_dies(tmp_path: Path):
    process = start_long_benchmark(tmp_path)
    (server,) = (child for child in processes_in(tmp_path) if "--profile" in child.cmdline())
    server.kill()
    _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 2
    assert "Traceback" not in stderr
    assert "a process of the benchmark ended too early" in stderr.splitlines()[-1]
    eventually(lambda: processes_in(tmp_path) == [], "its worker and clients have ended")
