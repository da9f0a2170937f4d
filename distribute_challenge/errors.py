"""Every error that this package raises on its own account. It imports nothing of the package."""

from __future__ import annotations

import contextlib
from concurrent.futures import BrokenExecutor
from pickle import PicklingError
from typing import TYPE_CHECKING, Any


class PoolError(Exception):
    """The root of all errors of the pool itself. A user's own exception never becomes one of these."""


class ServerUnavailable(PoolError, ConnectionError):
    """Nothing answers at the server's address, or the server is stopping."""


class AccessDenied(PoolError, PermissionError):
    """One end does not let the other in: the server closed the connection before any answer, or did not
    prove with its certificate that it is the one meant."""


class TaskNotSendable(PoolError, TypeError, PicklingError):
    """The function, or a value that it uses, cannot travel. Found before a worker is taken."""


class TaskTimeout(PoolError, TimeoutError):
    """The deadline passed: the function was killed and its worker replaced."""


if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool

    class WorkerLost(PoolError, BrokenProcessPool):
        """The worker died under the function."""

    class InitializerFailed(BrokenProcessPool):
        """The executor can run nothing: its initializer raised, or could not be sent."""


class ProfileFormatError(PoolError, ValueError):
    """A profile cannot be read: file, line, and what is wrong there."""


_LATE = {
    "WorkerLost": ((PoolError,), "The worker died under the function."),
    "InitializerFailed": ((), "The executor can run nothing: its initializer raised, or could not be sent."),
}


def __getattr__(name: str) -> Any:
    """Make these classes when they are first asked for: the module of their base takes 15 ms to import."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base: type[Exception] = BrokenExecutor
    with contextlib.suppress(ImportError, RuntimeError):  # Nothing imports it while the program ends.
        from concurrent.futures.process import BrokenProcessPool

        base = BrokenProcessPool
    others, text = _LATE[name]
    members = {"__module__": __name__, "__doc__": text}
    return globals().setdefault(name, type(name, (*others, base), members))
