"""How a worker's process ended: what the server tells the client that was using it, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields


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
    # Of a fault, as Python's fault handler printed it; or of the function that was killed.
    stack: list[str] = field(default_factory=list)
    memory_bytes: int | None = None  # when it was last measured
    reason: str | None = None  # why the server killed it, if it did
    # The id, in hexadecimal, of the last call that it began, and of each other process of the same lease.
    last_calls: list[str] = field(default_factory=list)

    def has_begun(self, call_id: bytes) -> bool:
        """Whether this was the last call that the worker began."""
        return call_id.hex() in self.last_calls

    @property
    def how(self) -> str:
        """In words."""
        if self.reason is not None:
            return f"killed by the server, since {self.reason}"
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
        """Read the output of `to_json`. Fields that this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})
