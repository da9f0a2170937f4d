"""What is not on a Dask cluster as it is on a pool. All else is, and the same tests hold for both."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """One thing, and how it is at either place."""

    what: str
    pool: str
    dask: str


DIFFERENCES = (
    Difference(
        "a worker that is lost",
        "what it had begun is lost, and never begun again unless `retries` says so",
        "if the function's own process dies, the same. If the Dask worker or its machine does, Dask "
        "begins all that it had there again elsewhere, up to `allowed-failures` times (3, for the whole "
        "scheduler), and only then it is `WorkerLost`",
    ),
    Difference(
        "`cancel()` and `running()`",
        "a future runs when a worker has it",
        "a future runs when Dask has it: as many as there are threads, more of short ones, and what has "
        "waited for a second. `kill()` stops it there, too",
    ),
    Difference(
        "who is next",
        "clients are served first come, first served, and long streams give way",
        "as Dask's scheduler decides",
    ),
    Difference(
        "tasks of tasks",
        "on a worker that is free, else in place",
        "on a thread of the same Dask worker that is free, else in place; never on another machine",
    ),
    Difference(
        "versions of Python",
        "client and workers may have different ones",
        "the same one (like 3.12) everywhere",
    ),
    Difference(
        "large values",
        "by shared memory on one machine",
        "copied, through the scheduler; `scatter` sends one to each worker once, and again if those that had "
        "it are lost",
    ),
    Difference(
        "the user's own modules",
        "their texts go over each connection once",
        "their texts go with each call, or chunk of a map",
    ),
    Difference(
        "who may connect",
        "this user's programs only, or by mutual TLS, which checks host names",
        "whoever reaches the scheduler's port runs code there, unless it demands TLS, which checks no host "
        "names",
    ),
    Difference(
        "the record",
        "profile, tasks, live page, `compute status`, `top` and `stack`",
        "the same for `server.py --engine dask`, beside Dask's own dashboard; no `stack`, and no tasks of "
        "tasks",
    ),
)
