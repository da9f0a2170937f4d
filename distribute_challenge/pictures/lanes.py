"""Which worker is meant: the profile numbers them, the tasks file names their ports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks


def ports(profile: Profile, tasks: Tasks | None) -> list[int | None]:
    """The port of each worker of the profile; None for those of which no task is known.

    A worker with a higher number has a higher port. If not all ran tasks, those that did are among those
    that were busy.
    """
    return match(np.any(profile.busy, axis=0), [] if tasks is None else np.unique(tasks.worker).tolist())


def match(was_busy: NDArray[np.bool_], seen: Sequence[int]) -> list[int | None]:
    """The port of each worker: `was_busy` says which can have run tasks, `seen` are the ports where some ran.

    >>> match(np.array([True, False, True]), [18812, 18814])
    [18812, None, 18814]
    >>> match(np.array([False, False]), [40001])
    [40001, None]
    """
    seen = sorted(seen)
    places = np.flatnonzero(was_busy).tolist()
    if len(places) != len(seen):
        # Some were only held. Ports in a row tell how far apart their workers are.
        first = next((place for place in places if _fits(place, seen, len(was_busy))), None)
        places = [first + port - seen[0] for port in seen] if seen and first is not None else range(len(seen))
    found: list[int | None] = [None] * len(was_busy)
    for place, port in zip(places, seen, strict=False):
        if place < len(found):
            found[place] = port
    return found


def _fits(first: int, seen: Sequence[int], workers: int) -> bool:
    return bool(seen) and first + seen[-1] - seen[0] < workers


def names(of_ports: Sequence[int | None]) -> list[str]:
    """What the lanes are called.

    >>> names([18812, None])
    ['worker 1 :18812', 'worker 2']
    """
    return [
        f"worker {number}" + (f" :{port}" if port else "") for number, port in enumerate(of_ports, start=1)
    ]
