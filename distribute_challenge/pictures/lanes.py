"""What belongs in which worker's lane: tasks, how deep they are within each other, and losses.

A tasks file names workers by their ports, a profile by their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks

Values = NDArray[np.float64]
SAMPLE = 500  # tasks of each port that are compared with the busy lists
LOSS_S = 2.0  # A worker whose function is stopped is lost within this time.
NO_REASON = 1e-6  # seconds that stand for a place further from the expected one
MOST_DEPTH = 8


class Mark(NamedTuple):
    """A worker was lost, or its successor answered. `lane` is its number from 0; None if it is unknown."""

    event: str
    time_s: float
    lane: int | None


def ports(profile: Profile, tasks: Tasks, server_port: int | None) -> dict[int, int]:
    """The numbers of the workers at the ports in a tasks file.

    If all are there, one after another, they are in the order of their ports. Else the busy lists tell: what
    a worker runs, it runs while it is busy. Where these do not, workers have the ports after their server's.
    In the record of a cluster the tasks name workers by their numbers, from 1. Raises ProfileFormatError if
    the two files are of different runs.
    """
    found = np.unique(tasks.worker).astype(np.intp)
    if not len(tasks):
        return {}
    begins, ends = tasks.started - profile.began, tasks.ended - profile.began
    if len(found) > profile.workers or not ((ends >= 0) & (begins <= profile.seconds[-1])).any():
        problem = f"its tasks are of another run than {profile.path}: move one of the two away"
        raise ProfileFormatError(f"{tasks.path}, line 2: {problem}")
    if profile.places:
        numbers = found - 1
    elif found[-1] - found[0] == profile.workers - 1 == len(found) - 1:
        numbers = found - found[0]
    else:
        numbers = np.arange(len(found)) if server_port is None else found - server_port - 1
        if not ((numbers >= 0) & (numbers < profile.workers)).all():
            numbers = np.arange(len(found))
        numbers = assign(_time_outside(profile, tasks, found, begins, ends, numbers))
    return {int(port): int(number) for port, number in zip(found, numbers, strict=True)}


def where(places: Mapping[int, str], ports: Mapping[int, int]) -> dict[int, str]:
    """Where workers are, by their numbers, as far as that is known: `:PORT`, or of a cluster `HOST:PORT`.

    >>> where({}, {18812: 0}), where({1: "10.0.0.5:4000"}, {1: 0, 2: 1})
    ({0: ':18812'}, {1: '10.0.0.5:4000'})
    """
    return dict(places) or {number: f":{port}" for port, number in ports.items()}


def depths(lane: NDArray[np.int32], tasks: Tasks) -> NDArray[np.int8]:
    """Within how many other tasks each ran, in place: 0 for most.

    The two rows of a chunk with failures are at one depth.
    """
    if not len(tasks):
        return np.zeros(0, np.int8)
    origin = tasks.started.min()
    # Workers one after another on one line of time: the latest end so far is one of the same worker.
    shift = lane * (tasks.ended.max() - origin + 1)
    started, ended = tasks.started - origin + shift, tasks.ended - origin + shift
    order = np.lexsort((tasks.function, -ended, started))
    keys = np.stack((started, ended, tasks.function))[:, order]
    is_first = np.append(True, (np.diff(keys, axis=1) != 0).any(axis=0))
    started, ended = keys[:2, is_first]
    depth = np.zeros(len(started), np.int8)
    rows = np.arange(len(started))
    for _ in range(MOST_DEPTH):
        latest = np.maximum.accumulate(ended[rows])[:-1]
        rows = rows[1:][(ended[rows[1:]] <= latest) & (started[rows[1:]] < latest)]
        depth[rows] += 1
        if not len(rows):
            break
    found = np.empty(len(tasks), np.int8)
    found[order] = depth[np.cumsum(is_first) - 1]
    return found


def assign(cost: Values) -> NDArray[np.intp]:
    """A column for each row, no two the same, so that the sum of their costs is least.

    Row after row finds its place by the cheapest chain of moves of those before (the Hungarian method).

    >>> assign(np.array([[1.0, 2.0, 9.0], [1.0, 5.0, 9.0]])).tolist()
    [1, 0]
    """
    rows, columns = cost.shape
    holder = np.full(columns, -1)
    of_row, of_column = (
        np.zeros(rows),
        np.zeros(columns),
    )  # what is taken off each, so that all costs are >= 0
    for new in range(rows):
        least, before = np.full(columns, np.inf), np.full(columns, -1)
        is_seen = np.zeros(columns, bool)
        row, column, distance = new, -1, 0.0
        while row >= 0:
            through = distance + cost[row] - of_row[row] - of_column
            is_better = ~is_seen & (through < least)
            least[is_better], before[is_better] = through[is_better], column
            column = int(np.argmin(np.where(is_seen, np.inf, least)))
            distance = float(least[column])
            is_seen[column] = True
            row = int(holder[column])
        nearer = is_seen & (holder >= 0)
        of_row[holder[nearer]] += distance - least[nearer]
        of_row[new] += distance
        of_column[is_seen] += least[is_seen] - distance
        while column >= 0:
            earlier = int(before[column])
            holder[column] = holder[earlier] if earlier >= 0 else new
            column = earlier
    found = np.empty(rows, np.intp)
    found[holder[holder >= 0]] = np.flatnonzero(holder >= 0)
    return found


def marks(profile: Profile) -> list[Mark]:
    """Every loss and replacement.

    In older files a row names no worker: the bit that changed tells which it was. A worker that was lost
    under its lease was busy before and after, and is the one that is replaced next; which that is stays open
    if it was handed over at once.
    """
    found: list[Mark] = []
    owed: list[float] = []  # when workers were lost of which is not known yet which they are
    known: set[int] = set()  # workers whose loss is marked, and whose successor has not answered
    for row in np.sort(np.concatenate((profile.rows_of("lost"), profile.rows_of("replaced")))):
        time_s, lane = float(profile.seconds[row]), _lane(profile, row)
        if profile.events is not None and profile.events[row] == "replaced":
            if lane in known:
                known.discard(lane)
            elif owed:
                found.append(Mark("lost", owed.pop(0), lane))
            found.append(Mark("replaced", time_s, lane))
        elif lane is None:
            owed.append(time_s)
        else:
            known.add(lane)
            found.append(Mark("lost", time_s, lane))
    return found + [Mark("lost", time_s, None) for time_s in owed]


def _lane(profile: Profile, row: int) -> int | None:
    """The worker that a row is about, if that can be told."""
    if profile.about is not None and profile.about[row] >= 0:
        return int(profile.about[row])
    if profile.workers == 1:
        return 0
    changed = np.flatnonzero(profile.busy[row] != profile.busy[max(row - 1, 0)])
    return int(changed[0]) if changed.size == 1 else None


def _time_outside(
    profile: Profile,
    tasks: Tasks,
    found: NDArray[np.intp],
    begins: Values,
    ends: Values,
    expected: NDArray[np.intp],
) -> Values:
    """For each port and worker, for how long tasks at the port ran while the worker was not busy.

    Also counted: tasks that were cut off while that worker was not lost. Where nothing tells ports apart,
    they are those of the `expected` workers.
    """
    lengths = np.diff(profile.seconds)
    lost = profile.rows_of("lost")
    cost: Values = np.abs(np.subtract.outer(expected, np.arange(profile.workers))) * NO_REASON
    samples = []
    for port in found:
        here = np.flatnonzero(tasks.worker == port)
        samples.append(here[np.linspace(0, len(here) - 1, min(SAMPLE, len(here))).astype(int)])
    for worker in range(profile.workers):
        busy = np.concatenate(([0.0], np.cumsum(lengths * profile.busy[:-1, worker])))
        losses = profile.seconds[lost[profile.about[lost] == worker]] if profile.about is not None else None
        for row, here in enumerate(samples):
            began, ended = (np.interp(times[here], profile.seconds, busy) for times in (begins, ends))
            cost[row, worker] += float(np.sum(ends[here] - begins[here] - (ended - began)))
            if losses is not None:
                cut_off = ends[here][tasks.is_cut_off[here]]
                near = np.abs(cut_off[:, None] - losses).min(axis=1, initial=math.inf) <= LOSS_S
                cost[row, worker] += LOSS_S * np.count_nonzero(~near)
    return cost
