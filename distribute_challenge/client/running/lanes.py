"""The lanes of an executor, and the tasks that wait for them.

Only the driver's thread touches them, but for their limits.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from distribute_challenge import errors
from distribute_challenge.client.peers.connections import MAX_IDLE, RETRY_S, Connections
from distribute_challenge.client.peers.opening import Opened, Opener
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.running.lane import Lane
from distribute_challenge.client.running.state import State
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.errors import PoolError, ServerUnavailable

log = logging.getLogger(__name__)

PLENTY = 128  # For as many a worker takes longer than outcomes gather.
MAX_FAILED_LANES = 10  # in a row, without a task getting done
PAUSE_S = 1.0  # before another worker is asked for, if one could not be had while others work


class Lanes:
    """Has tasks run: `step` does all that can be done without waiting.

    `prepare` makes the task that has to run first on each worker, if there is one; what is given to `post` is
    called in the thread that calls `step`.
    """

    def __init__(
        self,
        connections: Connections,
        post: Callable[[Callable[[], None]], None],
        prepare: Callable[[], Task] | None,
    ) -> None:
        self.max_lanes = 1
        self.max_tasks: int | None = None  # how many functions each lane runs
        self._connections = connections
        self._opener = Opener(connections, post)
        self._prepare = prepare
        self._waiting: deque[Task] = deque()
        self._lanes: list[Lane] = []
        self._id = os.urandom(8)
        self._opening = 0  # server connections being made
        self._failed_lanes = 0
        self._paused_until = self._none_free_until = 0.0
        self._gone_since: float | None = None  # when the server was found to have gone
        self.broken: Exception | None = None  # why nothing can be run any more; any thread may ask

    def add(self, task: Task) -> None:
        """Have a task run."""
        if self.broken is None:
            self._waiting.append(task)
        else:
            task.fail(self.broken)

    def step(self, arrived: set[int]) -> bool:
        """Take in what has arrived on the descriptors in `arrived`; send and open what can be.

        Whether there may be more to do at once.
        """
        now = time.monotonic()
        for lane in self._lanes:
            lane.serve(arrived, now)
            if lane.state is State.CONNECTING and not lane.is_connecting:
                self._gone_since = None
                lane.is_connecting = True
                self._opener.open_worker(lane.port, lane.got_worker)
        self._fill()
        self._open()
        return self._settle()

    @property
    def is_idle(self) -> bool:
        """Whether no task waits or runs, and nothing else is under way."""
        return not (self._waiting or self._lanes or self._opening)

    def links(self) -> list[tuple[int, bool]]:
        """The descriptors to be watched, and whether each is also waited for to be writable."""
        return [link for lane in self._lanes for link in lane.links()]

    @property
    def tick_s(self) -> float:
        """In how many seconds there is something to do, whatever arrives."""
        now = time.monotonic()
        latest_s = math.inf if self._gone_since is None else RETRY_S
        return min((latest_s, *(lane.tick_s(now) for lane in self._lanes)))

    @property
    def have_plenty(self) -> bool:
        """Whether no worker will have done all that was sent to it in the next moment."""
        loads = [lane.load for lane in self._lanes if lane.state is State.WORKING]
        return bool(loads) and min(loads) >= PLENTY

    def cancel_waiting(self) -> None:
        """Have the tasks that wait never run."""
        while self._waiting:
            self._waiting.popleft().drop()

    def kill_all(self) -> None:
        """Stop the tasks that run, too."""
        self.cancel_waiting()
        for lane in self._lanes:
            for task in lane.tasks():
                task.is_unwanted = True

    def fail_all(self, error: Exception) -> None:
        """Fail all tasks, also those that are added from now on."""
        self.broken = error
        for lane in self._lanes:
            self._waiting += [*lane.close(), *lane.returned]
        self._lanes.clear()
        self._give_up(error)

    def _open(self) -> None:
        """Get in line for one more worker if there is work for it: one place at a time, as others do.

        Far away, that would take a round trip or more for each: there all that may be free are asked for at
        once, without getting in line.
        """
        if not self._waiting:
            self._gone_since = None
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft().begin(time.monotonic())
        now = time.monotonic()
        is_paused = (self._lanes or self._gone_since is not None) and now < self._paused_until
        if is_paused or not self._waiting:
            return
        is_far = self._connections.distance.round_trip_s > 0
        coming = [lane for lane in self._lanes if lane.state in (State.WAITING, State.CONNECTING)]
        under_way = len(coming) + self._opening
        missing = min(len(self._waiting) - under_way, self.max_lanes - len(self._lanes) - self._opening)
        if missing > 0 and not self._opening and not any(lane.is_in_line or not is_far for lane in coming):
            self._ask(ServerConnection.hear, waits=True)
            missing -= 1
        if not is_far:
            return
        self._opener.reach_ahead(min(len(self._waiting), self.max_lanes), {lane.port for lane in self._lanes})
        if now >= self._none_free_until:
            asking = self._opening + sum(lane.state is State.WAITING for lane in coming)
            for _ in range(min(missing, MAX_IDLE - asking)):
                self._ask(ServerConnection.find, waits=False)

    def _ask(self, first: Callable[[ServerConnection], int | None], *, waits: bool) -> None:
        """Ask for a worker, on a connection that there is, or on a new one with `first`."""
        if (server := self._connections.take_idle_server()) is not None:
            self._append(server, is_new=False, waits=waits)
        else:
            self._opening += 1
            self._opener.open_server(first, self._got_server)

    def _append(self, server: ServerConnection, **how: Any) -> None:
        """One more lane."""
        self._lanes.append(
            Lane(self._connections, server, self._waiting_tasks, max_tasks=self.max_tasks, **how)
        )

    def _waiting_tasks(self) -> tuple[int, bytes]:
        """How many tasks wait here, and who has them."""
        return len(self._waiting), self._id

    def _got_server(self, opened: Opened[int | None] | BaseException) -> None:
        self._opening -= 1
        if isinstance(opened, BaseException):
            self._give_up_unless_others_work(opened)
            return
        server, port = opened
        if port == -1:
            self._connections.put_server(server)
            self._none_free_until = time.monotonic() + PAUSE_S
        else:
            self._append(server, is_new=True, port=port)

    def _fill(self) -> None:
        """Send tasks, one to each lane in turn, as long as some lane can take one."""
        if not self._waiting:
            return
        # As long as another worker has not been asked for, nothing is sent ahead of its turn.
        working = [lane for lane in self._lanes if lane.state is State.WORKING]
        now = time.monotonic()
        may_send_ahead = len(working) >= self.max_lanes or any(lane.is_in_line for lane in self._lanes)
        able = working
        while able and self._waiting:
            able.sort(key=lambda lane: lane.load)
            still_able = []
            for lane in able:
                if not self._waiting:
                    break
                if (may_send_ahead or not lane.load) and lane.can_take(self._waiting[0], now):
                    self._send(lane, now)
                    still_able.append(lane)
            able = still_able
        for lane in working:
            lane.flush(now)

    def _send(self, lane: Lane, now: float) -> None:
        """Send the first task that waits, or what has to run on that worker before it."""
        task = self._waiting[0]
        if self._prepare is not None and task.parcel.program not in lane.worker.prepared:
            lane.worker.prepared.add(task.parcel.program)
            try:
                first = self._prepare()
                first.begin(now)
                lane.take(first)
            except Exception as error:  # It may be larger than what workers take, say.
                self._check_prepared(error)
            else:
                Future.add_done_callback(first.future, lambda ended: self._check_prepared(ended.exception()))
            return
        self._waiting.popleft()
        if not task.begin(now):
            return
        try:
            if task.is_unwanted:  # It was sent ahead to a worker that was lost, and is not to run any more.
                raise CancelledError
            lane.take(task)
        except Exception as error:  # Or there is no memory for it, say.
            task.fail(error)

    def _check_prepared(self, error: BaseException | None) -> None:
        """If the initializer has failed, this executor can run nothing."""
        if error is not None and not isinstance(error, ServerUnavailable):  # That says nothing of it.
            self.broken = errors.InitializerFailed(f"the executor's initializer failed: {error!r}")
            self.broken.__cause__ = error
            self._give_up(self.broken)

    def _settle(self) -> bool:
        """See to lanes that have nothing more to do, or could not do it; whether that changed anything."""
        now = time.monotonic()
        has_changed = False
        for lane in list(self._lanes):
            if lane.returned:
                self._waiting.extendleft(reversed(lane.returned))
                lane.returned = []
                has_changed = True
            if lane.state is State.WORKING and not lane.load and (lane.has_to_yield or not self._waiting):
                lane.free()
            elif not self._waiting:
                lane.leave_line(now)
            if lane.state is State.CLOSED:
                self._lanes.remove(lane)
                self._look_at_end(lane)
                has_changed = True
        return has_changed

    def _look_at_end(self, lane: Lane) -> None:
        """A lane is over: perhaps that says something for all that waits."""
        self._failed_lanes = 0 if lane.has_done_something else self._failed_lanes + lane.has_failed
        if lane.found_none:
            self._none_free_until = time.monotonic() + PAUSE_S
        if lane.error is not None:
            self._give_up_unless_others_work(lane.error)
        elif self._failed_lanes >= MAX_FAILED_LANES:
            self._give_up(
                PoolError(f"{MAX_FAILED_LANES} workers one after another failed: see the server's log")
            )

    def _give_up_unless_others_work(self, error: BaseException) -> None:
        """One more worker cannot be had: that ends all that waits, unless other workers do it."""
        now = time.monotonic()
        if self._lanes or self._opening:
            log.info("no further worker for now: %s", error)
            self._paused_until = now + PAUSE_S
        elif isinstance(error, ServerUnavailable):
            self._gone_since = self._gone_since or now
            self._give_up(error, patience_s=now - self._gone_since)
            self._paused_until = now + RETRY_S
        else:
            self._give_up(error)

    def _give_up(self, error: BaseException, *, patience_s: float = math.inf) -> None:
        """Nothing can be run: all that waits fails, but for what has more patience than that."""
        waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            if task.patience_s > patience_s:
                self._waiting.append(task)
            else:
                task.fail(error)
        self._failed_lanes = 0
