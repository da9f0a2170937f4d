"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# By these, libraries are told how many threads they may use.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
)


def usable(root: Path = Path("/")) -> int:
    """The processors that this process may use, by affinity and by its control groups' quota; at least 1.

    >>> 1 <= usable() <= (os.cpu_count() or 1)
    True
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(root))))


def thread_limits(threads: int | None, workers: int) -> dict[str, str]:
    """The environment that keeps the libraries of each of so many workers to so many threads.

    None: to as many as OMP_NUM_THREADS says, by which most go unless told otherwise; else to its share of the
    processors, at least 1. What the environment says of one library stays.
    """
    if threads is not None:
        return dict.fromkeys(THREAD_VARIABLES, str(threads))
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # the first of several levels
    share = given or str(max(1, usable() // workers))
    return {name: share for name in THREAD_VARIABLES if name not in os.environ}


def _quota(root: Path) -> float:
    """How many processors' time the control groups of this process give it; inf if they do not say."""
    quotas = [math.inf]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # There are no control groups here.
        return math.inf
    for line in groups:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "cpu", "cpu,cpuacct"):
            mount = root / "sys/fs/cgroup" / ("cpu" if kinds else "")
            place = mount / path.lstrip("/")
            # A container may see its own group as the root, whatever it is told to be in.
            quotas += map(_read_quota, {mount, place, *(set(place.parents) - set(mount.parents))})
    return min(quotas)


def _read_quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():  # version 2
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text()
    except OSError:
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
