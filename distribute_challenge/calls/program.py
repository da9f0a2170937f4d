"""Which program's functions run in this process: its own, or on a worker the one that called.

A program's own modules are imported once on each worker, and keep their state. So workers tell programs
apart, and a task of a task belongs to the program of its caller.
"""

from __future__ import annotations

import os

from distribute_challenge.calls.payload import NO_PROGRAM


class Program:
    """A program, by what tells it apart."""

    def __init__(self) -> None:
        self.id = os.urandom(len(NO_PROGRAM))


current = Program()
