"""Numbers over time, and sums: how much was done in each step of a window, and by each function."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distribute_challenge.pictures.tasks import Summary, quantiles

Values = NDArray[np.float64]
STEPS = 300
ADDED = ("done", "failed")
HIGHEST = ("clients", "tasks")  # that wait
MEANS = ("cpu_percent", "memory_bytes")  # of all workers together
NAMES = (*ADDED, *HIGHEST, *MEANS)


class Series:
    """What happened in each step of a window that ends now. All of it may come late, and out of order."""

    def __init__(self, window_s: float, least_step_s: float) -> None:
        self.step_s = max(window_s / STEPS, least_step_s)
        self._steps = round(window_s / self.step_s) + 1
        self._first = 0  # the number of the first step: its time divided by its length
        self._values = {name: np.zeros(self._steps) for name in NAMES}
        self._samples = np.zeros(self._steps)

    def move_to(self, now: float) -> None:
        """Have the window end with the step that has `now`."""
        last = int(now // self.step_s)
        first = last - self._steps + 1
        shift, self._first = min(first - self._first, self._steps), first
        if shift <= 0:
            return
        for values in (*self._values.values(), self._samples):
            values[: -shift or None] = values[shift:]
            values[-shift:] = 0

    def add(self, name: str, times: Values, amounts: Values) -> None:
        """So much more was done at each of these times."""
        np.add.at(self._values[name], *self._places(times, amounts))

    def raise_to(self, name: str, times: Values, values: Values) -> None:
        """So many waited from each of these times on."""
        np.maximum.at(self._values[name], *self._places(times, values))

    def sample(self, times: Values, cpu_percent: Values, memory_bytes: Values) -> None:
        """What all workers took, together."""
        np.add.at(self._samples, *self._places(times, np.ones(len(times))))
        for name, values in zip(MEANS, (cpu_percent, memory_bytes), strict=True):
            self.add(name, times, values)

    def columns(self, begin: float, now: float, began: float, *, is_over: bool = False) -> dict[str, Values]:
        """The steps from `begin` on that are over; the one that is not, if it is the only one, or the last.

        `time` is the middle of each in Unix seconds. What was done is per second, of a record that `began`,
        and goes on or `is_over`.
        """
        number = self._first + np.arange(self._steps)
        shown = ((number + 1) * self.step_s > begin) & ((number + (not is_over)) * self.step_s <= now)
        if not shown.any():
            shown[-1] = True
        time = (number + 0.5) * self.step_s
        found: dict[str, Values] = {"time": time[shown].astype(float)}
        # The first step may have begun before the record, and the last one end after it.
        ends = np.minimum((number + 1) * self.step_s, now if is_over else np.inf)
        lengths = np.clip(ends - np.maximum(number * self.step_s, began), self.step_s / 10, self.step_s)
        for name in NAMES:
            values: Values = self._values[name]
            if name in ADDED:
                values = values / lengths
            elif name in MEANS:
                # The latest sample holds until the next one; before the first there is none.
                sampled = np.maximum.accumulate(np.where(self._samples > 0, np.arange(self._steps), -1))
                means = np.append(values / np.maximum(self._samples, 1), np.nan)
                values = means[sampled]
            found[name] = values[shown]
        return found

    def _places(self, times: Values, values: Values) -> tuple[NDArray[np.int64], Values]:
        place = np.floor(times / self.step_s).astype(np.int64) - self._first
        is_within = (place >= 0) & (place < self._steps)
        return place[is_within], values[is_within]


class Functions:
    """What each function took, from the first task on. The memory it takes is that of `most` functions.

    Of a function with few tasks each is known; else in bins, a fortieth of a decade wide: quantiles are right
    to 3 %.
    """

    FEW = 256  # rows
    _BINS_A_DECADE = 40
    _LEAST_S = 1e-7
    _BINS = 14 * _BINS_A_DECADE

    def __init__(self, most: int) -> None:
        self.tasks = np.zeros(most, np.int64)
        self.failed = np.zeros(most, np.int64)
        self.total = np.zeros(most)
        self._waited = np.zeros(most)
        self._rows = np.zeros(most, np.int64)
        self._few: dict[int, list[tuple[Values, Values, NDArray[np.int64]]]] = {}  # run, waited, how many
        self._run = np.zeros((most, self._BINS), np.int64)
        self._wait = np.zeros((most, self._BINS), np.int64)

    def add(
        self,
        function: NDArray[np.int32],
        count: NDArray[np.int64],
        seconds: Values,
        waited: Values,
        has_failed: NDArray[np.bool_],
    ) -> None:
        """Take in rows: how many functions each stands for, and what they took together."""
        np.add.at(self.tasks, function, count)
        np.add.at(self.failed, function[has_failed], count[has_failed])
        np.add.at(self.total, function, seconds)
        np.add.at(self._run, (function, self._bin(seconds / count)), count)
        self._keep_few(function, seconds / count, waited, count)
        is_known = ~np.isnan(waited)
        function, count, waited = function[is_known], count[is_known], waited[is_known]
        np.add.at(self._waited, function, waited * count)
        np.add.at(self._wait, (function, self._bin(waited)), count)

    def by_time(self, most: int) -> list[int]:
        """The functions that took most time, at most so many."""
        order = np.lexsort((np.arange(len(self.tasks)), -self.tasks, -self.total))[:most]
        return [int(number) for number in order if self.tasks[number]]

    def figures(self, function: int) -> Summary:
        """The figures of one, with its number for a name."""
        tasks, waits = int(self.tasks[function]), int(self._wait[function].sum())
        total = float(self.total[function])
        run, wait = (
            (self._quantile(times[function], 0.5), self._quantile(times[function], 0.99))
            for times in (self._run, self._wait)
        )
        if function in self._few:
            took, waited, count = (np.concatenate(parts) for parts in zip(*self._few[function], strict=True))
            is_known = ~np.isnan(waited)
            run = quantiles(took, count, (0.5, 0.99))
            wait = quantiles(waited[is_known], count[is_known], (0.5, 0.99))
        wait_mean = float(self._waited[function]) / waits if waits else math.nan
        failed = int(self.failed[function])
        return Summary(function, tasks, failed, total, total / tasks, *run, wait_mean, *wait)

    def _keep_few(
        self, function: NDArray[np.int32], run: Values, waited: Values, count: NDArray[np.int64]
    ) -> None:
        order = np.argsort(function, kind="stable")
        numbers, begins = np.unique(function[order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True):
            self._rows[number] += len(rows)
            if self._rows[number] > self.FEW:
                self._few.pop(number, None)
            else:
                self._few.setdefault(number, []).append((run[rows], waited[rows], count[rows]))

    def _bin(self, seconds: Values) -> NDArray[np.int64]:
        decades = np.log10(np.maximum(seconds, self._LEAST_S) / self._LEAST_S)
        return np.minimum((decades * self._BINS_A_DECADE).astype(np.int64), self._BINS - 1)

    def _quantile(self, counts: NDArray[np.int64], share: float) -> float:
        if not counts.any():
            return math.nan
        upto = np.cumsum(counts)
        place = int(np.searchsorted(upto, share * (upto[-1] - 1), side="right"))
        return float(self._LEAST_S * 10 ** ((place + 0.5) / self._BINS_A_DECADE)) if place else 0.0
