"""Starts worker processes by forking a template: a process that has imported all that a worker needs.

Python takes a fifth of a second to start and to import that, a fork takes milliseconds. The template is a
fork of the server, made before the server has threads, and has none itself. Where it cannot be had, or has
died, a worker is a program that is executed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from distribute_challenge.server.workers.orphans import Orphans

log = logging.getLogger(__name__)

_WORKER = "distribute_challenge.worker.app"
_MAIN = Path(__file__).parents[2] / "worker" / "__main__.py"
_ANSWER_S = 10.0  # A template that has not answered by then has been stopped, or hangs.
_MAX_REQUEST_BYTES = 1 << 16
_MAX_DESCRIPTORS = 16
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # for prctl(2)
_ARGUMENTS = slice(45, 47)  # in /proc/PID/stat, after the name: where the command line begins and ends
_MAX_NAME = 15  # bytes of /proc/PID/comm


class TemplateEndedError(OSError):
    """The template has ended, or does not answer: from now on, workers are executed."""


class Forked:
    """A process that the template has forked for this one, which has to wait for it, as for a `Popen`."""

    def __init__(self, pid: int, known: set[int]) -> None:
        self.pid = pid
        self._known = known
        known.add(pid)

    def wait(self) -> int:
        """Wait until it has ended; its exit code, or minus the number of the signal that ended it."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._known.discard(self.pid)
        return code


class Template:
    """The template of this process, which must have no threads yet."""

    def __init__(self) -> None:
        self.orphans = Orphans()
        self._lock = threading.Lock()  # guards the two below
        self._pid = 0  # 0: there is none
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._pid = os.fork()
        except OSError as error:  # There may be too many processes.
            log.warning("no template of workers (%s): they take longer to start", error)
            ours.close()
            its.close()
            return
        if self._pid == 0:
            _serve(its)
        its.close()
        self.orphans.known.add(self._pid)
        ours.settimeout(_ANSWER_S)
        self._socket = ours

    def start(
        self,
        arguments: Sequence[str],
        descriptors: Mapping[str, int],
        variables: Mapping[str, str],
        output: int,
    ) -> Forked | subprocess.Popen[bytes]:
        """Start a worker with these arguments, and `--NAME NUMBER` for each of the descriptors.

        It leads a session of its own, gets these variables beside the server's, and prints to `output`.
        Raises OSError; TemplateEndedError if to try once more is all that is needed.
        """
        with self._lock:
            if self._socket is None:
                child = execute(arguments, descriptors, variables, output)
                self.orphans.known.add(child.pid)
                return child
            request = json.dumps([arguments, list(descriptors), dict(variables)]).encode()
            try:
                with _adopting():
                    socket.send_fds(self._socket, [request], [output, *descriptors.values()])
                    answer = self._socket.recv(_MAX_REQUEST_BYTES)
            except OSError as error:
                log.info("the template of workers: %s", error)
                answer = b""
            if not answer:
                self._end()
                raise TemplateEndedError(errno.ESRCH, "the template of workers has ended")
            pid = int(answer)
            forked = Forked(pid, self.orphans.known) if pid > 0 else None
            self.orphans.bury()
        if forked is None:
            raise OSError(-pid, os.strerror(-pid))
        return forked

    def hang_up(self) -> None:
        """Have whoever waits for its answer wait no longer: no worker is to be started any more."""
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):  # It is closed meanwhile.
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the template. The workers that it has started live on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def execute(
    arguments: Sequence[str], descriptors: Mapping[str, int], variables: Mapping[str, str], output: int
) -> subprocess.Popen[bytes]:
    """Start a worker as a program, as `Template.start` does."""
    named = [word for name, number in descriptors.items() for word in (f"--{name}", str(number))]
    return subprocess.Popen(
        [sys.executable, str(_MAIN), *arguments, *named],
        pass_fds=tuple(descriptors.values()),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **variables},
    )


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile, processes below this one whose parents end become its children, instead of the system's."""
    _set(_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _set(_SET_CHILD_SUBREAPER, 0)


def _set(option: int, value: int) -> None:
    """Set an option of this process. Raises OSError."""
    import ctypes  # Late: systems that have no template need it never.

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"the system does not set option {option} of prctl")


def _serve(requests: socket.socket) -> NoReturn:
    """In the template: fork workers until the server closes its end, or ends."""
    try:
        _set(_SET_PDEATHSIG, signal.SIGKILL)  # Also if this is stopped. The main thread forks it: that lives.
        os.setsid()  # Ctrl-C is for the server.
        _keep_only(requests.fileno())
        sys.path[0] = str(_MAIN.parents[2])
        sys.modules["__main__"] = ModuleType("__main__")
        _show_as("template")
        try:
            importlib.import_module(_WORKER)
        except Exception:  # Workers that are executed will tell.
            os._exit(1)
        gc.freeze()  # No collection in a worker looks at, and so copies, what it shares with the others.
        while True:
            flags = socket.MSG_CMSG_CLOEXEC
            request, descriptors, _, _ = socket.recv_fds(
                requests, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS, flags
            )
            if not request:
                os._exit(0)
            pid = _fork()
            if pid == 0:
                requests.close()
                _run_worker(*json.loads(request), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            requests.send(str(pid).encode())
    except (BrokenPipeError, ConnectionResetError):  # The server ends, and with it the template.
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _keep_only(descriptor: int) -> None:
    """Close what else was inherited. Messages about the template itself still go where the server's go."""
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number not in (0, 1, 2, descriptor):
            with contextlib.suppress(OSError):  # It was that of the listing.
                os.close(number)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)


def _fork() -> int:
    """Fork a process that nobody has started, and that leads a session.

    0 there; here its number, or minus the system's number of what was wrong.
    """
    readable, writable = os.pipe()
    try:
        parent = os.fork()
    except OSError as error:
        os.close(readable)
        os.close(writable)
        return -(error.errno or errno.EAGAIN)
    if parent == 0:
        os.close(readable)  # Only the template reads: when it is killed, what is forked here learns that.
        try:
            if os.fork():
                os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EAGAIN)
        os.setsid()  # Before anybody knows its number, and may want to kill its group.
        os.write(writable, str(os.getpid()).encode())
        os.close(writable)
        return 0
    os.close(writable)
    problem = os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1])
    with os.fdopen(readable, "rb") as pipe:
        return int(pipe.read() or -(problem if problem > 0 else errno.ESRCH))


def _run_worker(
    arguments: list[str], names: list[str], variables: dict[str, str], output: int, *descriptors: int
) -> NoReturn:
    """Be a worker, as if executed like one."""
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
            stream = os.fdopen(number, mode, closefd=False)
            vars(sys).update({name: stream, f"__{name}__": stream})
        os.environ.update(variables)
        for name, descriptor in zip(names, descriptors, strict=True):
            arguments += f"--{name}", str(descriptor)
        sys.argv = [str(_MAIN), *arguments]
        _show_as(f"worker {arguments[0]}")
        importlib.import_module(_WORKER).main(arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _show_as(text: str) -> None:
    """Have `ps` and `top` show this text for this process, as far as it fits where the command line was."""
    import ctypes

    Path("/proc/self/comm").write_text(text[:_MAX_NAME])
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = map(int, fields[_ARGUMENTS])
    size = end - begin
    # What does not end with a zero is shown up to its first one.
    ctypes.memmove(begin, text.encode()[: size - 2].ljust(size - 1, b"\0") + b"-", size)
