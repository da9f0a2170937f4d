"""How a worker's process ended: what the server tells the client that was using it, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Ending:
    """Neither exit code nor signal: it was killed, and is not gone yet.

    >>> ending = Ending(port=18812, pid=99, exit_code=None, signal="SIGKILL", last_lines=["half"])
    >>> print(ending)
    the worker on port 18812 (process 99): killed by SIGKILL
    >>> Ending.from_json(ending.to_json()) == ending
    True
    """

    port: int
    pid: int
    exit_code: int | None
    signal: str | None
    last_lines: list[str]

    @property
    def how(self) -> str:
        """In words."""
        if self.signal is not None:
            return f"killed by {self.signal}"
        return "killed, and still not gone" if self.exit_code is None else f"exit code {self.exit_code}"

    @property
    def worker(self) -> str:
        """Which one it was."""
        return f"the worker on port {self.port} (process {self.pid})"

    def __str__(self) -> str:
        return f"{self.worker}: {self.how}"

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Ending:
        """What `to_json` wrote; fields that this version does not know are left out."""
        fields = json.loads(text)
        return cls(**{name: fields.get(name) for name in cls.__dataclass_fields__})
