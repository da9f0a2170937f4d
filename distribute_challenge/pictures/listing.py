"""What the grapher prints of tasks: the figures of each function, and the newest failures."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from distribute_challenge.pictures.tasks import Tasks, summarize
from distribute_challenge.pictures.words import plural, printable, short_time, shortened
from distribute_challenge.record.tasks import STATUSES

MOST_FUNCTIONS = 30
MOST_FAILURES = 3
NAME = 40  # letters of a function's name
HEAD = ("function", "tasks", "failed", "total", "mean", "median", "99%", "mean", "median", "99%")


def table(tasks: Tasks) -> list[str]:
    """The figures of each function, as lines: how long it ran, and waited before."""
    summaries = summarize(tasks)
    if not summaries:
        return []
    rows = [
        (shortened(one.function, NAME), f"{one.tasks:,}", f"{one.failed:,}", *map(short_time, one[3:]))
        for one in summaries[:MOST_FUNCTIONS]
    ]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    lines = [
        "  ".join((name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])))
        for name, *numbers in (HEAD, *rows)
    ]
    run, wait = (sum(widths[:columns]) + 2 * (columns - 1) for columns in (7, 10))
    lines.insert(0, f"{'run time':>{run}}{'time waited':>{wait - run}}")
    if len(summaries) > MOST_FUNCTIONS:
        lines.append(f"and {plural(len(summaries) - MOST_FUNCTIONS, 'function')} with less time")
    return lines


def failures(tasks: Tasks) -> list[str]:
    """The newest failures, as lines: when, which function, how it ended, where, for whom, and why."""
    rows = np.flatnonzero(tasks.has_failed)
    if not rows.size:
        return []
    newest = rows[np.argsort(tasks.ended[rows], kind="stable")][::-1][:MOST_FAILURES]
    total = int(tasks.count[rows].sum())
    lines = ["the only failure:" if total == 1 else f"the newest of {total:,} failures:"]
    for row in newest.tolist():
        when = datetime.fromtimestamp(tasks.ended[row])
        count = int(tasks.count[row])
        times = f" ({count} times)" if count > 1 else ""
        name = shortened(tasks.functions[tasks.function[row]], NAME) + times
        where = f"on :{tasks.worker[row]} for {tasks.clients[tasks.client[row]]}"
        status, error = STATUSES[tasks.status[row]], tasks.error[row]
        end = f"{status}: {error}" if error else status
        lines.append(printable(f"  {when:%Y-%m-%d %H:%M:%S}  {name}  {where}  {end}"))
    return lines
