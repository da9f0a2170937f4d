"""Which program's functions run in this process: its own, or on a worker the one that called."""

from __future__ import annotations

import os

from distribute_challenge.calls.payload import NO_PROGRAM


class Program:
    """A program, by what tells it apart."""

    def __init__(self) -> None:
        self.id = os.urandom(len(NO_PROGRAM))


current = Program()
