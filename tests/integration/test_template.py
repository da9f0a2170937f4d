"""Workers that are forked from a template: the server's own children, alike in nothing that must differ."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import rpyc

from tests.running import HANG_S, ROOT, RunningServer, connect, eventually

LOOK = """
import gc, os, signal, sys, threading

def is_inheritable(number):
    try:
        return number > 2 and os.get_inheritable(number)
    except OSError:  # That of the listing.
        return False

output, errors = os.readlink("/proc/self/fd/1"), os.readlink("/proc/self/fd/2")
result = repr({
    "leads a session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "parent": os.getppid(),
    "stdin": os.readlink("/proc/self/fd/0"),
    "output": output == errors and output.partition(":")[0],
    "inheritable": [number for number in os.listdir("/proc/self/fd") if is_inheritable(int(number))],
    "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "threads": sorted(thread.name.split()[0] for thread in threading.enumerate()),
    "program": sys.argv[0],
    "path": sys.path,
    "directory": os.getcwd(),
    "variables": sorted(os.environ),
})
"""


def _look(port: int) -> dict[str, Any]:
    with connect(port) as worker:
        found: dict[str, Any] = eval(worker.root.run_code(LOOK))
    return found


def _kill_and_await_successor(server: RunningServer, number: int) -> None:
    pid = server.worker_pids()[number]
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        worker = server.status()["workers"][number]
        return worker["state"] == "free" and worker["pid"] != pid

    eventually(is_back, "another worker is up in its place")


def test_workers_are_children_of_the_server_and_say_which_they_are(server: RunningServer):
    for pid, port in zip(server.worker_pids(), server.ports, strict=True):
        worker = psutil.Process(pid)
        assert worker.ppid() == server.pid
        assert worker.cmdline() == ["worker", str(port)]
        assert worker.name() == f"worker {port}"


def test_a_forked_worker_is_as_one_that_was_executed(server: RunningServer):
    forked = _look(server.ports[0])
    assert forked["parent"] == server.pid
    server.template().kill()
    _kill_and_await_successor(server, 0)
    executed = _look(server.ports[0])
    assert "__main__" in "".join(psutil.Process(server.worker_pids()[0]).cmdline())
    assert forked == executed


def test_workers_of_one_template_draw_numbers_of_their_own(server: RunningServer):
    draw = "import random, uuid, tempfile\nresult = random.random(), uuid.uuid4().hex, tempfile.mktemp()"
    drawn = []
    for port in server.ports:
        with connect(port) as worker:
            drawn += worker.root.run_code(draw)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_template_a_server_replaces_workers_all_the_same(server: RunningServer, what: int):
    """A template that is stopped is waited for some time."""
    template = server.template()
    template.send_signal(what)
    _kill_and_await_successor(server, 1)
    assert not psutil.pid_exists(template.pid)
    _kill_and_await_successor(server, 0)
    with connect(server.ports[0]) as worker:
        assert worker.root.run_code("result = 6 * 7") == 42
    assert "template of workers" in server.stderr()
    assert server.stop() == 0


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_template_ends_with_its_server(
    start_server: Callable[..., RunningServer], number: int, is_stopped: bool
):
    server = start_server(1)
    template = server.template()
    if is_stopped:
        template.suspend()
    server.stop(number)
    eventually(lambda: not psutil.pid_exists(template.pid), "the template has ended")


def test_what_functions_leave_running_becomes_no_child_of_the_server(server: RunningServer):
    """A server must end with no zombies: it takes in workers only, though their template is no parent."""
    command = "setsid sleep 60 >/dev/null & echo $!"
    leave = f"import subprocess\nresult = int(subprocess.check_output({command!r}, shell=True))"
    with connect(server.ports[0]) as worker:
        left = psutil.Process(worker.root.run_code(leave))
    try:
        assert left.ppid() != server.pid
    finally:
        left.kill()


LEAVES = """
import subprocess, time
for _ in range(5): subprocess.Popen(["sleep", "60"])
daemon = subprocess.Popen(["sleep", "60"], start_new_session=True)
open({path!r}, "a").write(f"{{daemon.pid}}\\n")
time.sleep(60)
"""


def test_what_dies_while_workers_are_replaced_leaves_no_zombie(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    """Workers that die together leave processes when the server takes in who has no parent."""
    server = start_server(4)
    process = psutil.Process(server.pid)
    daemons: list[int] = []
    for number in range(4):
        begun = tmp_path / f"begun {number}"
        source = LEAVES.format(path=str(begun))
        with contextlib.ExitStack() as opened:
            for port in server.ports:
                worker = opened.enter_context(connect(port))
                rpyc.async_(worker.root.run_code)(source)
            begun.touch()
            eventually(lambda begun=begun: begun.read_text().count("\n") == 4, "all run")
            daemons += map(int, begun.read_text().split())
            killed = set(server.worker_pids())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        eventually(lambda killed=killed: killed.isdisjoint(server.worker_pids()), "all deaths were noticed")
        eventually(lambda: [it["state"] for it in server.status()["workers"]] == ["free"] * 4, "all are back")
    for pid in daemons:
        os.kill(pid, signal.SIGKILL)

    def has_only_its_own() -> bool:
        return len(process.children()) == 5  # Four workers and the template.

    eventually(has_only_its_own, "all that it had adopted is buried")


def test_a_template_that_is_stopped_holds_up_neither_status_nor_the_end(server: RunningServer):
    server.template().suspend()
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    eventually(lambda: server.status()["workers"][0]["state"] == "starting", "its successor is waited for")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(HANG_S) == 0
    assert "the template of workers has ended" not in server.stderr()


def test_a_template_keeps_nothing_of_the_workers_that_it_has_forked(
    start_server: Callable[..., RunningServer],
):
    server = start_server(1)
    _kill_and_await_successor(server, 0)
    before = server.template().num_fds()
    for _ in range(3):
        _kill_and_await_successor(server, 0)
    eventually(lambda: server.template().num_fds() == before, "it has closed what was theirs")


ENDS_EARLY = """
import os, select, signal, sys
from distribute_challenge.server.workers.template import Template, TemplateEndedError

def setsid():
    leaders.append(os.getpid())
    if len(leaders) == 2:  # The template has forked a worker, and is not told yet which one.
        end = os.pidfd_open(leaders[0])
        os.kill(leaders[0], signal.SIGKILL)
        select.select([end], [], [])
    leads()

leaders, leads = [], os.setsid
os.setsid = setsid
template = Template()
try:
    template.start(["0"], {}, {}, sys.stdout.fileno())
except TemplateEndedError:
    print("ended")
template.close()
"""


# The process between the template and its worker ends late.
SLOW = """
import os, time
fork = os.fork
def fork_slowly():
    pid = fork()
    if pid and leaders and os.getpid() != leaders[0]:
        time.sleep(0.5)
    return pid
os.fork = fork_slowly
"""


@pytest.mark.parametrize("how", ["", SLOW], ids=["", "slowly"])
def test_a_template_that_is_killed_while_it_forks_says_nothing(how: str):
    """What was to be a worker shares the server's output: it would print there that nobody listens to it."""
    ended = subprocess.run(
        [sys.executable, "-c", how + ENDS_EARLY], capture_output=True, text=True, cwd=ROOT, timeout=HANG_S
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")
