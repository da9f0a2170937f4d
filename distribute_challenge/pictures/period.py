"""Parts of a record: those that the user asks for, and the one in which there was work."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any

import numpy as np

from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.pictures.tasks import Tasks

MARGIN = 20  # parts of the work that are drawn before and after it
OTHER_RUN_S = 60.0  # Tasks that begin so long after a profile's last row are of another run.


def lengthened(profile: Profile, tasks: Tasks) -> Profile:
    """A profile that ends no earlier than its tasks.

    Counts alone have no row: they come with the next sample. So the tasks know more of a server that was
    killed, or goes on: each of them that ended after the last row makes one. At the last of these rows the
    work is over, as far as anybody knows.
    """
    last = len(profile.seconds) - 1
    seconds = tasks.ended - profile.began
    late = np.flatnonzero(seconds > profile.seconds[last])
    late = late[np.argsort(seconds[late])]
    if profile.events is None or profile.events[last] == "stop" or not late.size:
        return profile
    if tasks.started.min() - profile.began > profile.seconds[last] + OTHER_RUN_S:
        return profile
    done = np.where(tasks.has_failed, 0, tasks.count)
    counted = done.sum() - done[late].sum() + done[late].cumsum()
    events = np.full(len(late), "", object)
    events[-1] = "free"
    added = {
        "seconds": seconds[late],
        "finished": np.maximum(counted, profile.finished[last]),
        "events": events,
        "about": np.full(len(late), -1, np.int32),
    }
    columns: dict[str, Any] = {}
    for name in (*added, "busy", "waiting", "tasks"):
        values = getattr(profile, name)
        if values is not None:
            more = added[name] if name in added else values[[last] * len(late)]
            columns[name] = np.concatenate((values, more))
    return replace(profile, **columns)


def asked(profile: Profile, since: time | datetime | None, last: float | None) -> tuple[float, float]:
    """From when to when a profile is to be drawn, in seconds since it began.

    If nobody asked for a part, it is where there was work. Raises ProfileFormatError if nothing is there.
    """
    end = float(profile.seconds[-1])
    if last is not None:
        return max(end - last, 0), end
    if since is None:
        return work(profile)
    begin = _seconds_at(profile, since)
    if begin >= end:
        ended = datetime.fromtimestamp(profile.began + end)
        raise ProfileFormatError(
            f"{profile.path}: it ends at {ended:%Y-%m-%d %H:%M:%S}: give an earlier --since"
        )
    return max(begin, 0), end


def work(profile: Profile) -> tuple[float, float]:
    """When work began and ended, with a margin; all of the profile if it is not most of it that was idle."""
    end = float(profile.seconds[-1])
    is_active = profile.busy.any(axis=1)
    if profile.waiting is not None:
        is_active |= profile.waiting > 0
    rows = np.flatnonzero(is_active)
    if not rows.size:
        return 0, end
    began = float(profile.seconds[rows[0]])
    ended = float(profile.seconds[min(rows[-1] + 1, len(profile.seconds) - 1)])
    if not 0 < ended - began < end / 2:
        return 0, end
    margin = (ended - began) / MARGIN
    return max(began - margin, 0), min(ended + margin, end)


def part(profile: Profile, begin: float, end: float) -> Profile:
    """The profile between two times, in seconds since it began, as if it had been recorded so."""
    before = max(int(np.searchsorted(profile.seconds, begin, side="right")) - 1, 0)
    behind = int(np.searchsorted(profile.seconds, end, side="right"))
    # How things stand when the part begins and ends is in the rows before.
    rows = np.array([before, *range(before + 1, behind), max(behind - 1, before)])
    seconds = profile.seconds[rows].clip(begin) - begin
    seconds[-1] = min(end, float(profile.seconds[-1])) - begin
    events, about = profile.events, profile.about
    if events is not None:
        events = events[rows]
        # Work that has begun before goes on when the part begins.
        events[0] = "acquire" if profile.span_s[0] <= begin and profile.busy[before].any() else ""
        events[-1] = ""
    if about is not None:
        about = about[rows]
        about[[0, -1]] = -1
    is_sampled = (profile.sampled >= begin) & (profile.sampled <= end)
    cpu, memory = profile.cpu_percent, profile.memory_bytes
    has_samples = bool(is_sampled.any())
    return replace(
        profile,
        began=profile.began + begin,
        seconds=seconds,
        busy=profile.busy[rows],
        finished=profile.finished[rows] - profile.finished[before],
        waiting=None if profile.waiting is None else profile.waiting[rows],
        tasks=None if profile.tasks is None else profile.tasks[rows],
        events=events,
        about=about,
        sampled=profile.sampled[is_sampled] - begin,
        cpu_percent=cpu[is_sampled] if cpu is not None and has_samples else None,
        memory_bytes=memory[is_sampled] if memory is not None and has_samples else None,
    )


def tasks_in(profile: Profile, tasks: Tasks) -> Tasks:
    """The tasks that ran while a profile, which may be a part, was recorded."""
    end = profile.began + float(profile.seconds[-1])
    rows = (tasks.ended >= profile.began) & (tasks.started <= end)
    cut: dict[str, Any] = {
        name: values[rows] for name, values in vars(tasks).items() if isinstance(values, np.ndarray)
    }
    return replace(tasks, **cut)


def _seconds_at(profile: Profile, since: time | datetime) -> float:
    """When that was, in seconds since the profile began. A time of day is the last such one in it."""
    end = profile.began + float(profile.seconds[-1])
    try:
        if isinstance(since, datetime):
            return since.timestamp() - profile.began
        found = datetime.combine(datetime.fromtimestamp(end), since)
        if found.timestamp() > end:
            found -= timedelta(days=1)
        return found.timestamp() - profile.began
    except (OverflowError, OSError, ValueError):
        raise ProfileFormatError(f"{profile.path}: it has no time like {since}: leave out --since") from None
