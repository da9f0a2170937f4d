"""A pool under random blows: every accepted task ends exactly once, and nothing leaks.

    python benchmarks/soak.py [SECONDS]

Client programs (`soak_client.py`) call functions of every kind on one server, in every way, also in
children that they fork. Meanwhile workers and clients are killed at random; workers, clients and the server
are stopped for a while; clients get Ctrl-C; and the server is started anew, after an orderly end or a
killed one. Each function that begins leaves a mark in a file. At the end: every task of the clients that
lived has one end, as the right result or a named error; none ran twice; and the server is as it was at
first.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import rpyc

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.running import eventually, free_port

ROOT = Path(__file__).parents[1]
CLIENT = Path(__file__).with_name("soak_client.py")
WORKERS = 3
CLIENTS = 4
# How often each blow falls, about, in seconds.
EVERY_S = {
    "worker killed": 0.7,
    "client killed": 5.0,
    "worker stopped": 3.0,
    "client stopped": 3.0,
    "client interrupted": 1.0,
    "server stopped": 10.0,
    "server restarted": 30.0,
}
STOPPED_S = 1.0  # about


class Server:
    """The server under test, and those that come after it, on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = (folder / "server.log").open("w")
        self._port = free_port(WORKERS + 1)
        self.address = f"127.0.0.1:{self._port}"
        self.codes: list[int] = []
        self._start()

    def _start(self) -> None:
        command = [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", str(self._port)]
        self._popen = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._popen.stdout is not None
        assert "ready" in self._popen.stdout.readline()
        self.process = psutil.Process(self._popen.pid)

    def restart(self) -> None:
        """End it, in order or not, and start another."""
        if random.random() < 0.3:
            self._popen.kill()
            self._popen.wait(60)
        else:
            self.stop()
        self._start()

    def stop(self) -> None:
        """End it in order."""
        self._popen.terminate()
        self.codes.append(self._popen.wait(60))

    def close(self) -> None:
        """End it, if it has not ended."""
        self._popen.kill()
        self._popen.wait()
        self._log.close()

    def workers(self) -> list[psutil.Process]:
        """The processes of its workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child for child in self.process.children() if is_worker(child)]
        return []

    def usage(self) -> tuple[int, int, int]:
        """Descriptors, threads and resident bytes."""
        process = self.process
        return process.num_fds(), process.num_threads(), process.memory_info().rss


def is_worker(child: psutil.Process) -> bool:
    """Whether a child of the server is a worker, and has not ended: not the template, nor a zombie."""
    try:
        return "worker" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


def main() -> int:
    """Run, report, and say with the exit code whether all promises were kept."""
    duration_s = float(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as name:
        soak = Soak(Path(name))
        try:
            return soak.run(duration_s)
        finally:
            soak.close()


class Soak:
    """One run in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks = folder / "marks"
        self._server = Server(folder)
        threads = self._server.usage()[1]
        with contextlib.closing(rpyc.connect(*self._server.address.split(":"))):
            eventually(lambda: self._server.usage()[1] > threads, "it is served")
        eventually(lambda: self._server.usage()[1] == threads, "it has been forgotten")
        self._before = self._server.usage()  # What the first connection leaves is no leak.
        self._blows: collections.Counter[str] = collections.Counter()
        self._stopped: list[tuple[float, psutil.Process]] = []  # when each goes on
        self._clients: dict[Path, subprocess.Popen[bytes]] = {}
        self._environment = {**os.environ, "COMPUTE_SERVER": self._server.address, "PYTHONPATH": str(ROOT)}

    def run(self, duration_s: float) -> int:
        """Strike for so long, and look what became of everything; the exit code."""
        for _ in range(CLIENTS):
            self._start_client()
        blows: dict[str, Callable[[], bool]] = {  # Whether there was anybody to strike.
            "worker killed": lambda: self._to_a_worker(signal.SIGKILL),
            "client killed": self._kill_client,
            "worker stopped": lambda: self._to_a_worker(signal.SIGSTOP),
            "client stopped": lambda: self._to_a_client(signal.SIGSTOP),
            "client interrupted": lambda: self._to_a_client(signal.SIGINT),
            "server stopped": lambda: self._send(self._server.process, signal.SIGSTOP),
            "server restarted": self._restart,
        }
        ends_at = time.monotonic() + duration_s
        next_at = {name: time.monotonic() + random.expovariate(1 / EVERY_S[name]) for name in blows}
        while (now := time.monotonic()) < ends_at and not self._has_failed():
            name, at = min([*next_at.items(), *(("", at) for at, _ in self._stopped)], key=lambda due: due[1])
            time.sleep(max(min(at, ends_at) - now, 0))
            self._go_on(time.monotonic())
            if name:
                self._blows[name] += blows[name]()
                next_at[name] = time.monotonic() + random.expovariate(1 / EVERY_S[name])
        self._go_on(ends_at + 1e9)
        return self._report()

    def close(self) -> None:
        """End what is left of it."""
        for client in self._clients.values():
            client.kill()
            client.wait()
        self._server.close()

    def _has_failed(self) -> bool:
        """Whether a client has ended that nobody has ended."""
        return any(client.poll() is not None for client in self._clients.values())

    def _start_client(self) -> None:
        report = self._folder / f"client-{time.monotonic_ns()}"
        command = [sys.executable, str(CLIENT), str(self._marks), str(report)]
        self._clients[report] = subprocess.Popen(command, env=self._environment)

    def _to_a_worker(self, number: signal.Signals) -> bool:
        workers = self._server.workers()
        return bool(workers) and self._send(random.choice(workers), number)

    def _to_a_client(self, number: signal.Signals) -> bool:
        report, client = random.choice(list(self._clients.items()))
        if number == signal.SIGINT and not Path(f"{report}.begun").exists():
            return False  # It would end.
        return self._send(psutil.Process(client.pid), number)

    def _kill_client(self) -> bool:
        client = self._clients.pop(random.choice(list(self._clients)))
        client.kill()
        client.wait()
        self._start_client()
        return True

    def _restart(self) -> bool:
        self._go_on(time.monotonic() + 1e9)  # One that is stopped ends only when it goes on.
        self._server.restart()
        return True

    def _send(self, process: psutil.Process, number: signal.Signals) -> bool:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return False
        if number == signal.SIGSTOP:
            self._stopped.append((time.monotonic() + random.expovariate(1 / STOPPED_S), process))
        return True

    def _go_on(self, now: float) -> None:
        """Have those go on that were stopped until now."""
        due = [process for at, process in self._stopped if at <= now]
        self._stopped = [(at, process) for at, process in self._stopped if at > now]
        for process in due:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _report(self) -> int:
        """End the clients and the server, and print what happened; the exit code."""
        for report in self._clients:
            Path(f"{report}.stop").touch()
        codes = [client.wait(300) for client in self._clients.values()]
        ends: dict[str, str] = {}
        for report in self._clients:
            for part in (*self._folder.glob(report.name), *self._folder.glob(f"{report.name}.of-*[0-9]")):
                ends |= json.loads(part.read_text())
        ran = collections.Counter(self._marks.read_text().split())
        before, after = self._before, self._settled()
        left_busy = sum(json.loads(rpyc.connect(*self._server.address.split(":")).root.status())["busy"])
        self._server.stop()

        kinds = collections.Counter(ends.values())
        twice = sum(count > 1 for count in ran.values())
        never = sum(end in ("returned", "raised") and not ran[task] for task, end in ends.items())
        print(", ".join(f"{name} {self._blows[name]} times" for name in EVERY_S))
        print(f"functions begun: {sum(ran.values())}; begun twice: {twice}")
        print(f"ends of the clients that lived: {dict(kinds)}; ended without having run: {never}")
        names = ("descriptors", "threads", "resident MiB")
        for name, old, new in zip(names, before, after, strict=True):
            scale = 2**20 if "MiB" in name else 1
            print(f"server's {name}: {old / scale:.0f} at first, {new / scale:.0f} at the end")
        is_good = not (twice or never or kinds["wrong"] or any(codes) or any(self._server.codes) or left_busy)
        is_good &= after[0] <= before[0] and after[1] <= before[1] and after[2] < before[2] + (50 << 20)
        ended = f"clients ended {codes}, servers {self._server.codes}, {left_busy} workers are leased"
        print("all promises were kept" if is_good else f"NOT GOOD: {ended}")
        return 0 if is_good else 1

    def _settled(self) -> tuple[int, int, int]:
        """The server's usage once it is back to what it was, or after ten seconds."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(
            now > before for now, before in zip(self._server.usage()[:2], self._before, strict=False)
        ):
            time.sleep(0.1)
        return self._server.usage()


if __name__ == "__main__":
    sys.exit(main())
