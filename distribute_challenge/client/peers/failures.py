"""Failed workers: what it means for a task when a worker that was handed out does not do its work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError

from distribute_challenge import errors
from distribute_challenge.address import ANY_USER_VARIABLE, Address
from distribute_challenge.calls.ending import Ending
from distribute_challenge.errors import AccessDenied, PoolError, TaskTimeout
from distribute_challenge.record.tasks import KILLED, LOST, TIMEOUT
from distribute_challenge.wire.descriptors import NONE_LEFT

ADVICE = "this program has no descriptors left: close some files, or raise its limit (ulimit -n)"


class Unusable(Exception):
    """The worker that was handed out did not take the function. Another one may."""


class Unreachable(PoolError):
    """There is nothing wrong with the worker, but this program cannot connect to it."""


class Broken(Exception):
    """The worker must be replaced.

    With `ends_task` the function that it runs, as far as we know, ends with that; else it is lost only if the
    worker had begun it.
    """

    status = LOST  # of the function, in the record

    def __init__(self, reason: str, *, ends_task: bool = False) -> None:
        super().__init__(reason)
        self.ends_task = ends_task

    def error(self, name: str, ending: Ending) -> Exception:
        """The error of the function that broke the worker."""
        return lost(name, ending)

    def unusable(self, ending: Ending) -> Unusable:
        """For functions that the worker had not begun: another worker may take them."""
        return Unusable(f"{ending.worker} was replaced: {self}")


def lost(name: str, ending: Ending) -> errors.WorkerLost:
    """The error of a function that its worker had begun when it ended."""
    message = f"{ending.worker} died while it ran {name}: {ending.how}"
    if ending.memory_bytes:  # Of a process that has just died, nothing is measured.
        message += f"; it took {ending.memory_bytes / 2**20:.0f} MiB when last measured"
    return errors.WorkerLost(
        message + _listed("The last that this worker printed", ending.last_lines) + _stack(ending)
    )


class Dead(Broken):
    """The worker has died: its connection has ended, or the server says so."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(f"it died under {name or 'a function'}")


class Silent(Broken):
    """The worker takes and says nothing any more, or did not when a connection was to be made."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("it does not answer its client" + (f" ({error})" if error is not None else ""))


class Overdue(Broken):
    """The function has not ended in its time: the worker is replaced for that."""

    status = TIMEOUT

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"its function did not end within {timeout_s:g} s", ends_task=True)
        self._timeout_s = timeout_s

    def error(self, name: str, ending: Ending) -> Exception:
        return TaskTimeout(
            f"{name} did not end within {self._timeout_s:g} s: it was killed, and {ending.worker} replaced"
            + _stack(ending)
        )


class Busy(Broken):
    """The worker did not take the call."""

    def __init__(self) -> None:
        super().__init__("it still runs the function of a client that gave up")


class Misunderstood(Broken):
    """The worker took the call, and said something else than what became of it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"it answers with {error!r}", ends_task=True)

    def error(self, name: str, ending: Ending) -> Exception:
        return PoolError(
            f"{ending.worker} did not understand the call of {name}, or was not understood: {self}. Client "
            "and server need the same version of this package"
        )


class Killed(Broken):
    """The caller does not want the function to go on."""

    status = KILLED

    def __init__(self) -> None:
        super().__init__("its caller has had its function killed", ends_task=True)

    def error(self, name: str, ending: Ending) -> Exception:
        return CancelledError(
            f"{name} was killed, as its caller wished, and {ending.worker} replaced" + _stack(ending)
        )


def _stack(ending: Ending) -> str:
    """Where the function was when its worker ended."""
    return _listed("The stack, most recent call first", ending.stack)


def _listed(title: str, lines: Sequence[str]) -> str:
    """The continuation of a message by a list of lines, if there are any."""
    return f"\n{title}:" + "".join(f"\n    {line}" for line in lines) if lines else ""


def lacks_descriptors(error: BaseException) -> bool:
    """Whether this program cannot open anything more."""
    return isinstance(error, OSError) and error.errno in NONE_LEFT


def distrusted(address: Address, error: Exception) -> AccessDenied:
    """The error when the process that listens somewhere is somebody else's."""
    return AccessDenied(
        f"nothing was sent to {address}: {error}. Whatever listens there would get the functions, and run "
        "code here. Start a server of your own on another port; use TLS for a server on another machine; or, "
        f"if every user of this machine is to be trusted, set {ANY_USER_VARIABLE}=1"
    )


def why_no_worker(error: Exception, address: Address) -> Broken | PoolError:
    """The reason why this program cannot connect to a worker."""
    if isinstance(error, AccessDenied):
        return error
    if isinstance(error, EOFError | ConnectionResetError | TimeoutError):  # It died, or it is stuck.
        return Silent(error)
    if lacks_descriptors(error):
        return Unreachable(f"cannot connect to the worker at {address}: {ADVICE}")
    # The server listens for its workers even while they are replaced: this is on our side of it.
    return Unreachable(
        f"cannot reach the worker at {address} that the server handed out "
        f"({error}): clients need the ports of all workers, also through a tunnel"
    )
