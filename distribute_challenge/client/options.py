"""The options of a call."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

from distribute_challenge.tls import Tls

LONGEST_S = 1e6
_OF_CALLS = {"timeout_s", "retries", "prints"}  # The others say where the pool is.
RESTART_S = 10.0  # How long a server that has gone is waited for at least, by a call that is to be run again.


@dataclass(frozen=True)
class Options:
    """How a call is run. Raises ValueError or TypeError for what makes no sense."""

    timeout_s: float | None = None  # from when the worker starts the function
    retries: int = 0  # how often it is run again if its worker is lost
    prints: bool = True  # whether its output is shown here
    wait_s: float = 0  # for a server that is not there
    tls: Tls | None = None  # for the connections to it; else what the environment says
    profile: str | None = None  # the file where a private pool writes what its workers do
    said: frozenset[str] = frozenset()  # the names of those that a function says itself

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not (
            isinstance(self.timeout_s, int | float) and 0 < self.timeout_s <= LONGEST_S
        ):
            raise ValueError(f"timeout is a number of seconds, more than 0, or None, not {self.timeout_s!r}")
        if not (isinstance(self.wait_s, int | float) and 0 <= self.wait_s <= LONGEST_S):
            raise ValueError(f"wait is a number of seconds, 0 or more, not {self.wait_s!r}")
        if self.tls is not None and not isinstance(self.tls, Tls):
            raise TypeError(f"tls is a Tls(cert, key, ca), or None, not {self.tls!r}")
        if not isinstance(self.prints, bool):
            raise TypeError(f"prints is True or False, not {self.prints!r}")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"retries is how often to run again, 0 or more, not {self.retries!r}")

    @classmethod
    def of_function(cls, **options: Any) -> Options:
        """Those of a function, which says nothing of the ones that are None."""
        said = {name: value for name, value in options.items() if value is not None}
        return cls(**said, said=frozenset(said))

    def within(self, pool: Options) -> Options:
        """Those of a function that is given to an executor: what it says itself goes first.

        >>> pool = Options(timeout_s=10, retries=2)
        >>> own = Options.of_function(timeout_s=None, retries=0).within(pool)
        >>> own.timeout_s, own.retries
        (10, 0)
        """
        return replace(pool, **{name: getattr(self, name) for name in self.said & _OF_CALLS})

    def with_timeout(self, timeout_s: float | None) -> Options:
        """The same with another time limit, if there is one."""
        return self if timeout_s is None else replace(self, timeout_s=timeout_s)


@dataclass(frozen=True)
class MapOptions:
    """How a map is run: what `PoolExecutor.map` takes. Raises ValueError for what makes no sense."""

    timeout: float | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    ordered: bool = True
    return_exceptions: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if not (self.timeout is None or isinstance(self.timeout, int | float)):
            raise TypeError(f"timeout is a number of seconds, or None, not {self.timeout!r}")
        for name, size in (("chunksize", self.chunksize), ("buffersize", self.buffersize)):
            if size is not None and operator.index(size) < 1:
                raise ValueError(f"{name} must be 1 or more")
