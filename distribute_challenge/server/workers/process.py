"""One worker's process: how it starts, when it is ready, how it is killed, and how it ended.

It leads a session and a process group of its own, so that what its functions started dies with it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from distribute_challenge.address import INSIDE_VARIABLE, SERVER_VARIABLE, Address
from distribute_challenge.calls.ending import Ending
from distribute_challenge.record import stacks
from distribute_challenge.record.flight import MEMORY_BYTES, recorder_file
from distribute_challenge.record.flight_reader import FlightReader
from distribute_challenge.record.tasks import LOST, CutOff
from distribute_challenge.server.polling import await_any
from distribute_challenge.server.workers.template import Template
from distribute_challenge.tls import Tls
from distribute_challenge.tls import environment as tls_environment

log = logging.getLogger(__name__)

LAST_LINES = 20
_KEPT_LINES = 200  # A fault handler's stack is among them.
_FAULT = "Fatal Python error: "
_READ_BYTES = 1 << 16
_LAST_READS = 16  # As much as a pipe holds. A child that lives on may print for ever.
_SIGNALS = {number.value: number.name for number in signal.Signals}
_DYING_S = 0.2  # So long a process may take to die.
_LAST_STACK_S = 0.05  # So long a kill waits for the stack of what it stops.


class WorkerProcess:
    """A running worker, from its start. Raises OSError if it cannot be started."""

    def __init__(
        self,
        template: Template,
        listener: socket.socket,
        server: Address,
        tls: Tls | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if tls is not None:
            options = (*options, "--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-ca", tls.ca)
        # What its functions find: the pool that they run in, and how to connect to that.
        own = {SERVER_VARIABLE: str(server), INSIDE_VARIABLE: str(server), **tls_environment(tls)}
        host, self.port = listener.getsockname()[:2]
        self.is_ready = False
        # Guards `_is_reaped`: once reaped, the number may be that of another process.
        self._lock = threading.Lock()
        self._is_reaped = False
        self._sentinel = -1
        self._code: int | None = None  # its exit code, or minus the number of a signal
        self._reason: str | None = None
        self._end: CutOff | None = None
        self._is_retired = False
        self._last_stack: list[str] = []
        self._ended = threading.Event()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._partial = b""
        with contextlib.ExitStack() as lent, contextlib.ExitStack() as opened:
            owned, owner = os.pipe()
            lent.callback(os.close, owned)
            opened.callback(os.close, owner)  # Our end closes when we end, however that happens.
            flight = recorder_file(self.port)
            lent.callback(os.close, flight)
            self.flight = FlightReader(mmap.mmap(flight, MEMORY_BYTES))
            self._stacks, stack_end = stacks.stack_sockets()
            lent.callback(stack_end.close)
            opened.callback(self._stacks.close)
            self._output, output = os.pipe()
            lent.callback(os.close, output)
            opened.callback(os.close, self._output)
            os.set_blocking(self._output, False)
            self._child = template.start(
                [str(self.port), "--host", host, *options],
                {
                    "listener": listener.fileno(),
                    "owner": owned,
                    "flight": flight,
                    "stacks": stack_end.fileno(),
                },
                {**own, **(environment or {})},
                output,
            )
            opened.callback(self._reap)
            self._sentinel = _sentinel(self.pid)
            opened.callback(os.close, self._sentinel)
            self._opened = opened.pop_all()

    @property
    def pid(self) -> int:
        """Its process number, which is also that of its process group."""
        return self._child.pid

    @property
    def end(self) -> CutOff:
        """What its end means for what it ran: as who had it killed has said, unless it died by itself."""
        ending = self.ending()
        is_killed = ending.signal == signal.SIGKILL.name
        return self._end if is_killed and self._end else CutOff(LOST, f"WorkerLost: {ending.how}")

    @property
    def loss(self) -> str | None:
        """Why it was lost: `timeout`, `killed`, `client` (that has gone, or gave it up), `memory`, `exit`, or
        the name of a signal; None if it was to be replaced."""
        if self._is_retired:
            return None
        ending = self.ending()
        if ending.signal != signal.SIGKILL.name:
            return ending.signal or "exit"
        if self._end is None:
            return ending.signal if self._reason is None else "memory"
        return "client" if self._end.status == LOST else self._end.status

    def retire(self) -> None:
        """Kill it for another one to take its place, which is no loss."""
        self._is_retired = True
        self.kill()

    def give_up(self, end: CutOff | None, stack: list[str], *, is_second: bool) -> None:
        """Kill it, as its client wishes, for that end of its function, which was at that `stack`.

        `is_second` says that another one had died under the same lease: that was the loss.
        """
        self._last_stack = stack or self._last_stack
        if is_second:
            self.retire()
        elif end is not None and end.status != LOST:
            self.kill(end=end)
        else:  # Its client has seen a connection end: a process that dies closes those first.
            self._ended.wait(_DYING_S)
            self.kill(end=end)

    def kill(self, reason: str | None = None, end: CutOff | None = None) -> None:
        """Kill the process and everything in its group.

        `reason` is for who was using it, `end` says for the record what it means for what runs there.
        """
        with self._lock:
            if not self._has_ended():  # What ends it is what ended it first.
                self._reason = self._reason or reason
                self._end = self._end or end
            if not self._is_reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def _has_ended(self) -> bool:
        return self._is_reaped or (self._sentinel >= 0 and await_any({self._sentinel: select.POLLIN}, 0))

    def stop_function(self, reason: str) -> None:
        """Kill it, as `kill` does, and have its ending tell where the function was that ran."""
        self._last_stack = self.stack()
        self.kill(reason)

    def stack(self, wait_s: float = _LAST_STACK_S) -> list[str]:
        """The frames of what runs, innermost first; none if nothing does, or it does not say in `wait_s`."""
        return self._stacks.read(self._ask_for_stack, wait_s) if self.flight.running() else []

    def _ask_for_stack(self) -> None:
        with self._lock:
            if self._is_reaped:
                raise ProcessLookupError("it has ended")
            stacks.ask(self.pid)

    def bury(self) -> Ending:
        """Clear up after a process that has ended: the rest of its group, its number, its descriptors."""
        self._reap()
        for _ in range(_LAST_READS):
            if not self._read_output():
                break
        if self._partial:
            self._take_lines(b"\n")
        self._opened.close()
        self._ended.set()
        return self.ending()

    def _reap(self) -> None:
        self.kill()
        with self._lock:
            if not self._is_reaped:
                self._code = self._child.wait()
                self._is_reaped = True

    def ending(self, wait_s: float | None = None) -> Ending:
        """How the process ended; waits for that, but not longer than `wait_s` seconds."""
        code = self._code if self._ended.wait(wait_s) else None
        name = None
        if code is not None and code < 0:
            # A real-time signal has no name.
            name, code = _SIGNALS.get(-code, f"signal {-code}"), None
        lines, stack = _split_off_stack(list(self._lines))
        return Ending(
            *(self.port, self.pid, code, name, lines[-LAST_LINES:], stack or self._last_stack),
            reason=self._reason,
            last_calls=[self.last_call()],
        )

    def last_call(self) -> str:
        """The id, in hexadecimal, of the last call that it has begun so far."""
        return self.flight.last_begun.hex()

    def has_ended_call(self, call: bytes) -> bool:
        """Whether it runs that call no more, which its client waits for: its outcome is under way.

        What runs after another one has been sent after it.
        """
        running = [begun.id for begun in self.flight.running()]
        return call not in running if running else self.flight.has_ended(call)

    def forget_output(self) -> None:
        """Drop the lines that were printed so far."""
        self._lines.clear()
        self._partial = b""

    def watch(self, *, ready_within_s: float | None = None) -> bool:
        """Take in what it prints until it has ended; with a time limit, until it answers, and then True.

        If it does not answer within that time, it is killed.
        """
        poller = select.poll()
        poller.register(self._sentinel, select.POLLIN)
        poller.register(self._output, select.POLLIN)
        deadline = None if ready_within_s is None else time.monotonic() + ready_within_s
        while ready_within_s is None or not self.is_ready:
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0)
            events = dict(poller.poll(None if left_s is None else left_s * 1000))
            if left_s == 0 and not self.is_ready:
                deadline = None
                self.kill(f"it did not answer within {ready_within_s:g} s of its start")
            if self._output in events and not self._read_output():
                poller.unregister(self._output)  # It closed its standard streams, and lives on.
            if self._sentinel in events:
                return False
        return True

    def _read_output(self) -> bool:
        """Take some of what was printed. False at the end of the stream."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._take_lines(data)
        return bool(data)

    def _take_lines(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-(1 << 16) :]  # A line without an end must not grow for ever.
        for line in lines:
            text = line.decode(errors="backslashreplace")
            if not self.is_ready and text.startswith("ready: "):
                self.is_ready = True
                continue
            self._lines.append(text)
            log.info("worker %d: %s", self.port, text)


def _split_off_stack(lines: list[str]) -> tuple[list[str], list[str]]:
    """Splits the output into printed lines and the stack that a fault handler wrote after them."""
    for number, line in enumerate(lines):
        if line.startswith(_FAULT):
            frames = stacks.frames("\n".join([*lines[number:], ""]))
            return lines[:number], [line, *(frames or filter(None, lines[number + 1 :]))]
    return lines, []


def _sentinel(pid: int) -> int:
    """A descriptor that becomes readable when that child of ours ends."""
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # An old kernel, or a sandbox.
                raise
    readable, writable = os.pipe()

    def wait() -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # Leaves it to be reaped by `bury`.
        os.close(writable)

    threading.Thread(target=wait, name=f"sentinel {pid}", daemon=True).start()
    return readable
