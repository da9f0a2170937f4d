"""What runs on the workers right now: read in their flight recorders, which their server holds.

The server is the process that has the profile locked, and so writes it. Nobody is asked; nobody notices.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from distribute_challenge.record.flight import MEMORY_BYTES, NAME
from distribute_challenge.record.flight_reader import Begun, FlightReader

LOCKS = Path("/proc/locks")


class FlightRecorders:
    """The flight recorders of the workers of the server that writes a profile."""

    def __init__(self, profile: Path) -> None:
        self._server = _writer(profile)
        self._open: dict[int, tuple[str, FlightReader]] = {}  # by port; and which file it is

    @property
    def is_there(self) -> bool:
        """Whether there is such a server."""
        return self._server is not None and Path(f"/proc/{self._server}").exists()

    def running(self) -> dict[int, list[Begun]]:
        """What runs on each worker, by its port, the outermost first. Empty if that cannot be seen."""
        if self._server is None or not self.is_there:
            return {}
        found: dict[int, tuple[str, FlightReader]] = {}
        for port, link, file in _recorders(self._server):
            known = self._open.get(port)
            if known is not None and known[0] == file:
                found[port] = known
            else:
                # It may just have been replaced.
                with contextlib.suppress(OSError, ValueError), link.open("rb") as opened:
                    memory = mmap.mmap(opened.fileno(), MEMORY_BYTES, access=mmap.ACCESS_READ)
                    found[port] = (file, FlightReader(memory))
        self._open = found
        return {port: reader.running() for port, (_, reader) in sorted(found.items())}


def _writer(profile: Path) -> int | None:
    """The process that has a file locked and open; None if there is none, or this system does not tell."""
    try:
        inode = profile.stat()
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        # 1: FLOCK  ADVISORY  WRITE 4711 00:2f:123456 0 EOF
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[5].endswith(f":{inode.st_ino}"):
            continue
        for link in _descriptors(int(fields[4])):
            with contextlib.suppress(OSError):
                if os.path.samestat(link.stat(), inode):
                    return int(fields[4])
    return None


def _descriptors(process: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return []


def _recorders(process: int) -> list[tuple[int, Path, str]]:
    """The flight recorders that a server has open: port, where it can be opened, and which file it is."""
    found = {}
    for link in _descriptors(process):
        with contextlib.suppress(OSError):
            name = str(link.readlink()).removeprefix("/memfd:").removesuffix(" (deleted)")
            if name.startswith(NAME):
                port, file = int(name.removeprefix(NAME)), link.stat()
                found[file.st_ino] = (port, link, f"{file.st_dev}:{file.st_ino}")
    # Of one that has just been replaced the new one is the last.
    return [entry for _, entry in sorted(found.items(), key=lambda item: (item[1][0], item[0]))]
