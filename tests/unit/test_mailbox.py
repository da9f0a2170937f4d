"""No message to the main thread is lost, whoever sends it and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from distribute_challenge.server.mailbox import Mailbox
from tests.running import HANG_S, ROOT


def test_messages_arrive_in_order_and_none_is_not_waited_for_too_long():
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.read(0) is None
    assert mailbox.read(0.01) is None
    for number in range(100_000):  # More than the pipe holds marks for.
        mailbox.post(number)
    assert [mailbox.read(1e9) for _ in range(100_000)] == list(range(100_000))
    assert mailbox.read(0) is None


def test_a_message_wakes_who_waits():
    mailbox: Mailbox[str] = Mailbox()
    threading.Timer(0.05, mailbox.post, ("wake",)).start()
    assert mailbox.read() == "wake"


@pytest.mark.parametrize("spacing_s", [0, 0.001])
def test_no_signal_is_missed_however_close_to_the_wait_it_comes(spacing_s: float):
    program = f"""
import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from distribute_challenge.server.mailbox import Mailbox
mailbox = Mailbox()
mailbox.post_signals([signal.SIGTERM], lambda number: number)
print("ready", flush=True)
for _ in range(300):
    assert mailbox.read() == signal.SIGTERM
    print("read", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        for _ in range(300):
            threading.Event().wait(spacing_s)
            os.kill(process.pid, signal.SIGTERM)
            assert process.stdout.readline() == "read\n"
    assert process.wait(HANG_S) == 0
