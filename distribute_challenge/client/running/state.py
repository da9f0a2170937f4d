"""The states of a lane: `docs/design.md` draws how it goes from one to another."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """The state of a lane."""

    WAITING = "in line for a worker"
    CONNECTING = "making a connection to it"
    WORKING = "running tasks"
    ENDING = "having a worker that broke replaced"
    CLOSED = "over"
