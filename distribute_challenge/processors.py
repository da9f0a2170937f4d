"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable(root: Path = Path("/")) -> int:
    """The processors that this process may use, by affinity and by its control groups' quota; at least 1.

    >>> 1 <= usable() <= (os.cpu_count() or 1)
    True
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(root))))


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
