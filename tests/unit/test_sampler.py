"""What is recorded, in which order, and what happens when it cannot be."""

from __future__ import annotations

import csv
import errno
import itertools
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import psutil
import pytest

from distribute_challenge.record.files import RecordFile, open_record
from distribute_challenge.record.flight import MEMORY_BYTES, FlightRecorder, label
from distribute_challenge.record.flight_reader import Begun, Ended, FlightReader
from distribute_challenge.record.meter import Meter
from distribute_challenge.record.profile import COUNTS_ONLY, Change, Clock, Rows, Usage
from distribute_challenge.record.sampler import Sampler
from distribute_challenge.record.tasks import KILLED, CutOff, TaskRows
from tests.running import eventually


class Process(NamedTuple):
    """A worker's process, as a sampler sees it."""

    pid: int
    flight: FlightReader


def process(pid: int) -> Process:
    return Process(pid, FlightReader(bytearray(MEMORY_BYTES)))


def descriptor_of(path: Path) -> int:
    """That of this process which is open on a file."""
    found = {os.path.realpath(entry): int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    return found[str(path.resolve())]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_changes_are_rows_in_their_order_and_samples_come_between(tmp_path: Path):
    path = tmp_path / "results_2.csv"
    sampler = Sampler(path, [1, 2], 0.02, lambda: [None, None])
    sampler.start()
    for number in range(100):
        sampler.record("acquire", 0, 1, number, 0, 3, 0)
        sampler.record(COUNTS_ONLY, None, 0, number + 1, 0, 3, 0)
        sampler.record("free", 0, 0, number + 1, 0, 3, 0)
    eventually(lambda: rows(path) and rows(path)[-1]["Event"] == "sample", "there is a sample")
    sampler.close()
    written = rows(path)
    assert [int(row[""]) for row in written] == list(range(len(written)))
    changes = [(row["Event"], row["Busy"], row["Finished"]) for row in written if row["Event"] != "sample"]
    assert changes == [
        row
        for number in range(100)
        for row in (("acquire", "[1, 0]", str(number)), ("free", "[0, 0]", str(number + 1)))
    ]
    times = [float(row["Timestamp"]) for row in written]
    assert times == sorted(times)


def test_time_in_a_profile_never_falls():
    """Two threads take theirs one after the other, and come to write in another order."""
    made = Rows(1)
    texts = [
        made.sample(13, [Usage(1, 2)]),
        made.change(Change(12.5, "acquire", 0, 1, 0, 0, 0, 0)),
        made.change(Change(13.5, "free", 0, 0, 1, 0, 0, 0)),
    ]
    assert [text.split(",")[1] for text in texts] == ["13.000000", "13.000000", "13.500000"]


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_how_long_a_task_waited_is_right_after_the_systems_clock_was_set(
    monkeypatch: pytest.MonkeyPatch, step_s: float
):
    clock = Clock()
    rows = TaskRows([1], clock)
    waited: list[float | None] = []
    rows.on_row = lambda *row: waited.append(row[-1])
    system = time.time
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: system() + step_s)
    after = clock.now()
    started = time.monotonic()
    begun = Begun(started, time.time() - 2, 100, b"12345678", "func", "challenge.py:7")
    row = rows.ended(0, Ended(begun, 100, started + 1, 1, 14, 1, 0, False, ""), memory_bytes=None)
    assert waited == [pytest.approx(2, abs=0.05)]
    queued, of_start, ended = map(float, row.split(",")[4:7])
    assert [of_start - queued, ended - of_start] == pytest.approx([2, 1], abs=0.05)
    assert after - before == pytest.approx(max(step_s, 0), abs=0.5), "set forward it follows; it never falls"
    assert of_start == pytest.approx(after, abs=0.5)


def test_a_record_that_was_never_started_is_written_when_it_is_closed(tmp_path: Path):
    sampler = Sampler(tmp_path / "p.csv", [1], 60, lambda: [None])
    sampler.record("stop", None, 0, 0, 0, 0, 0)
    sampler.close()
    assert [row["Event"] for row in rows(tmp_path / "p.csv")] == ["stop"]


