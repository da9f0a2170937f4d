"""Measures what workers take, their child processes included."""

from __future__ import annotations

import contextlib
import io
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
        children = _children() if may_have_children or self._has_children else {}
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
        children: dict[int, list[int]],
        after: dict[psutil.Process, float],
        elapsed_s: float,
    ) -> Usage:
        try:
            worker = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return UNKNOWN
        family = [pid]
        for of_it in family:  # It grows while it is gone through.
            family += children.get(of_it, ())
        cpu_s = 0.0
        memory_bytes = 0
        for of_it in family:
            try:
                member = worker if of_it == pid else psutil.Process(of_it)
                with member.oneshot():
                    times = member.cpu_times()
                    memory_bytes += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        after[worker] = cpu_s
        # What an orphan took leaves the sum with it, which then is not less than nothing.
        used_s = max(cpu_s - self._before.get(worker, 0.0), 0.0)
        # One that has died, and is not buried yet, has no memory: what it took is not known.
        return Usage(100 * used_s / elapsed_s, memory_bytes or None, used_s)


def _children() -> dict[int, list[int]]:
    """The children of each process, by their numbers. (With psutil it takes several times as long.)"""
    children: dict[int, list[int]] = {}
    for pid in psutil.pids():
        try:
            with io.FileIO(f"/proc/{pid}/stat") as file:
                about = file.read(1024)
        except OSError:  # It has ended.
            continue
        # Its number, its name in brackets, which may hold anything, its state, and its parent
        children.setdefault(int(about[about.rfind(b")") + 4 :].split(None, 1)[0]), []).append(pid)
    return children


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
