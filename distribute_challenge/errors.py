"""Every error that this package raises on its own account. It imports nothing of the package."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError


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


class WorkerLost(PoolError, BrokenExecutor):
    """The worker died under the function."""


class ProfileFormatError(PoolError, ValueError):
    """A profile cannot be read: file, line, and what is wrong there."""
