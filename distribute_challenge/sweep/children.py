"""The benchmark's child processes: started with care, talked to in lines, and ended with us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from distribute_challenge import cli
from distribute_challenge.address import SERVER_VARIABLE

STOP_S = 30.0


class ChildEnded(Exception):
    """A server or a client could not be started, or ended too early."""


@contextlib.contextmanager
def running(command: list[str], server: str, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A child process, ended with the block. It has a session of its own: Ctrl-C is for us to pass on."""
    pipe, environment = subprocess.PIPE, {**os.environ, SERVER_VARIABLE: server}
    how: Any = {"start_new_session": True, "pass_fds": pass_fds, "env": environment}
    with contextlib.ExitStack() as started:
        with unstopped():
            try:
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, **how)
            except OSError as error:
                raise ChildEnded(f"cannot start a process of the benchmark ({error.strerror})") from None
            started.callback(end, process)
        yield process


class Stopped(BaseException):
    """A signal has stopped the benchmark. Its argument is the signal's number."""


def stop(number: int, _frame: object) -> NoReturn:
    """The handler of signals that stop the benchmark: the first one does, and what it ends is ended whole."""
    for each in cli.stop_signals():
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Signals that stop a program go to this handler, until the end of the block."""
    before = {number: signal.signal(number, handler) for number in cli.stop_signals()}
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)


@contextlib.contextmanager
def unstopped() -> Iterator[None]:
    """Put off a stop until the end of the block: else a process could be started, and nobody know of it."""
    received: list[int] = []
    with handled(lambda number, _frame: received.append(number)):
        yield
    if received:
        stop(received[0], None)


def end(process: subprocess.Popen[str]) -> None:
    """End a child process, and wait for that."""
    with process:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def tell(process: subprocess.Popen[str], words: bytes) -> None:
    """Write to a child. Raises ChildEnded if it has ended."""
    assert process.stdin is not None
    try:
        # Past the buffer: what an interrupt leaves in that, closing it would try to write again.
        os.write(process.stdin.fileno(), words)
    except BrokenPipeError:
        raise ended(process) from None


def answer(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints. Raises ChildEnded if it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ended(process)
    return line


def ended(process: subprocess.Popen[str]) -> ChildEnded:
    """The problem, if a child has ended."""
    return ChildEnded(
        f"a process of the benchmark ended too early, with exit code {process.wait()}: "
        "what it said is above; start the benchmark again to go on from there"
    )