def test_a_full_disk_ends_the_record_and_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sampler = Sampler(tmp_path / "p.csv", [1], 0.01, lambda: [None])
    with Path("/dev/full").open("r+b", buffering=0) as full:
        os.dup2(full.fileno(), descriptor_of(tmp_path / "p.csv"))
    with caplog.at_level(logging.ERROR):
        sampler.start()
        for _ in range(3):
            sampler.record("acquire", 0, 1, 0, 0, 0, 0)
            eventually(lambda: not sampler._changes, "the change is taken")
        sampler.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"the record {tmp_path}/p.csv ends here (No space left on device); the pool works on"
    ]


def test_a_record_ends_with_a_row_for_which_there_is_not_enough_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = RecordFile(tmp_path / "p.csv", "header\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len("header\n") + 4, limits[1]))
    try:
        with caplog.at_level(logging.ERROR):
            file.write("1,2,3,4\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.write("5,6,7,8\n")
    assert (tmp_path / "p.csv").read_text() == "header\n1,2,"
    (record,) = caplog.records
    assert "ends here (no space left for the rest of a row)" in record.getMessage()


def test_what_cannot_be_measured_is_unknown_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Out of descriptors, say. The changes are recorded all the same, and measuring is tried again."""
    measure = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr(Meter, "measure", measure)
    path = tmp_path / "p.csv"
    sampler = Sampler(path, [1, 2], 0.01, lambda: [process(1), process(2)])
    with caplog.at_level(logging.ERROR):
        sampler.start()
        eventually(lambda: len(rows(path)) > 2, "there are samples")
        measure.side_effect = OSError(errno.EACCES, "Permission denied")
        sampler.record("acquire", 0, 1, 0, 0, 0, 0)
        eventually(lambda: rows(path)[-1]["Busy"] == "[1, 0]", "the change is recorded")
        assert {row["CPU"] for row in rows(path)} <= {"", "[null, null]"}
        measure.side_effect = None
        measure.return_value = [Usage(50, 1024), Usage(0, 2048)]
        eventually(lambda: rows(path)[-1]["CPU"] == "[50, 0]", "the workers are measured again")
        sampler.close()
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("cannot measure the workers ([Errno 24] Too many open files)")


def test_a_measurement_that_fails_does_not_lose_what_was_known(monkeypatch: pytest.MonkeyPatch):
    """Else the next one would count everything since the process began as if it had just been taken."""
    meter = Meter()
    meter.measure([os.getpid()], may_have_children=False)
    known = dict(meter._before)
    monkeypatch.setattr(psutil.Process, "cpu_times", Mock(side_effect=psutil.AccessDenied(1)))
    with pytest.raises(OSError, match="pid=1"):
        meter.measure([os.getpid()], may_have_children=False)
    assert meter._before == known


def test_what_a_worker_took_before_the_record_began_is_in_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usages = itertools.chain([[Usage(900, 1024)]], itertools.repeat([Usage(1, 1024)]))
    monkeypatch.setattr(Meter, "measure", Mock(side_effect=usages))
    path = tmp_path / "p.csv"
    sampler = Sampler(path, [1], 0.01, lambda: [process(1)])
    sampler.start()
    eventually(lambda: rows(path), "there is a sample")
    sampler.close()
    assert rows(path)[0]["CPU"] == "[1]"


def test_a_workers_usage_includes_its_children():
    """A parent that sleeps, and a child of it that computes and holds 50 MB."""
    child = "data = bytearray(50_000_000)\nprint('ready', flush=True)\nwhile True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        meter = Meter()
        before = meter.measure([process.pid, None], may_have_children=True)
        assert before[0].memory_bytes is not None
        assert before[0].memory_bytes > 50_000_000
        assert before[1] == Usage(None, None)
        threading.Event().wait(0.5)  # That long it computes; less of it, if the machine is busy.
        usage = meter.measure([process.pid], may_have_children=True)[0]
        assert usage.cpu_percent is not None
        assert 5 < usage.cpu_percent < 120
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert meter.measure([process.pid], may_have_children=True) == [Usage(None, None)]


def test_an_idle_pool_is_measured_without_a_look_at_every_process(monkeypatch: pytest.MonkeyPatch):
    table = Mock(side_effect=AssertionError("the process table was read"))
    monkeypatch.setattr("psutil.process_iter", table)
    usage = Meter().measure([os.getpid()], may_have_children=False)
    assert usage[0].memory_bytes


def test_names_for_older_records_do_not_collide(tmp_path: Path):
    path = tmp_path / "results_1.csv"
    for _ in range(4):
        for file in open_record(path):
            file.close()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 8
    profiles = [name.removeprefix("results_") for name in names if name.startswith("results_")]
    assert profiles == [name.removeprefix("tasks_") for name in names if name.startswith("tasks_")]


def test_tasks_without_a_profile_are_renamed_as_well(tmp_path: Path):
    (tmp_path / "tasks_1.csv").write_text("mine")
    for file in open_record(tmp_path / "results_1.csv"):
        file.close()
    (older,) = tmp_path.glob("tasks_1.*-*.csv")
    assert older.read_text() == "mine"


def test_a_link_to_nothing_is_no_record_of_an_earlier_run(tmp_path: Path):
    (tmp_path / "p.csv").symlink_to("nothing")
    with pytest.raises(OSError, match="not a plain file"):
        open_record(tmp_path / "p.csv")


def test_of_servers_that_start_together_one_writes_the_record(tmp_path: Path):
    """The others are told that it is in use, and take none of its files away."""
    path = tmp_path / "p.csv"
    servers, rounds = 6, 100
    together = threading.Barrier(servers)
    opened: list[tuple[int, RecordFile]] = []
    problems: set[int | None] = set()

    def server() -> None:
        for number in range(rounds):
            together.wait()
            try:
                files = open_record(path)
            except OSError as error:
                problems.add(error.errno)
            else:
                opened.extend((number, file) for file in files)
                files[0].write(f"{number}\n")
            together.wait()
            for file in [file for at, file in opened if at == number]:
                file.close()

    with ThreadPoolExecutor(servers) as pool:
        for running in [pool.submit(server) for _ in range(servers)]:
            running.result()
    assert problems == {errno.EBUSY}
    profiles = [file for file in tmp_path.glob("p*.csv") if ".tasks" not in file.name]
    rows = [line for file in profiles for line in file.read_text().splitlines() if line.isdigit()]
    assert sorted(rows, key=int) == [str(number) for number in sorted({number for number, _ in opened})]
    assert max(len(file.read_text().splitlines()) for file in profiles) == 2


def test_a_record_that_somebody_has_cut_stays_readable(tmp_path: Path):
    path = tmp_path / "p.csv"
    sampler = Sampler(path, [1], 0.01, lambda: [None])
    sampler.start()
    eventually(lambda: len(rows(path)) > 2, "there are samples")
    os.truncate(path, 0)
    eventually(lambda: path.stat().st_size > 0, "there is another row")
    sampler.close()
    assert b"\0" not in path.read_bytes()


def test_what_ended_and_what_was_cut_off_are_rows(tmp_path: Path):
    memory = bytearray(MEMORY_BYTES)
    recorder, reader = FlightRecorder(memory), FlightReader(memory)
    sampler = Sampler(tmp_path / "p.csv", [18812], 60, lambda: [Process(1, reader)])
    inside = Mock()
    sampler.on_inside = inside
    recorder.begin(b"1" * 8, label("long", "a.py:1"), 10, 1.0)
    within = recorder.begin(b"2" * 8, label("within", "worker:2"), 20, is_inside=True)
    recorder.end(within, finished=1, failed=0, seconds=0.5, returned=3)
    sampler.worker_gone(0, reader, CutOff(KILLED, "CancelledError: so it was wished"))
    sampler.close()
    inside.assert_called_once_with(1, 0)
    ended, killed = rows(tmp_path / "p.tasks.csv")
    assert [ended[name] for name in ("Function", "Client", "Worker", "Count", "Status", "Queued")] == [
        *("within", "worker:2", "18812", "1", "done", "")
    ]
    assert [killed[name] for name in ("Function", "Count", "Status", "Error", "Returned")] == [
        *("long", "1", "killed", "CancelledError: so it was wished", "0")
    ]
    assert float(killed["Queued"]) == 1
    assert float(killed["Ended"]) - float(killed["Started"]) == pytest.approx(
        float(killed["Seconds"]), abs=1e-5
    )
    assert float(killed["Started"]) <= float(ended["Started"])


def test_the_memory_of_a_task_is_the_most_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measure = Mock(return_value=[Usage(1.0, 5000)])
    monkeypatch.setattr(Meter, "measure", measure)
    memory = bytearray(MEMORY_BYTES)
    recorder, reader = FlightRecorder(memory), FlightReader(memory)
    path = tmp_path / "p.csv"
    flight = recorder.begin(b"1" * 8, label("grows", "a.py:1"), 10)
    sampler = Sampler(path, [18812], 0.01, lambda: [Process(1, reader)])
    sampler.start()
    for memory_bytes in (5000, 3000):
        measure.return_value = [Usage(1.0, memory_bytes)]
        eventually(
            lambda size=memory_bytes: rows(path)[-1:] and rows(path)[-1]["Memory"] == f"[{size}]",
            "it is seen",
        )
    recorder.end(flight, finished=1, failed=0, seconds=0.5, returned=3)
    sampler.close()
    assert [row["Memory"] for row in rows(tmp_path / "p.tasks.csv")] == ["5000"]


def test_the_memory_of_a_task_is_that_of_its_own_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each worker numbers the calls of plain clients itself."""
    monkeypatch.setattr(Meter, "measure", Mock(return_value=[Usage(1.0, 7000), Usage(1.0, 5000)]))
    memories = [bytearray(MEMORY_BYTES) for _ in range(2)]
    processes = [Process(1, FlightReader(memory)) for memory in memories]
    recorders = [FlightRecorder(memory) for memory in memories]
    flights = [recorder.begin(b"1" * 8, label("plain", "a.py:1"), 10) for recorder in recorders]
    path = tmp_path / "p.csv"
    sampler = Sampler(path, [18812, 18813], 0.01, lambda: processes)
    sampler.start()
    eventually(lambda: "sample" in path.read_text(), "it is seen")
    for recorder, flight in zip(recorders, flights, strict=True):
        recorder.end(flight, finished=1, failed=0, seconds=0.5, returned=3)
    sampler.close()
    found = {row["Worker"]: row["Memory"] for row in rows(tmp_path / "p.tasks.csv")}
    assert found == {"18812": "7000", "18813": "5000"}


def test_after_a_stall_the_next_sample_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Processor time is counted in steps of 10 ms: over a moment it would be nonsense."""
    began: list[float] = []

    def measure(*_: Any, **__: Any) -> list[Usage]:
        began.append(time.monotonic())
        if len(began) == 2:
            time.sleep(0.5)  # As when the server is stopped.
        return [Usage(1.0, 1)]

    monkeypatch.setattr(Meter, "measure", measure)
    sampler = Sampler(tmp_path / "p.csv", [18812], 0.2, lambda: [None])
    sampler.start()
    eventually(lambda: len(began) >= 5, "it goes on")
    sampler.close()
    assert began[2] - began[1] >= 0.69


def test_a_call_that_ends_while_a_sample_is_taken_keeps_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory = bytearray(MEMORY_BYTES)
    recorder, reader = FlightRecorder(memory), FlightReader(memory)
    flight = recorder.begin(b"1" * 8, label("ends", "a.py:1"), 10)
    samples = itertools.count()

    def measure(*_: Any, **__: Any) -> list[Usage]:
        if next(samples) == 3:
            recorder.end(flight, finished=1, failed=0, seconds=0.5, returned=3)
        return [Usage(1.0, 5000)]

    monkeypatch.setattr(Meter, "measure", measure)
    sampler = Sampler(tmp_path / "p.csv", [18812], 0.01, lambda: [Process(1, reader)])
    sampler.start()
    path = tmp_path / "p.tasks.csv"
    eventually(lambda: rows(path), "it is written")
    sampler.close()
    assert [row["Memory"] for row in rows(path)] == ["5000"]


@pytest.mark.parametrize("left", [0, 5, 60, 100, 101, 130])
def test_a_record_that_somebody_cuts_stays_whole(tmp_path: Path, left: int):
    """With `: > FILE`, say, or by a program that rotates logs."""
    path = tmp_path / "rows.csv"
    header, row = "a,b\n", "x" * 47 + ",1\n"
    file = RecordFile(path, header)
    file.write(row * 3)
    with path.open("r+b") as other:
        other.truncate(left)
    file.write(row)
    file.write(row)
    file.close()
    whole = header + row * (max(left - len(header), 0) // len(row))
    assert path.read_text() == whole + row * 2


def test_what_a_process_took_that_has_died_is_not_known():
    """Until it is buried the system says that it has no memory."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (usage,) = Meter().measure([process.pid], may_have_children=False)
        assert usage.memory_bytes is None
    finally:
        process.wait()
