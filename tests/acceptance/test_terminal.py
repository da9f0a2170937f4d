"""`compute status`, `compute stack` and `compute top`, as a user types them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor
from tests.running import HANG_S, ROOT, RunningServer, eventually, free_port

COMMAND = str(Path(sys.executable).with_name("compute"))


def compute(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=HANG_S, **options)


def test_where_nothing_is_installed_the_package_is_the_command(server: RunningServer, tmp_path: Path):
    """Only what it needs, as by `pip install -r requirements.txt`: so nothing tells its version."""
    (tmp_path / "distribute_challenge").symlink_to(ROOT / "distribute_challenge")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "def version(name):\n    raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = version\n"
    )

    def shown(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distribute_challenge", *words]
        where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path)}}
        return subprocess.run(command, **where, capture_output=True, text=True, timeout=HANG_S)

    assert f"{server.address}, up" in shown("status", "--server", server.address).stdout
    assert shown("top", "--no-such").stderr.startswith("compute top: ")
    assert shown("--version").stdout == "compute of a clone that is not installed\n"


def in_python():
    while True:
        time.sleep(0)


def in_c():
    re.match(r"(a+)+$", "a" * 64 + "b")


@contextlib.contextmanager
def running(function: Callable[[], object]) -> Iterator[None]:
    """A function that runs, until the block ends."""
    with PoolExecutor() as pool:
        future = pool.submit(function)
        try:
            yield
        finally:
            pool.kill(future)


def test_status_is_shown_in_words(server: RunningServer):
    with running(in_python):
        eventually(lambda: "in_python" in compute("status").stdout, "the function is shown")
    server.await_busy([0, 0])
    shown = compute("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    first, *rest = shown.stdout.splitlines()
    assert first.startswith(f"{server.address}, up ")
    assert first.endswith("busy 0/2, waiting 0 clients and 0 tasks, finished 0, failed 1, lost 1 (1 killed)")
    assert [line.split()[0] for line in rest] == ["worker", *map(str, server.ports)]


def test_status_is_json_for_programs(server: RunningServer):
    shown = json.loads(compute("status", "--json", "--server", server.address).stdout)
    own = server.status()
    assert set(shown) == set(own)
    assert [worker["port"] for worker in shown["workers"]] == server.ports
    assert abs(shown["now"] - time.time()) < HANG_S


@pytest.mark.parametrize("function", [in_python, in_c])
def test_stack_tells_where_a_function_is(server: RunningServer, function: Callable[[], object]):
    where = re.compile(rf'^  File "{__file__}", line \d+ in {function.__name__}$', re.MULTILINE)
    with running(function):
        shown = eventually(lambda: where.search((it := compute("stack")).stdout) and it, "its stack is shown")
    assert shown.returncode == 0
    assert f"): {function.__name__}, for " in shown.stdout
    assert f":{os.getpid()}\n" in shown.stdout
    assert shown.stdout.count("no function runs") == 1


def test_stack_takes_a_port(server: RunningServer):
    shown = compute("stack", str(server.ports[1]))
    assert shown.stdout == f"worker {server.ports[1]} (process {server.worker_pids()[1]}): no function runs\n"
    wrong = compute("stack", "1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    known = ", ".join(map(str, server.ports))
    assert wrong.stderr == f"compute stack: no worker of this pool has the port 1: give one of {known}\n"


@pytest.mark.parametrize("command", ["status", "stack", "top"])
def test_without_a_server_one_line_says_what_to_do(command: str):
    for words, said in (
        (["--server", f"localhost:{free_port()}"], "start one with `compute server 2`"),
        (["--server", "local://2"], "is no server that can be asked: give the HOST:PORT of one"),
        (["--no-such"], f"see `compute {command} --help`"),
    ):
        shown = compute(command, *words)
        assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (2, "", 1)
        assert shown.stderr.startswith(f"compute {command}: ")
        assert said in shown.stderr


def test_top_without_its_extra_says_what_to_install(tmp_path: Path, server: RunningServer):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('No module named rich', name='rich')\n")
    shown = compute("top", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (2, "", 1)
    assert "rich is not installed" in shown.stderr
    assert "pip install 'distribute-challenge[top]'" in shown.stderr


class Terminal:
    """A program on a terminal, which it may have to itself (`controlling`), in the foreground or not."""

    def __init__(
        self,
        *command: str,
        columns: int = 80,
        controlling: bool = False,
        in_background: bool = False,
        ignores_hangup: bool = False,
        **options: Any,
    ) -> None:
        try:
            self._end, other = pty.openpty()
        except OSError as error:  # As where /dev/pts is not mounted.
            pytest.skip(f"this machine gives no terminals: {error}")
        self._settings, self.is_as_found = termios.tcgetattr(other), False
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}

        def prepare() -> None:
            if controlling:
                fcntl.ioctl(other, termios.TIOCSCTTY, 0)
            if in_background:
                # A child, which ends at once, is in the foreground: a shell would take that back.
                child = os.fork()
                if not child:
                    os.setpgid(0, 0)
                    os._exit(0)
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                os.tcsetpgrp(other, child)
            if ignores_hangup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

        streams = dict.fromkeys(("stdin", "stdout", "stderr"), other) | options
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=prepare,
            **streams,
        )
        os.close(other)
        self.seen = ""

    def read(self) -> str:
        """All that it has shown so far."""
        while select.select([self._end], [], [], 0)[0]:
            try:
                data = os.read(self._end, 1 << 16)
            except OSError:  # It has ended.
                break
            self.seen += data.decode(errors="replace")
        return self.seen

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._end)

    def close(self) -> int:
        """Wait for its end; the exit code."""
        eventually(lambda: (self.read(), self.process.poll())[1] is not None, "it ends")
        self.is_as_found = termios.tcgetattr(self._end) == self._settings
        os.close(self._end)
        return self.process.wait(HANG_S)


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("key", ["q", "\x03"])
def test_top_shows_what_changes_until_a_key_ends_it(server: RunningServer, columns: int, key: str):
    pytest.importorskip("rich")
    terminal = Terminal(COMMAND, "top", "--interval", "0.05", columns=columns)
    try:
        eventually(lambda: "busy 0/2" in terminal.read(), "an idle pool is shown")
        with running(in_python):
            eventually(lambda: "in_python" in terminal.read(), "the function is shown")
        eventually(lambda: "lost 1 (1 killed)" in terminal.read(), "the loss is shown")
        counted = re.compile(r" (0\.[1-9]|[1-9][\d.]*) tasks/s")
        eventually(lambda: counted.search(terminal.read()), "it counts as a task that has ended")
        if key == "q":
            terminal.type(key)
        else:
            terminal.process.send_signal(2)
    finally:
        assert terminal.close() == 0
    assert "Traceback" not in terminal.seen
    assert terminal.is_as_found  # What is typed is shown again.


def test_top_ends_with_its_server(server: RunningServer):
    pytest.importorskip("rich")
    terminal = Terminal(COMMAND, "top", "--interval", "0.05")
    eventually(lambda: "busy 0/2" in terminal.read(), "an idle pool is shown")
    server.stop()
    assert terminal.close() == 2
    assert terminal.is_as_found
    assert "has ended, and its workers with it" in " ".join(terminal.seen.split())


def test_top_is_a_picture_where_there_is_no_terminal(server: RunningServer):
    pytest.importorskip("rich")
    shown = compute("top")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[1].startswith("busy 0/2")
    assert "\x1b" not in shown.stdout


def started_server(folder: Path, *options: str, **how: Any) -> tuple[Terminal, str]:
    """A server on a terminal of its own; and its address, once it is ready."""
    command = [sys.executable, str(ROOT / "server.py"), "2", "--port", "0", *options]
    terminal = Terminal(*command, cwd=folder, **how)
    eventually(lambda: "ready: " in terminal.read() or terminal.process.poll() is not None, "it is ready")
    return terminal, terminal.seen.partition("ready: ")[2].split()[0].rstrip(",")


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after this, as far as a status line needs it."""
    lines = [""]
    for part in re.split(r"(\r\n|\n|\r|\x1b\[K)", text):
        if part in ("\r\n", "\n"):
            lines.append("")
        elif part in ("\r", "\x1b[K"):
            lines[-1] = "" if part == "\r" else lines[-1]
        else:
            lines[-1] += part
    return lines


