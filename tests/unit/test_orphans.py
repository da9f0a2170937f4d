"""Children that this process was left, and waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from distribute_challenge.server.workers import orphans
from distribute_challenge.server.workers.orphans import Orphans
from tests.running import eventually


def test_only_those_that_nobody_else_waits_for_are_buried():
    ours, stranger = (subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2))
    buried = Orphans()
    buried.known |= {child.pid for child in psutil.Process().children()} - {stranger.pid}
    eventually(lambda: psutil.Process(ours.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
    buried.bury()
    eventually(lambda: not psutil.pid_exists(stranger.pid), "the other one is buried")
    assert ours.wait() == 0


def test_a_burial_leaves_no_descriptor():
    buried = Orphans()
    buried.known |= {child.pid for child in psutil.Process().children()}
    before = psutil.Process().num_fds()
    for _ in range(5):
        stranger = subprocess.Popen([sys.executable, "-c", ""])
        buried.bury()
        eventually(lambda pid=stranger.pid: not psutil.pid_exists(pid), "it is buried")
        stranger.wait()  # So that it is known here, too.
    eventually(lambda: psutil.Process().num_fds() <= before, "nothing stays open")


def test_where_the_system_does_not_tell_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    """As without descriptors: a worker that has just been forked must not be forgotten for that."""
    monkeypatch.setattr(orphans, "_TASKS", Path("/nowhere"))
    Orphans().bury()
