"""The workers of a record, as they are now: which are busy, since when, with what; which were lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.pictures.lanes import marks
from distribute_challenge.pictures.live.data.levels import Stream
from distribute_challenge.pictures.live.data.running import FlightRecorders
from distribute_challenge.pictures.reading import Profile
from distribute_challenge.record.profile import LEFT, Clock, joined

Values = NDArray[np.float64]


class Running(NamedTuple):
    """A function that runs."""

    function: str
    client: str
    since: float  # Unix seconds


class Workers:
    """What is known of each of `count` workers, by its number; `began` is when the record did."""

    def __init__(
        self, count: int, began: float, ports: Mapping[int, int], flights: FlightRecorders | None
    ) -> None:
        self.count = 0
        self.ports: list[int | None] = []
        self.places: dict[int, str] = {}  # of a cluster, whose workers come and go
        self.busy: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.busy_since: Values = np.zeros(0)
        self.is_gone: NDArray[np.bool_] = np.zeros(0, bool)  # lost, and not replaced yet; or has left
        self.lost = self.replaced = 0
        self.losses = Stream()  # `right`: the time, `lane`: which, `is_lost`: or replaced
        self.cpu_percent: Values = np.zeros(0)
        self.memory_bytes: Values = np.zeros(0)
        self.running: list[list[Running]] = []  # the outermost first
        self._flights = flights
        self._grow(count, began)
        for port, number in ports.items():
            self.ports[number] = port

    def _grow(self, count: int, now: float) -> None:
        """Workers have come: there are so many."""
        more = count - self.count
        self.count = count
        self.ports += [None] * more
        self.busy = np.append(self.busy, np.zeros(more, np.uint8))
        self.busy_since = np.append(self.busy_since, np.full(more, now))
        self.is_gone = np.append(self.is_gone, np.zeros(more, bool))
        self.cpu_percent = np.append(self.cpu_percent, np.full(more, np.nan))
        self.memory_bytes = np.append(self.memory_bytes, np.full(more, np.nan))
        self.running += [[] for _ in range(more)]

    @property
    def present(self) -> int:
        """How many there are: of a cluster, those that have not left."""
        return self.count - (int(self.is_gone.sum()) if self.places else 0)

    def look(self) -> None:
        """Look at what runs."""
        running = {} if self._flights is None else self._flights.running()
        if len(running) == self.count and not self.places:
            self.ports = list(running)
        clock = Clock()
        self.running = [
            [
                Running(call.function, call.client, clock.at(call.started))
                for call in running.get(port or 0, ())
            ]
            for port in self.ports
        ]

    def know_ports(self, ports: list[int]) -> dict[int, int]:
        """The number of the worker at each of these ports; of a cluster, they are those numbers, from 1."""
        if not set(ports) <= set(self.ports):
            self.ports = match(self.count, [*filter(None, self.ports), *ports])
        numbers = {port: number for number, port in enumerate(self.ports) if port}
        return {port: numbers.get(port, 0) for port in ports}

    def take(self, profile: Profile) -> tuple[NDArray[np.int32], Values, Values]:
        """Take in rows of the profile; leases that have ended with them: which worker, from when to when."""
        times = profile.began + profile.seconds
        self.places.update(profile.places)
        if profile.workers > self.count:
            self._grow(profile.workers, profile.began)
        if self.places:
            self.ports = [number + 1 for number in range(self.count)]
        ended = [self._take_lane(profile, lane, times) for lane in range(self.count)]
        self.busy = profile.busy[-1]
        for mark in marks(profile):
            is_lost = mark.event == "lost"
            self.lost, self.replaced = self.lost + is_lost, self.replaced + (not is_lost)
            if mark.lane is not None:
                self.is_gone[mark.lane] = is_lost
                self.losses.add(
                    {
                        "right": np.array([profile.began + mark.time_s]),
                        "lane": np.array([mark.lane]),
                        "is_lost": np.array([is_lost]),
                    }
                )
        if self.places and profile.events is not None and profile.about is not None:
            moves = [LEFT, "lost", "replaced", *map(joined, profile.places.values())]
            for row in np.flatnonzero(np.isin(profile.events, moves)):
                self.is_gone[profile.about[row]] = profile.events[row] in (LEFT, "lost")
        if profile.cpu_percent is not None and profile.memory_bytes is not None:
            self.cpu_percent, self.memory_bytes = profile.cpu_percent[-1], profile.memory_bytes[-1]
        numbers = np.repeat(np.arange(self.count, dtype=np.int32), [len(begins) for begins, _ in ended])
        begins, ends = (np.concatenate(column) for column in zip(*ended, strict=True))
        return numbers, begins, ends

    def _take_lane(self, profile: Profile, lane: int, times: Values) -> tuple[Values, Values]:
        """When leases that have ended began and ended."""
        changes = np.diff(profile.busy[:, lane].astype(np.int8), prepend=np.int8(self.busy[lane]))
        begins, ends = times[changes > 0], times[changes < 0]
        if self.busy[lane]:
            begins = np.append(self.busy_since[lane], begins)
        latest = max(begins.max(initial=-np.inf), ends.max(initial=-np.inf))
        if profile.about is not None and profile.events is not None:
            # One that is handed over is busy before and after.
            handed = times[(profile.about == lane) & (profile.events == "acquire")]
            latest = max(latest, handed.max(initial=-np.inf))
        if np.isfinite(latest):
            self.busy_since[lane] = latest
        return begins[: len(ends)], ends


def match(workers: int, ports: list[int]) -> list[int | None]:
    """The port of each worker, as far as ports are known: their order is that of the workers' numbers.

    >>> match(3, [18814, 18812])
    [18812, None, 18814]
    >>> match(3, [40001, 50001])
    [40001, 50001, None]
    """
    found: list[int | None] = [None] * workers
    ports = sorted(set(ports))[:workers]
    for rank, port in enumerate(ports):
        found[port - ports[0] if ports[-1] - ports[0] < workers else rank] = port
    return found
