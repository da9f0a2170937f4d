"""`local://N`: a server of N workers that belongs to this program, and ends with it, kill -9 included.

`local://` has as many as this process may use processors.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from distribute_challenge.address import Address
from distribute_challenge.errors import ServerUnavailable

log = logging.getLogger(__name__)

PROFILE_VARIABLE = "COMPUTE_PROFILE"
STOP_S = 30.0
_MAIN = str(Path(__file__).parents[1] / "server" / "__main__.py")


_servers: weakref.WeakSet[OwnedServer] = weakref.WeakSet()


class OwnedServer:
    """A process that serves this program only. It ends when the pipe that we hold does."""

    name = "server"

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._process: subprocess.Popen[str] | None = None  # None also if a parent of this process has it
        self._output: IO[str] | None = None  # its standard output, which ends when it does
        self._address: Address | None = None
        self._owner: int | None = None
        self._is_closed = False
        _servers.add(self)

    def command(self) -> list[str]:
        """The script and its arguments, to which those are added that say what it lives for."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The variables that it gets beside this program's own."""
        return {}

    def start(self) -> None:
        """Start it, unless it has been; `address` waits until it serves. Raises ServerUnavailable."""
        with self._lock:
            self._start_once()

    def address(self) -> Address:
        """Where it listens, once it does; starts it if need be, and anew if it has ended by itself.

        Raises ServerUnavailable, also once it is closed.
        """
        with self._lock:
            if self._address is not None and self.has_ended():
                self._forget_ended()
            self._start_once()
            if self._address is None:
                self._await_ready()
            address = self._address
        assert address is not None
        return address

    def has_ended(self, within_s: float = 0) -> bool:
        """Whether it has, or does in that time: one that refuses connections is about to."""
        output = self._output
        if output is None:
            return True
        end = select.poll()
        try:
            end.register(output, 0)
        except ValueError:  # It was closed just now.
            return True
        return bool(end.poll(1000 * within_s))

    @property
    def pid(self) -> int | None:
        """Its process; None if it has not been started."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """End it, and its workers, and wait for that. Harmless to repeat."""
        with self._lock:
            self.let_go()
            process, self._process, self._output = self._process, None, None
            self._address, self._is_closed = None, True
        if process is not None:
            with process:
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()

    def leave_to_parent(self) -> None:
        """In a forked child: the server is not its. One that was not awaited yet is started anew."""
        self._lock = threading.Lock()  # A thread that is not here may have held the other one.
        self._process = None
        self.let_go()

    def let_go(self) -> None:
        """Close our end of the pipe."""
        owner, self._owner = self._owner, None
        if owner is not None:
            with contextlib.suppress(OSError):
                os.close(owner)

    def _forget_ended(self) -> None:
        process, output = self._process, self._output
        how = "" if process is None else f" (exit code {process.wait()})"
        log.warning("the private %s has ended%s: another one is started", self.name, how)
        self.let_go()
        self._process = self._output = self._address = None
        if output is not None:
            output.close()

    def _start_once(self) -> None:
        if self._is_closed:
            raise ServerUnavailable(f"the private {self.name} has been closed, and its executor with it")
        if self._address is None and self._owner is None:
            self._start()

    def _start(self) -> None:
        owned = process = None
        try:
            owned, self._owner = map(_above_standard, os.pipe())
            process = self._process = subprocess.Popen(
                [sys.executable, *self.command(), "--owner", str(owned)],
                env={**os.environ, **self.environment()},
                pass_fds=(owned,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if _is_open(2) else subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for this program.
            )
        except OSError as error:
            raise ServerUnavailable(f"cannot start a private {self.name} ({error})") from None
        finally:
            if owned is not None:
                os.close(owned)
            if process is None:
                self.let_go()

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None
        output = self._output = process.stdout
        assert output is not None
        try:
            line = output.readline()
            if line.startswith("ready: "):
                self._address = Address.parse(line.split()[1].rstrip(","))
        finally:
            if self._address is None:  # Ctrl-C, too: the line is not there a second time.
                self.let_go()
        if self._address is None:
            raise ServerUnavailable(
                f"the private {self.name} ended with exit code {process.wait(STOP_S)}: what it said is above"
            )


class PrivateServer(OwnedServer):
    """A server of so many workers."""

    def __init__(
        self,
        workers: int,
        profile: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._workers = workers
        self._profile = profile  # None: the one that the environment says, or none
        self._options = options
        self._variables = variables or {}

    def command(self) -> list[str]:
        """How the server is started."""
        profile = os.fspath(self._profile or os.environ.get(PROFILE_VARIABLE) or "none")
        return [_MAIN, str(self._workers), "--port", "0", "--profile", profile, *self._options]

    def environment(self) -> dict[str, str]:
        """What its workers find."""
        return self._variables


def _above_standard(descriptor: int) -> int:
    """The same file with a number above 2, which a program without standard streams may have given it."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _leave_to_parent() -> None:
    for server in list(_servers):
        server.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
