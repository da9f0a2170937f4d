"""Dask clusters as child processes: a scheduler and its workers, each to be ended by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from distribute_challenge import Tls
from tests.running import eventually

STOP_S = 5.0  # A worker without a nanny waits for the function that it runs.

# An idle worker of Dask's takes up to a tenth of a processor to look at itself a hundred times a second.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}


class RunningCluster:
    """`dask scheduler` and `dask worker`s, on ports that the system picks."""

    def __init__(
        self,
        workers: int,
        *options: str,
        folder: Path,
        tls: Tls | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._tls: list[str] = []
        if tls is not None:
            self._tls = ["--tls-ca-file", tls.ca, "--tls-cert", tls.cert, "--tls-key", tls.key]
        self._environment = {**os.environ, **QUIET, **(environment or {})}
        self._environment.pop("COMPUTE_SERVER", None)
        told = folder / "scheduler.json"
        protocol = ["--protocol", "tls" if tls is not None else "tcp"]
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(told), *protocol
        )
        text = eventually(lambda: told.exists() and told.read_text(), "the scheduler is there")
        self.url = text.partition('"address": "')[2].partition('"')[0]
        self.address = f"dask://{self.url.partition('://')[2]}"
        self.workers = [self.start_worker(*options) for _ in range(workers)]
        self._processes = [self.scheduler, *self.workers]
        said = folder / "worker.log"
        eventually(lambda: said.read_text().count("Registered to:") >= workers, "its workers have come")

    def is_as_started(self) -> bool:
        """Whether no process of it has ended, and none has been added."""
        now = [self.scheduler, *self.workers]
        return now == self._processes and all(process.poll() is None for process in now)

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """One more worker, of one thread unless the options say otherwise."""
        threads = () if "--nthreads" in options else ("--nthreads", "1")
        place = ("--local-directory", str(self._folder), "--no-dashboard", "--memory-limit", "0")
        return self._start("worker", self.url, *place, *threads, *options)

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1"]
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *arguments, *self._tls], env=self._environment, stdout=log, stderr=log
            )

    def close(self) -> None:
        """End it all: workers first, which would be slow to leave a scheduler that ends."""
        for process in self.workers:
            process.send_signal(signal.SIGTERM)
        for process in [*self.workers, self.scheduler]:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
