"""What the server knows of a client's processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from distribute_challenge.server.caller import are_stopped


def test_a_client_is_stopped_if_all_of_its_processes_are():
    """Those that it has forked have its connection, too."""
    command = [sys.executable, "-c", "input()"]
    with contextlib.ExitStack() as ending:
        pids = []
        for _ in range(2):
            process = ending.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            ending.callback(process.kill)
            pids.append(process.pid)
        assert not are_stopped([])
        for stopped in (0, 1, 2):
            assert are_stopped(pids) == (stopped == 2)
            if stopped < 2:
                os.kill(pids[stopped], signal.SIGSTOP)
                os.waitpid(pids[stopped], os.WUNTRACED)
        os.kill(pids[0], signal.SIGCONT)
        os.waitid(os.P_PID, pids[0], os.WCONTINUED)
        assert not are_stopped(pids)
