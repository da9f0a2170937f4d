"""Workers that are forked from a template: the server's own children, alike in nothing that must differ."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.running import RunningServer, connect, eventually

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
