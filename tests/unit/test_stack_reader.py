"""The server's end of the socket over which workers tell where their functions are."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import pytest

from distribute_challenge import worker
from distribute_challenge.record.stacks import SIGNAL, ask, stack_sockets

MAIN = Path(worker.__file__).with_name("app.py")
ANSWER = (
    f'Stack (most recent call first):\n  File "mine.py", line 7 in func\n  File "{MAIN}", line 1 in main\n'
)


def test_however_often_a_worker_could_not_answer_it_is_asked_again():
    """A function that holds the interpreter in C takes no question from the socket."""
    reader, its = stack_sockets()
    signals = 0

    def ask() -> None:
        nonlocal signals
        signals += 1
        if signals > 1000:
            its.send(ANSWER.encode())

    with its:
        for _ in range(1000):
            assert reader.read(ask, 0.0001) == []
        assert reader.read(ask, 10) == ['File "mine.py", line 7 in func']
        reader.close()


def test_a_c_library_that_cannot_send_a_signal_to_a_thread_is_no_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    before = signal.signal(SIGNAL, lambda *_: None)
    try:
        with pytest.raises(ProcessLookupError, match="too old"):
            ask(os.getpid())
    finally:
        signal.signal(SIGNAL, before or signal.SIG_DFL)
