"""How a map cuts its items into chunks."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import CancelledError
from typing import Any, cast

import pytest

from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.parcel import ANYWHERE, Parcel, Written
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Facts
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.tasks import chunks, mapping
from distribute_challenge.client.tasks.mapping import Mapping
from distribute_challenge.client.tasks.task import Task


class Executor:
    """Runs each task at once. How long its functions take is what `seconds` says of each item's number."""

    chunk_s, distance = chunks.CHUNK_S, Distance()

    def __init__(self, seconds: Any, workers: int = 1) -> None:
        self.seconds, self.workers = seconds, workers
        self.sizes: list[int] = []

    def facts(self, _: Options) -> Facts:
        return Facts("3.10", self.workers, None)

    def parcel_chunk(
        self, shipment: Shipment, function: Written, columns: list[list[Any]], _: Options
    ) -> Parcel:
        return shipment.chunk(function, columns, ANYWHERE, 0)

    def add(self, task: Task, **_: Any) -> None:
        first = sum(self.sizes)
        self.sizes.append(task.count)
        task.begin(0.0)
        for number in range(first, first + task.count):
            task.pace.note(self.seconds(number))
        task.future.set_result(([None] * task.count, {}))


def sizes(seconds: Any, count: int, options: Options | None = None, **how: Any) -> list[int]:
    """The sizes of the chunks into which so many items are cut."""
    executor = Executor(seconds)
    made = Mapping(
        cast(Any, executor),
        Shipment(len),
        (iter(range(count)),),
        options or Options(),
        MapOptions(**how),
    )
    assert len(list(made)) == count
    assert sum(executor.sizes) == count
    return executor.sizes


def test_chunks_grow_little_by_little_since_the_first_items_may_have_been_quick():
    cut = sizes(lambda _: 1e-7, 20_000)
    assert cut[0] == 1
    assert cut[:5] == [1, 8, 64, 512, 2000]


def test_a_chunk_is_as_much_as_takes_15_ms():
    cut = sizes(lambda _: 0.001, 500)
    assert max(cut) == int(chunks.CHUNK_S / 0.001)


def test_a_function_that_becomes_slow_is_sent_in_small_chunks_from_then_on():
    cut = sizes(lambda number: 1e-6 if number < 73 else 0.1, 300)
    assert cut[:3] == [1, 8, 64]
    assert cut[4:-1] == [1] * len(cut[4:-1])


def test_the_last_chunks_are_small_so_that_all_workers_end_together():
    pace = Pace()
    pace.note(1e-6)
    total, workers = 10_000, 4
    cut = chunks.ChunkSizes(None, 2000, pace, workers, total)
    cut.note(2000, 1)
    for taken in (0, 6000, 9000, 9900, 9999):
        assert cut.next(taken) == max(min((total - taken) // (2 * workers), 2000), 1)


def test_no_chunk_is_larger_than_workers_take():
    pace = Pace()
    pace.note(1e-6)
    cut = chunks.ChunkSizes(None, 2000, pace, 1, None, max_frame=1 << 20)
    cut.note(100, 100 * 30_000)
    assert 1 < cut.next(0) * 30_000 < 1 << 19


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_chunk_size_that_is_given_holds(size: int):
    cut = sizes(lambda _: 1.0, 100, chunksize=size)
    assert cut[:-1] == [size] * (len(cut) - 1)


def test_items_with_a_time_limit_travel_alone_unless_a_size_is_given():
    """Each has that time for itself, and one that takes too long takes no other with it."""
    assert sizes(lambda _: 1e-6, 20, Options(timeout_s=1)) == [1] * 20
    assert sizes(lambda _: 1e-6, 20, Options(timeout_s=1), chunksize=5)[0] == 5


class InTheLastMoment(Executor):
    """Its tasks end, all at once, between the look whether more are to be started and the end of starting."""

    def __init__(self) -> None:
        super().__init__(None)
        self.tasks: list[Task] = []
        executor = self

        class Workers(int):
            def __mul__(self, factor: float) -> float:  # As in the look at how many may be under way.
                if len(executor.tasks) == factor * int(self) + 2:  # As many as are to be under way.
                    thread = threading.Thread(target=executor.end_all)
                    thread.start()
                    thread.join()
                return int(self) * factor

        self.workers = Workers(1)

    def add(self, task: Task, **_: Any) -> None:
        task.begin(0.0)
        self.sizes.append(task.count)
        self.tasks.append(task)

    def end_all(self) -> None:
        ending, self.tasks = self.tasks, []
        for task in ending:
            task.future.set_result(([None] * task.count, {}))


def test_chunks_that_end_while_others_are_just_being_started_are_followed_by_more():
    """Nobody takes results, so nothing else would start any."""
    executor = InTheLastMoment()
    made = Mapping(
        cast(Any, executor),
        Shipment(len),
        (range(100),),
        Options(),
        MapOptions(chunksize=1),
    )
    executor.end_all()
    assert sum(executor.sizes) == 100
    made.wait_until_started()
    assert list(made) == [None] * 100


class Grows(Executor):
    """A cluster that has one worker more each time that it is looked at."""

    def facts(self, options: Options) -> Facts:
        self.workers += 1
        return super().facts(options)

    def add(self, task: Task, **_: Any) -> None:
        self.sizes.append(task.count)


def test_a_map_makes_use_of_workers_that_come(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mapping, "LOOK_S", 0.0)
    cluster = Grows(lambda _: 0.0)
    made = Mapping(cast(Any, cluster), Shipment(len), (range(2000),), Options(), MapOptions(chunksize=1))
    assert len(cluster.sizes) > 100  # Each chunk is a look.
    made.cancel()


class CancelledMeanwhile(Executor):
    """Its map is cancelled while a chunk is made."""

    def parcel_chunk(self, *args: Any) -> Parcel:
        if self.sizes:
            self.made.cancel()
        return super().parcel_chunk(*args)

    def add(self, task: Task, **_: Any) -> None:
        self.sizes.append(task.count)
        self.last = task


def test_a_chunk_that_is_made_while_its_map_is_cancelled_never_runs():
    executor = CancelledMeanwhile(lambda _: 0.0)
    made = Mapping.__new__(Mapping)
    executor.made = made
    with contextlib.suppress(CancelledError):
        made.__init__(cast(Any, executor), Shipment(len), (range(10),), Options(), MapOptions())  # type: ignore[misc]
    assert len(executor.sizes) == 2
    assert executor.last.future.cancelled()


def test_the_items_are_those_of_the_call_whatever_becomes_of_their_list():
    items, executor = list(range(100)), Executor(lambda _: 1.0)
    made = iter(Mapping(cast(Any, executor), Shipment(len), (items,), Options(), MapOptions()))
    next(made)
    items.clear()
    assert len(list(made)) == 99
