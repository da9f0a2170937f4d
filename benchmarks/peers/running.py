"""The processes of a run: a client for each peer, and what peers leave behind."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.peer import Peer
from benchmarks.peers.rivals import PEERS

ROOT = Path(__file__).parents[2]
HANG_S = 180.0  # No peer takes near as long for anything here.
_PR_SET_CHILD_SUBREAPER = 36


class PeerFailed(Exception):
    """A peer could not do what it was asked to: the others are measured all the same."""


class Client:
    """The process of one peer, started and ready; `startup_s` is how long its first result took."""

    def __init__(self, name: str, folder: Path, server: str | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        environment["TMPDIR"] = str(folder)  # What peers keep on disk goes with the run.
        environment.pop("COMPUTE_SERVER", None)
        if server is not None:
            environment["COMPUTE_SERVER"] = server
        self._name = name
        self._log = (folder / f"{name}.log").open("a+")
        began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.client", name],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self._read()
        except PeerFailed:
            self.close()
            raise
        self.startup_s = time.monotonic() - began

    def ask(self, case: str, **how: Any) -> float:
        """Measure a case; its value."""
        self.begin(case, **how)
        return float(self.end()["value"])

    def begin(self, case: str, **how: Any) -> None:
        """Have a case measured, and go on."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"case": case, **how}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"{self._name} ended") from None

    def end(self) -> dict[str, float]:
        """What the case that was begun gave."""
        answer: dict[str, Any] = json.loads(self._read())
        if "error" in answer:
            raise PeerFailed(f"{self._name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Have it stop its peer, and wait until it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], HANG_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._log.seek(0)
            what = "it ended" if ready else f"no answer in {HANG_S:.0f} s"
            raise PeerFailed(f"{self._name}: {what}; the last that it said: {self._log.read()[-600:]}")
        return line


class Orphans:
    """What peers leave behind comes to this process, as its children, and can be ended.

    Else a daemon of a peer that was to be gone would be measured with all that follow.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._own = psutil.Process()

    def expect(self) -> set[int]:
        """Those who are alive now, and may stay."""
        return {child.pid for child in self._own.children()}

    def end(self, expected: set[int], patience_s: float = 3.0) -> int:
        """End all others, by their numbers, once they have had some time for it; how many that were."""
        left = self._left(expected)
        psutil.wait_procs(left, patience_s)
        count = 0
        while left := [process for process in self._left(expected) if process.is_running()]:
            for process in left:
                count += process.status() != psutil.STATUS_ZOMBIE
                process.kill()
            psutil.wait_procs(left, patience_s)
        return count

    def _left(self, expected: set[int]) -> list[psutil.Process]:
        strangers = [child for child in self._own.children() if child.pid not in expected]
        return strangers + [below for child in strangers for below in child.children(recursive=True)]


def is_installed(peer: type[Peer]) -> bool:
    """Whether a peer can be measured here."""
    return importlib.util.find_spec(peer.package) is not None


def version(name: str) -> str:
    """The version of what is measured; Python's own for what comes with it."""
    try:
        return importlib.metadata.version(PEERS[name].package if name in PEERS else name)
    except importlib.metadata.PackageNotFoundError:
        return platform.python_version()
