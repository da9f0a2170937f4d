"""A server as a child process, and waiting for what it does without sleeping blindly."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import rpyc

from distribute_challenge import Tls

ROOT = Path(__file__).parents[1]
HANG_S = 120  # No wait in these tests is near this, on a slow machine either; what reaches it hangs.


def eventually(condition: Callable[[], Any], what: str, within_s: float = HANG_S) -> Any:
    """Poll until `condition()` is true; its value."""
    deadline = time.monotonic() + within_s
    pause_s = 0.002
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(pause_s)  # Between two looks at another process, which cannot wake us.
        pause_s = min(1.3 * pause_s, 0.05)
    return value


def has_content(path: Path) -> bool:
    """Whether something has been written to a file: it is there a moment before."""
    return path.exists() and path.stat().st_size > 0


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def script(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts to its end."""
    command = [sys.executable, str(ROOT / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, **options)


def grapher(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `grapher.py` to its end, in this process: most of its time would go into importing matplotlib."""
    from distribute_challenge.pictures import app

    here, program = Path.cwd(), sys.argv
    stdout, stderr = io.StringIO(), io.StringIO()
    os.chdir(cwd)
    sys.argv = ["grapher.py", *arguments]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code: Any = app.main(arguments)
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(here)
        sys.argv = program
    return subprocess.CompletedProcess(arguments, code or 0, stdout.getvalue(), stderr.getvalue())


class RunningServer:
    """`python3 server.py N --port 0`, ready."""

    def __init__(
        self,
        workers: int | None,
        *options: str,
        folder: Path,
        python: str = sys.executable,
        tls: Tls | None = None,
    ) -> None:
        self.folder = folder
        self.tls = tls
        if tls is not None:
            options = (*options, *tls_options(tls))
        self.workers = workers
        self.log = (folder / f"server-{time.monotonic_ns()}.log").open("w+")
        if "--port" not in options:
            options = ("--port", "0", *options)
        self.process = subprocess.Popen(
            [python, str(ROOT / "server.py"), *([] if workers is None else [str(workers)]), *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready: "):
            self.process.wait(HANG_S)
            raise AssertionError(f"not ready: {line!r}, {self.stderr()}")
        self.address = line.split()[1].rstrip(",")
        self.port = int(self.address.rpartition(":")[2])
        self.ports = [int(worker["port"]) for worker in self.status()["workers"]]

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self, timeout_s: float | None = HANG_S) -> rpyc.Connection:
        """A plain RPyC connection."""
        return connect(self.port, timeout_s, self.tls)

    def status(self) -> dict[str, Any]:
        with self.connect() as connection:
            status: dict[str, Any] = json.loads(connection.root.status())
        return status

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def template(self) -> psutil.Process:
        """The process that forks the workers."""
        children = psutil.Process(self.pid).children()
        (template,) = [child for child in children if "template" in "".join(child.cmdline())]
        return template

    def await_waiting(self, count: int) -> None:
        with self.connect() as connection:
            eventually(
                lambda: json.loads(connection.root.status())["waiting"] == count, f"{count} clients wait"
            )

    def await_busy(self, busy: list[int], within_s: float = HANG_S) -> None:
        with self.connect() as connection:
            eventually(
                lambda: json.loads(connection.root.status())["busy"] == busy, f"busy is {busy}", within_s
            )

    def idle_status(self) -> dict[str, Any]:
        """The state once all workers are free: clients give them back by a word that they do not wait for."""
        self.await_busy([0] * self.workers)
        return self.status()

    def rows(self, event: str | None = None) -> list[dict[str, str]]:
        """The changes in the profile so far; or the rows of one event."""
        with (self.folder / "profiling" / f"results_{self.workers}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if (row["Event"] != "sample" if event is None else row["Event"] == event)]

    def await_events(self, *events: str) -> None:
        """Wait until these are the events in the profile, which is written a moment after they happen."""
        eventually(lambda: [row["Event"] for row in self.rows()] == list(events), f"events are {events}")

    def stderr(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(HANG_S)

    def close(self) -> None:
        """Whatever the test did, leave nothing."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(HANG_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@contextlib.contextmanager
def ssh_server() -> Iterator[int]:
    """The port of something that greets as an ssh server does, and is no server of ours."""

    def greet() -> None:
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                held[-1].sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=greet, daemon=True).start()
        yield listener.getsockname()[1]


def free_port(count: int = 1) -> int:
    """The first of so many free ports in a row, where a test must say which port it is.

    They are below those that the system gives to connections: nothing else takes one meanwhile.
    """
    while True:
        first = random.randrange(15_000, 32_000)
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


def connect(port: int, timeout_s: float | None = HANG_S, tls: Tls | None = None) -> rpyc.Connection:
    """A plain RPyC connection to a port of this machine."""
    config = {"sync_request_timeout": timeout_s}
    if tls is None:
        return rpyc.connect("127.0.0.1", port, config=config)
    return rpyc.ssl_connect(
        "localhost", port, tls.key, tls.cert, tls.ca, cert_reqs=ssl.CERT_REQUIRED, config=config
    )


def tls_options(tls: Tls) -> tuple[str, ...]:
    """The files, as the scripts take them."""
    return ("--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-ca", tls.ca)
