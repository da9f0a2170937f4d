"""The threads of a Dask cluster's workers, each a worker of the record, and what runs on which.

Pure: it turns the observer's notes into steps, and knows neither Dask nor files nor a clock. The scheduler
knows which Dask worker has a task, and not when a thread there begins it: one that comes while all are busy
begins here when another ends.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from distribute_challenge.record.profile import LEFT, joined
from distribute_challenge.record.tasks import DONE, FAILED, KILLED, LOST

OTHER_CLIENT = "dask"  # of a task that only another task needs
SHORT_S = 0.05  # What nobody wants any more so soon after its turn has not run.
_CLIENT = re.compile(r"Client-(?:(.+)-)?([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Step(NamedTuple):
    """A row of the profile: what happened, on which slot, and whether it is busy now."""

    time: float
    event: str
    slot: int
    busy: int


class Done(NamedTuple):
    """A call that has ended. Times are Unix seconds; `queued` is nan if nobody said."""

    slot: int
    task: str
    function: str
    client: str
    queued: float
    started: float
    ended: float
    seconds: float
    finished: int
    failed: int
    status: str
    sent: int
    returned: int
    error: str


class End(NamedTuple):
    """How a task ended, as the observer notes it after the time and the task."""

    how: str
    ran: tuple[float, float] | None
    size: int
    told: dict[str, Any] | None
    error: str


@dataclass
class Running:
    """A task on a Dask worker."""

    task: str
    function: str
    client: str
    queued: float
    begun: float = math.nan  # nan: no thread is free for it
    slot: int = -1


@dataclass
class DaskWorker:
    """A worker of the cluster, and those of the record that stand for its threads."""

    address: str
    name: str
    slots: list[int]
    tasks: OrderedDict[str, Running] = field(default_factory=OrderedDict)


class Slots:
    """All slots, from the first note on.

    >>> slots = Slots()
    >>> list(slots.take(("joined", 1.0, "tcp://10.0.0.5:4000", "a", 1)))
    [Step(time=1.0, event='joined 10.0.0.5:4000', slot=0, busy=0)]
    >>> _ = list(slots.take(("begun", 2.0, "func-1", "Client-1", "func", "tcp://10.0.0.5:4000")))
    >>> done, step = slots.take(("ended", 5.0, "func-1", "memory", (2.5, 4.5), 28, None, ""))
    >>> done.function, done.status, done.started, done.ended, step.event, slots.finished
    ('func', 'done', 2.5, 4.5, 'free', 1)
    """

    def __init__(self) -> None:
        self.count = 0  # of all slots there have been
        self.finished = self.failed = self.lost = 0
        self.workers: dict[str, DaskWorker] = {}  # by their addresses
        # Slots of workers that have left, and whether they were lost: by their names, or hosts; and threads.
        self._gone: dict[tuple[str, int], list[list[tuple[int, bool]]]] = {}
        self._lost: set[str] = set()  # workers that went with what they ran
        self._places: dict[str, str] = {}  # the addresses of workers that have tasks
        self._stranded: dict[str, Running] = {}  # tasks whose worker has left, and that have not ended
        self._waiting: dict[str, tuple[float, str]] = {}  # since when, and of which client
        self._clients: Counter[str] = Counter()  # with how many that wait

    @property
    def waiting(self) -> int:
        """How many clients have tasks that wait."""
        return len(self._clients)

    @property
    def tasks(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    def running(self) -> Iterator[tuple[int, Running]]:
        """What runs, and on which slot."""
        for worker in self.workers.values():
            for running in worker.tasks.values():
                if running.slot >= 0:
                    yield running.slot, running

    def take(self, note: tuple[Any, ...]) -> Iterator[Step | Done]:
        """Take in a note of the observer's; what there is to write."""
        what, time, *rest = note
        takers: dict[str, Callable[..., Iterator[Any]]] = {}
        takers |= {"joined": self._joined, "left": self._left, "known": self._known}
        takers |= {"begun": self._begun, "moved": self._moved, "ended": self._ended}
        found: Iterator[Step | Done] = takers[what](time, *rest)
        return found

    def _joined(self, time: float, address: str, name: str, threads: int) -> Iterator[Step]:
        place = address.partition("://")[2] or address
        kind = _kind(name), threads
        if self._gone.get(kind):
            earlier = self._gone[kind].pop()
        else:
            earlier = [(number, False) for number in range(self.count, self.count + threads)]
            self.count += threads
        self.workers[address] = DaskWorker(address, name, [slot for slot, _ in earlier])
        for slot, was_lost in earlier:
            yield Step(time, joined(place), slot, 0)
            if was_lost:
                yield Step(time, "replaced", slot, 0)

    def _left(self, time: float, address: str) -> Iterator[Step]:
        worker = self.workers.pop(address, None)
        if worker is None:
            return
        was_lost = address in self._lost
        self._lost.discard(address)
        gone = self._gone.setdefault((_kind(worker.name), len(worker.slots)), [])
        gone.append([(slot, was_lost) for slot in worker.slots])
        self.lost += was_lost * len(worker.slots)
        self._stranded.update(worker.tasks)
        for slot in worker.slots:
            yield Step(time, "lost" if was_lost else LEFT, slot, 0)

    def _known(self, time: float, task: str, client: str, _function: str) -> Iterator[Step]:
        if task not in self._waiting:
            self._waiting[task] = (time, client)
            self._clients[client] += 1
        return iter(())

    def _begun(self, time: float, task: str, client: str, function: str, address: str) -> Iterator[Step]:
        if (worker := self.workers.get(address)) is None:
            return
        self._known(time, task, client, function)
        worker.tasks[task] = Running(task, function, client_name(client), self._waiting[task][0])
        self._places[task] = address
        yield from self._begin_next(worker, time)

    def _moved(self, time: float, task: str, address: str) -> Iterator[Step]:
        before, worker = self.workers.get(self._places.get(task, "")), self.workers.get(address)
        running = self._stranded.pop(task, None) if before is None else before.tasks.pop(task, None)
        if running is None or worker is None:
            return
        self._places[task] = address
        if before is not None and running.slot >= 0:
            yield Step(time, "free", running.slot, 0)
            yield from self._begin_next(before, time)
        running.slot = -1
        worker.tasks[task] = running
        yield from self._begin_next(worker, time)

    def _begin_next(self, worker: DaskWorker, time: float) -> Iterator[Step]:
        """Have tasks begin for which threads are free."""
        taken = {running.slot for running in worker.tasks.values()}
        free = [slot for slot in worker.slots if slot not in taken]
        for slot, running in zip(free, [it for it in worker.tasks.values() if it.slot < 0], strict=False):
            running.slot, running.begun = slot, time
            self._stop_waiting(running.task)
            yield Step(time, "acquire", running.slot, 1)

    def _stop_waiting(self, task: str) -> None:
        since = self._waiting.pop(task, None)
        if since is not None:
            self._clients[since[1]] -= 1
            if not self._clients[since[1]]:
                del self._clients[since[1]]

    def _ended(self, time: float, task: str, *noted: Any) -> Iterator[Step | Done]:
        end = End(*noted)
        worker = self.workers.get(self._places.pop(task, ""))
        running = self._stranded.pop(task, None) if worker is None else worker.tasks.pop(task, None)
        self._stop_waiting(task)
        if running is None:
            return
        slot = running.slot
        has_run = end.how not in ("released", "lost") or end.ran is not None or end.told is not None
        has_run |= end.how == "lost" and slot >= 0  # Else it waited there for a thread.
        if end.how == "lost" and worker is not None:
            self._lost.add(worker.address)
        # Many are cancelled at once, and those that had their turn among them have not run.
        if has_run or (slot >= 0 and time - running.begun >= SHORT_S):
            if slot < 0:
                slot = 0 if worker is None else worker.slots[0]
                others = () if worker is None else [it for it in worker.tasks.values() if it.slot >= 0]
                if others:  # It ran in place of the one that was thought to begin first, whose turn is now.
                    other = min(others, key=lambda it: it.begun)
                    slot, other.begun = other.slot, time
                running.begun = time if end.ran is None else end.ran[0]
            done = _done(replace(running, slot=slot), time, end)
            self.finished += done.finished
            self.failed += done.failed
            yield done
        if running.slot >= 0 and worker is not None:
            yield Step(time, "free", slot, 0)
            if worker.address not in self._lost:
                yield from self._begin_next(worker, time)


