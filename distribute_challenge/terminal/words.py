"""The state of a pool in words, which all who show it share."""

from __future__ import annotations

from typing import Any

from distribute_challenge.pictures.words import plural, printable

MIN_S, HOUR_S, DAY_S = 60, 3600, 86400


def duration(seconds: float) -> str:
    """A time in two units at most.

    >>> duration(0.25), duration(59), duration(125), duration(7500), duration(200_000)
    ('0.2 s', '59.0 s', '2 min 05 s', '2 h 05 min', '2 d 7 h')
    """
    whole = int(seconds)
    if whole < MIN_S:
        return f"{max(seconds, 0):.1f} s"
    if whole < HOUR_S:
        return f"{whole // MIN_S} min {whole % MIN_S:02} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MIN_S:02} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"


def memory(size: int | None) -> str:
    """A size of memory; empty if it is unknown.

    >>> memory(30_000_000), memory(3 << 30), memory(None)
    ('29 MiB', '3.0 GiB', '')
    """
    if size is None:
        return ""
    return f"{size / 2**20:.0f} MiB" if size < 1 << 30 else f"{size / 2**30:.1f} GiB"


def percent(value: float | None) -> str:
    """A share of a processor; empty if it is unknown.

    >>> percent(99.6), percent(None)
    ('100 %', '')
    """
    return "" if value is None else f"{value:.0f} %"


def place(worker: dict[str, Any]) -> str:
    """Where a worker is: its port; of a cluster, where its Dask worker is.

    >>> place({"port": 18812}), place({"port": 1, "address": "10.0.0.5:4000"})
    ('18812', '10.0.0.5:4000')
    """
    return printable(str(worker.get("address") or worker["port"]))


def function(worker: dict[str, Any]) -> str:
    """The function that a worker runs, and those that run within it, in place; why there is no worker."""
    if "problem" in worker:
        return printable(f"cannot be started: {worker['problem']}")
    return " > ".join(printable(call["function"]) for call in worker["running"])


def client(worker: dict[str, Any]) -> str:
    """The client for which a function runs."""
    return printable(worker["running"][0]["client"]) if worker["running"] else ""


def since(worker: dict[str, Any], now: float) -> str:
    """How long a function has been running."""
    return duration(now - worker["running"][0]["since"]) if worker["running"] else ""


def counts(status: dict[str, Any]) -> str:
    """The counts, and who waits.

    >>> waits, ended = {"waiting": 2, "tasks": 1500}, {"finished": 9, "failed": 0, "lost": {"timeout": 1}}
    >>> counts({"busy": [1, 0], **waits, **ended})
    'busy 1/2, waiting 2 clients and 1,500 tasks, finished 9, failed 0, lost 1 (1 timeout)'
    """
    busy = status["busy"]
    lost = status["lost"]
    why = ", ".join(f"{number:,} {printable(reason)}" for reason, number in sorted(lost.items()))
    return (
        f"busy {sum(busy)}/{len(busy)}, "
        f"waiting {plural(status['waiting'], 'client')} and {plural(status['tasks'], 'task')}, "
        f"finished {status['finished']:,}, failed {status['failed']:,}, "
        f"lost {sum(lost.values()):,}{f' ({why})' if why else ''}"
    )
