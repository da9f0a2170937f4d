"""When workers were lost and replaced, and which."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distribute_challenge.pictures.reading import Profile


class Mark(NamedTuple):
    """A worker was lost, or its successor answered. `lane` is its number from 0; None if it is unknown."""

    event: str
    time_s: float
    lane: int | None


def marks(profile: Profile) -> list[Mark]:
    """Every loss and replacement.

    A row names no worker: the bit that changed tells which it was. A worker that was lost under its lease
    was busy before and after, and is the one that is replaced next; which that is stays open if it was handed
    over at once.
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
    if profile.workers == 1:
        return 0
    changed = np.flatnonzero(profile.busy[row] != profile.busy[max(row - 1, 0)])
    return int(changed[0]) if changed.size == 1 else None