def test_a_server_on_a_terminal_keeps_one_line(tmp_path: Path):
    terminal, address = started_server(tmp_path, controlling=True)
    try:
        eventually(
            lambda: "busy 0/2, waiting 0, 0.0 tasks/s, finished 0" in terminal.read(), "there is a line"
        )
        with PoolExecutor(address) as pool:
            assert sum(pool.map(abs, range(1204))) == 1203 * 602
            eventually(
                lambda: screen(terminal.read())[-1].endswith("finished 1,204"), "it tells what is done"
            )
        assert sum("busy" in line for line in screen(terminal.seen)) == 1
        terminal.process.terminate()
    finally:
        assert terminal.close() == 0
    assert not any("busy" in line for line in screen(terminal.seen))


def test_the_log_goes_above_the_line(tmp_path: Path):
    terminal, address = started_server(tmp_path, "-v", controlling=True)
    try:
        eventually(lambda: "busy 0/2" in terminal.read(), "there is a line")
        with PoolExecutor(address) as pool:
            pool.submit(abs, 1).result(HANG_S)
        eventually(lambda: "finished 1" in screen(terminal.read())[-1], "it tells what is done")
        shown = screen(terminal.seen)
        assert any("leases worker" in line for line in shown)
        assert sum("busy" in line for line in shown) == 1
        terminal.process.terminate()
    finally:
        assert terminal.close() == 0


@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["-q"], {"controlling": True}),
        ([], {"controlling": False}),
        ([], {"controlling": True, "stderr": subprocess.PIPE}),
        ([], {"controlling": True, "in_background": True}),
    ],
    ids=["-q", "not our terminal", "a pipe", "in the background"],
)
def test_there_is_no_line_where_nobody_wants_it(tmp_path: Path, options: list[str], how: dict[str, Any]):
    terminal, address = started_server(tmp_path, *options, **how)
    try:
        with PoolExecutor(address) as pool:
            pool.submit(abs, 1).result(HANG_S)
        eventually(lambda: (tmp_path / "profiling" / "tasks_2.csv").read_text().count("\n") == 2, "recorded")
        terminal.process.terminate()
    finally:
        assert terminal.close() == 0
    assert "busy" not in terminal.seen
    if terminal.process.stderr is not None:
        assert terminal.process.stderr.read() == b""
        terminal.process.stderr.close()


def test_a_terminal_that_goes_away_does_not_end_the_pool(tmp_path: Path):
    terminal, address = started_server(tmp_path, controlling=True, ignores_hangup=True)
    try:
        eventually(lambda: "busy 0/2" in terminal.read(), "there is a line")
        terminal.hang_up()
        with PoolExecutor(address) as pool:
            assert list(pool.map(abs, range(100))) == list(range(100))
    finally:
        terminal.process.terminate()
        assert terminal.process.wait(HANG_S) == 0


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["stack"]])
def test_who_has_enough_of_what_is_printed_gets_no_traceback(server: RunningServer, words: list[str]):
    """As `compute status | head -1`."""
    command = subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait(HANG_S) == 0
