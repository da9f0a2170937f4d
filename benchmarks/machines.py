"""Two machines on this one: two network namespaces with a cable between them, and a server on one.

The cable (`cable.py`) can be slow, lossy or cut. It needs root and the command `ip`.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trustme

from distribute_challenge.tls import VARIABLES

ROOT = Path(__file__).parents[1]
SERVER, CLIENT, PORT = "10.77.0.1", "10.77.0.2", 18811


class Machines:
    """The two, with a cable between them, and a server on one."""

    def __init__(self, workers: int, folder: Path) -> None:
        self.folder = folder
        self.near, self.far = (f"pool{os.getpid()}{end}" for end in "ab")
        self.cable = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/cable.py"), self.near, self.far, SERVER, CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.cable.stdout is not None
        if not self.cable.stdout.readline():
            sys.exit("the namespaces cannot be made: see above")
        certificates = self._certify()
        server, self._client = certificates
        options = [f"--tls-{name}={path}" for name, path in zip(("cert", "key", "ca"), server, strict=True)]
        command = [str(ROOT / "server.py"), str(workers), f"--host={SERVER}", f"--port={PORT}", *options]
        self.server = self._start(self.near, command, server)
        assert self.server.stdout is not None
        if not self.server.stdout.readline().startswith("ready: "):
            sys.exit("the server does not start: see above")

    def set(self, *words: object) -> None:
        """Change the cable."""
        assert self.cable.stdin is not None
        self.cable.stdin.write(" ".join(map(str, words)) + "\n")
        self.cable.stdin.flush()

    def start(self, text: str, *arguments: object, at: str | None = None) -> subprocess.Popen[str]:
        """Start a client program on the machine without a server, or `at` another."""
        path = self.folder / f"client{time.monotonic_ns()}.py"
        path.write_text(text)
        return self._start(at or self.far, [str(path), *map(str, arguments)], self._client)

    def events(self) -> collections.Counter[str]:
        """How often each event is in the profile."""
        (path,) = (self.folder / "profiling").glob("results_?.csv")
        with path.open(newline="") as file:
            return collections.Counter(row["Event"] for row in csv.DictReader(file))

    def close(self) -> None:
        """End all of it."""
        self.server.terminate()
        self.server.wait()
        assert self.cable.stdin is not None
        self.cable.stdin.close()
        self.cable.wait()
        for namespace in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", namespace], check=True)

    def _start(self, namespace: str, command: list[str], tls: tuple[str, ...]) -> subprocess.Popen[str]:
        environment = {**os.environ, **dict(zip(VARIABLES, tls, strict=True))}
        environment |= {"PYTHONPATH": str(ROOT), "COMPUTE_SERVER": f"{SERVER}:{PORT}"}
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _certify(self) -> list[tuple[str, str, str]]:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        made = []
        for name, identity in (("server", SERVER), ("client", "me@example.org")):
            certificate = ca.issue_cert(identity)
            paths = [str(self.folder / f"{name}.{kind}") for kind in ("pem", "key")]
            certificate.cert_chain_pems[0].write_to_path(paths[0])
            certificate.private_key_pem.write_to_path(paths[1])
            made.append((paths[0], paths[1], str(self.folder / "ca.pem")))
        return made


@contextlib.contextmanager
def machines(workers: int) -> Iterator[Machines]:
    """Two machines, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        both = Machines(workers, Path(folder))
        try:
            yield both
        finally:
            both.close()
