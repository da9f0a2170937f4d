"""What is recorded, in which order, and what happens when it cannot be."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from distribute_challenge.record.profile import COUNTS_ONLY, Usage, name_for_older, open_profile
from distribute_challenge.record.sampler import Meter, Sampler
from tests.running import eventually


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_changes_are_rows_in_their_order_and_samples_come_between(tmp_path: Path):
    path = tmp_path / "results_2.csv"
    sampler = Sampler(path, 2, 0.02, lambda: [None, None])
    sampler.start()
    for number in range(100):
        sampler.record("acquire", 0, 1, number, 0, 3)
        sampler.record(COUNTS_ONLY, None, 0, number + 1, 0, 3)
        sampler.record("free", 0, 0, number + 1, 0, 3)
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


def test_a_record_that_was_never_started_is_written_when_it_is_closed(tmp_path: Path):
    sampler = Sampler(tmp_path / "p.csv", 1, 60, lambda: [None])
    sampler.record("stop", None, 0, 0, 0, 0)
    sampler.close()
    assert [row["Event"] for row in rows(tmp_path / "p.csv")] == ["stop"]


def test_a_full_disk_ends_the_record_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  The sampler closes it.
    monkeypatch.setattr("distribute_challenge.record.sampler.open_profile", Mock(return_value=full))
    sampler = Sampler(tmp_path / "p.csv", 1, 0.01, lambda: [None])
    with caplog.at_level(logging.ERROR):
        sampler.start()
        for _ in range(3):
            sampler.record("acquire", 0, 1, 0, 0, 0)
            eventually(lambda: not sampler._changes, "the change is taken")
        sampler.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"the profile {tmp_path}/p.csv ends here (No space left on device); the pool works on"
    ]


def test_what_cannot_be_measured_is_unknown_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Out of descriptors, say. The changes are recorded all the same, and measuring is tried again."""
    measure = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr(Meter, "measure", measure)
    path = tmp_path / "p.csv"
    sampler = Sampler(path, 2, 0.01, lambda: [1, 2])
    with caplog.at_level(logging.ERROR):
        sampler.start()
        eventually(lambda: len(rows(path)) > 2, "there are samples")
        measure.side_effect = psutil.AccessDenied(1)
        sampler.record("acquire", 0, 1, 0, 0, 0)
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
    with pytest.raises(psutil.AccessDenied):
        meter.measure([os.getpid()], may_have_children=False)
    assert meter._before == known


def test_what_a_worker_took_before_the_record_began_is_in_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usages = itertools.chain([[Usage(900, 1024)]], itertools.repeat([Usage(1, 1024)]))
    monkeypatch.setattr(Meter, "measure", Mock(side_effect=usages))
    path = tmp_path / "p.csv"
    sampler = Sampler(path, 1, 0.01, lambda: [1])
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
        assert before[1] == (None, None)
        threading.Event().wait(0.5)  # That long it computes; less of it, if the machine is busy.
        usage = meter.measure([process.pid], may_have_children=True)[0]
        assert usage.cpu_percent is not None
        assert 5 < usage.cpu_percent < 120
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert meter.measure([process.pid], may_have_children=True) == [(None, None)]


def test_an_idle_pool_is_measured_without_a_look_at_every_process(monkeypatch: pytest.MonkeyPatch):
    table = Mock(side_effect=AssertionError("the process table was read"))
    monkeypatch.setattr("psutil.process_iter", table)
    usage = Meter().measure([os.getpid()], may_have_children=False)
    assert usage[0].memory_bytes


def test_names_for_older_profiles_do_not_collide(tmp_path: Path):
    path = tmp_path / "results_1.csv"
    for _ in range(3):
        open_profile(path).close()
    open_profile(path).close()
    assert len(list(tmp_path.iterdir())) == 4
    assert name_for_older(path).parent == tmp_path
    assert json.dumps(sorted(name.stem.count("results_1") for name in tmp_path.iterdir())) == "[1, 1, 1, 1]"