def _kind(name: str) -> str:
    """Whose place a worker takes: that of one with its name, or, without one, of any of its host.

    >>> _kind("gpu-1"), _kind("tcp://10.0.0.5:4000")
    ('gpu-1', 'tcp://10.0.0.5')
    """
    return name.rpartition(":")[0] if "://" in name else name


def client_name(client: str) -> str:
    """A Dask client as the record names it: as it was called, or with the first part of its number.

    >>> client_name("Client-challenge.py:7@here-e32f485a-ea32-11f1-b873-02fc00000001")
    'challenge.py:7@here'
    >>> client_name("Client-e32f485a-ea32-11f1-b873-02fc00000001"), client_name("")
    ('Client-e32f485a', 'dask')
    """
    found = _CLIENT.fullmatch(client)
    if found is None:
        return client or OTHER_CLIENT
    return found[1] or f"Client-{found[2]}"


def _done(running: Running, time: float, end: End) -> Done:
    started, ended = end.ran or (min(running.begun, time), time)
    status, error = {
        "memory": (DONE, ""),
        "erred": (FAILED, end.error.partition("\n")[0]),
        "retried": (FAILED, "it raised, and Dask runs it again"),
        "released": (KILLED, "CancelledError: its client wants it no more"),
        "lost": (LOST, "WorkerLost: the Dask worker has gone"),
        "over": (LOST, "ServerUnavailable: the Dask scheduler has gone"),
    }[end.how]
    done = Done(
        slot=running.slot,
        task=running.task,
        function=running.function,
        client=running.client,
        queued=min(running.queued, started),
        started=started,
        ended=max(started, ended),  # The clock of a Dask worker may have been put back.
        seconds=max(ended - started, 0.0),
        finished=int(status == DONE),
        failed=int(status != DONE),
        status=status,
        sent=0,
        returned=end.size,
        error=error,
    )
    # Of a call of this package, the pool beside the Dask worker knows better.
    known = {name: value for name, value in (end.told or {}).items() if value is not None}
    queued = known.get("queued", math.nan)
    return done._replace(**{**known, "queued": done.queued if math.isnan(queued) else min(queued, started)})
