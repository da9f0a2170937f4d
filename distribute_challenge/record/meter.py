"""Measures what workers take, their child processes included."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil

from distribute_challenge.record.profile import UNKNOWN, Usage


class Meter:
    """Measures processes with psutil.

    The CPU time of a process counts with that of its children, those that have ended included, so that a
    worker whose function starts a short-lived process does not look idle.
    """

    def __init__(self) -> None:
        self._before: dict[psutil.Process, float] = {}  # CPU seconds at the last measurement
        self._measured_at = time.monotonic()
        self._has_children = False

    def measure(self, pids: Sequence[int | None], *, may_have_children: bool) -> list[Usage]:
        """The usage of each process since the last measurement, or since it began if that was later.

        The process table is passed over once, and not at all if nobody can have children. Raises OSError,
        and then has measured nothing: the next measurement covers this time too.
        """
        try:
            return self._measure(pids, may_have_children=may_have_children)
        except psutil.Error as error:
            raise OSError(str(error)) from error

    def _measure(self, pids: Sequence[int | None], *, may_have_children: bool) -> list[Usage]:
        children: dict[int, list[psutil.Process]] = {}
        if may_have_children or self._has_children:
            for process in psutil.process_iter(["ppid"]):
                children.setdefault(process.info["ppid"], []).append(process)
        now = time.monotonic()
        elapsed_s = max(now - self._measured_at, 1e-3)
        after: dict[psutil.Process, float] = {}
        usages = [UNKNOWN if pid is None else self._usage(pid, children, after, elapsed_s) for pid in pids]
        self._measured_at, self._before = now, after
        self._has_children = any(children.get(pid) for pid in pids if pid is not None)
        return usages

    def _usage(
        self,
        pid: int,
        children: dict[int, list[psutil.Process]],
        after: dict[psutil.Process, float],
        elapsed_s: float,
    ) -> Usage:
        try:
            worker = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return UNKNOWN
        family = [worker]
        for member in family:  # It grows while it is gone through.
            family += children.get(member.pid, ())
        cpu_s = 0.0
        memory_bytes = 0
        for member in family:
            try:
                with member.oneshot():
                    times = member.cpu_times()
                    memory_bytes += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        after[worker] = cpu_s
        # What an orphan took leaves the sum with it, which then is not less than nothing.
        used_s = max(cpu_s - self._before.get(worker, 0.0), 0.0)
        return Usage(100 * used_s / elapsed_s, memory_bytes, used_s)


def proportional_bytes(pid: int) -> int:
    """The memory of a process and its descendants, in which a page that several share counts once, in parts.

    It takes the system far longer to tell than resident bytes. Where it does not tell, those count.
    """
    taken = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(pid)
        for member in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                try:
                    memory = member.memory_full_info()
                    taken += getattr(memory, "pss", memory.uss)
                except psutil.AccessDenied:
                    taken += member.memory_info().rss
    return taken
