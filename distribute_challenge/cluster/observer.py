"""What goes into a Dask scheduler to note what its tasks and workers do, until that is fetched.

The scheduler need not have this package: what is here travels by value, and so uses nothing of it. Notes are
tuples of plain values, told apart by the first:

    joined  time, worker's address, its name, its threads
    left    time, worker's address
    known   time, task, client, function           a client has it; no worker has
    begun   time, task, client, function, address  a worker has it
    moved   time, task, address                    another worker has it: it was stolen
    ended   time, task, how it ended: memory, erred, retried, released, lost; when it ran (pair) or None;
            bytes of the result; what `there` says of a call of this package, or None; the exception as text

A time is of the scheduler's clock, Unix seconds; so is when a task ran, as Dask works it out.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from distributed import SchedulerPlugin

from distribute_challenge.client.dask.freight import SAID

NAME = "distribute-challenge-record"
MAX_NOTES = 500_000  # that nobody has fetched: the oldest go


class Observer(SchedulerPlugin):
    """The plugin. It goes with the client that has brought it."""

    def __init__(self, client: str) -> None:
        self.name = f"{NAME}-{client}"
        self._client = client
        self._notes: deque[tuple[Any, ...]] = deque(maxlen=MAX_NOTES)
        self._places: dict[Any, str] = {}  # of tasks that workers have
        self._known: set[Any] = set()  # tasks that no worker has
        self._noted = 0

    async def start(self, scheduler: Any) -> None:
        """Note what is there already."""
        self._scheduler = scheduler
        for address in scheduler.workers:
            self.add_worker(scheduler, address)
        for task in scheduler.tasks.values():
            if task.state in ("waiting", "queued", "no-worker", "processing"):
                self._know(task)
            if task.state == "processing":
                self._begin(task)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker has come."""
        state = scheduler.workers[worker]
        self._note("joined", worker, str(state.name), state.nthreads)

    def remove_worker(self, scheduler: Any, worker: str, **_how: Any) -> None:  # noqa: ARG002
        """A worker has gone; what became of its tasks is known already."""
        self._note("left", worker)

    def remove_client(self, scheduler: Any, client: str) -> None:
        """A client has gone."""
        if client == self._client:
            scheduler.remove_plugin(self.name)

    def transition(self, key: Any, start: str, finish: str, *_args: Any, **how: Any) -> None:
        """A task goes from one state to another."""
        task = self._scheduler.tasks.get(key)
        if key in self._places and finish != "processing":
            self._end(key, finish, how)
        elif key in self._known and finish in ("released", "forgotten", "erred", "memory"):
            self._known.discard(key)
            self._note("ended", self._text(key), "released", None, 0, None, "")
        if task is None or start == finish:
            return
        is_new = key not in self._known and key not in self._places
        if is_new and finish in ("waiting", "queued", "no-worker", "processing"):
            self._know(task)
        if finish == "processing" and key not in self._places:
            self._begin(task)

    def fetch(self) -> dict[str, Any]:
        """All notes since the last time, and what the workers take, as they told last."""
        for key in list(self._places):
            task = self._scheduler.tasks.get(key)
            if task is not None and task.processing_on is not None:  # Workers steal without a transition.
                self._move(key, task.processing_on.address)
        notes = list(self._notes)
        self._notes.clear()
        missed, self._noted = self._noted - len(notes), 0
        usage = {
            address: (it.metrics.get("cpu"), it.metrics.get("memory"), *(it.metrics.get(SAID) or (0.0, 0)))
            for address, it in self._scheduler.workers.items()
        }
        return {"now": time.time(), "notes": notes, "missed": missed, "usage": usage}

    def _note(self, what: str, *rest: Any) -> None:
        self._noted += 1
        self._notes.append((what, time.time(), *rest))

    def _text(self, key: Any) -> str:
        return key if isinstance(key, str) else repr(key)

    def _about(self, task: Any) -> tuple[str, str, str]:
        client = next((client.client_key for client in task.who_wants or ()), "")
        return self._text(task.key), client, str(task.prefix.name)

    def _know(self, task: Any) -> None:
        self._known.add(task.key)
        self._note("known", *self._about(task))

    def _begin(self, task: Any) -> None:
        self._known.discard(task.key)
        self._places[task.key] = address = task.processing_on.address
        self._note("begun", *self._about(task), address)

    def _move(self, key: Any, address: str) -> None:
        if self._places[key] != address:
            self._places[key] = address
            self._note("moved", self._text(key), address)

    def _end(self, key: Any, finish: str, how: dict[str, Any]) -> None:
        if how.get("worker"):
            self._move(key, how["worker"])
        address = self._places.pop(key)
        if address not in self._scheduler.workers:
            finish = "lost"
        elif finish not in ("memory", "erred"):
            finish = "retried" if str(how.get("stimulus_id")).startswith("task-erred") else "released"
        times = [step for step in how.get("startstops") or () if step["action"] == "compute"]
        ran = (times[-1]["start"], times[-1]["stop"]) if times else None
        told = (how.get("metadata") or {}).get(SAID)
        error = how.get("exception_text") or ""
        self._note("ended", self._text(key), finish, ran, how.get("nbytes") or 0, told, error)


# Pickled by value, since there is no such module.
Observer.__module__ = "distribute_challenge_on_dask"
