"""The one thread that runs the tasks of an executor: those that wait, and the lanes on which they run.

It is started by the first task, and ends when there has been none for a moment; as it is no daemon, a
program ends only when its tasks have. What is posted to it from other threads happens in that thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any

from distribute_challenge.client.connections import Connections
from distribute_challenge.client.lane import TICK_S, Lane, State
from distribute_challenge.client.losses import why_no_worker
from distribute_challenge.client.peers import ServerConnection
from distribute_challenge.client.tasks import Task
from distribute_challenge.errors import PoolError

log = logging.getLogger(__name__)

LINGER_S = 0.05  # How long the thread waits for another task before it ends.
MAX_FAILED_LANES = 10  # in a row, without a task getting done


class Driver:
    """Runs tasks on the workers of a pool.

    `prepare` makes the task that has to run first on each worker, if there is one.
    """

    def __init__(self, connections: Connections, prepare: Callable[[], Task] | None = None) -> None:
        self._connections = connections
        self._max_lanes = 1
        self._max_tasks: int | None = None
        self._prepare = prepare
        self._lock = threading.Lock()  # guards the thread's coming and going, and `_inbox`
        self._thread: threading.Thread | None = None
        self._inbox: deque[Task | Callable[[], None]] = deque()
        self._bell: tuple[int, int] | None = None
        self._is_rung = False
        self._is_closing = False
        self._at_end: Callable[[], None] = _nothing
        # Only for the thread:
        self._waiting: deque[Task] = deque()
        self._lanes: list[Lane] = []
        self._opening = 0  # server connections being made
        self._failed_lanes = 0
        self._broken: Exception | None = None

    # From any thread

    def add(self, task: Task, max_lanes: int, max_tasks: int | None) -> None:
        """Have a task run.

        From now on at most `max_lanes` workers are used at once, each for about `max_tasks` functions.
        """
        self._max_lanes, self._max_tasks = max_lanes, max_tasks
        self._post(task)

    def kill_all(self) -> None:
        """Stop all tasks: those that wait never run."""

        def mark() -> None:
            self._cancel_waiting()
            for lane in self._lanes:
                for sent in lane.sent:
                    sent.task.is_unwanted = True

        self._post(mark)

    def kill(self, task: Task) -> None:
        """Stop a task that runs, as soon as no other one would be stopped with it."""

        def mark() -> None:
            task.is_unwanted = True

        self._post(mark)

    def close(self, *, cancel: bool) -> None:
        """Let the thread end once all tasks have; with `cancel`, those that wait never run."""
        self._is_closing = True
        with self._lock:
            is_idle = self._thread is None
        if not is_idle:
            self._post(self._cancel_waiting if cancel else _nothing)

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` when all tasks have ended: at once if there are none."""
        with self._lock:
            is_idle = self._thread is None
            if not is_idle:
                self._at_end = action
        if is_idle:
            action()

    def join(self) -> None:
        """Wait until all tasks have ended, and the thread has."""
        while True:
            with self._lock:
                thread = self._thread
            if thread is None or thread is threading.current_thread():
                return
            thread.join()

    def _post(self, action: Task | Callable[[], None]) -> None:
        """Have the thread run a task, or do something else, starting it if there is none."""
        with self._lock:
            self._inbox.append(action)
            if self._thread is None:
                self._bell = os.pipe()
                for end in self._bell:
                    os.set_blocking(end, False)
                self._is_rung = False
                thread = threading.Thread(target=self._run, name="pool", daemon=False)
                try:
                    thread.start()
                except BaseException:  # The program is ending, or there are too many threads.
                    self._inbox.pop()
                    self._close_bell()
                    raise
                self._thread = thread
            elif not self._is_rung and self._bell is not None:
                self._is_rung = True
                with contextlib.suppress(BlockingIOError):
                    os.write(self._bell[1], b"!")

    def _close_bell(self) -> None:
        bell, self._bell = self._bell, None
        for end in bell or ():
            os.close(end)

    # The thread

    def _run(self) -> None:
        try:
            self._run_tasks()
        except BaseException as error:
            # Whatever that is, nobody may wait for ever.
            log.exception("the thread of an executor failed")
            self._fail_all(PoolError(f"the thread of this executor failed: {error!r}"))

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            self._broken = error
            self._thread = None
            self._close_bell()
        self._do_what_was_posted()
        for lane in self._lanes:
            lane.server.close()
            if lane.worker is not None:
                lane.worker.close()
            for task in lane.returned:
                task.fail(error)
            lane.fail_all(error)
        self._lanes.clear()
        self._give_up(error)

    def _run_tasks(self) -> None:
        assert self._bell is not None
        bell = self._bell[0]
        idle_since: float | None = None
        arrived: set[int] = set()
        while True:
            self._do_what_was_posted()
            self._serve_lanes(arrived)
            arrived = set()
            self._fill_lanes()
            self._open_lanes()
            if self._settle_lanes():
                continue
            if self._waiting or self._lanes or self._opening:
                idle_since = None
                arrived = self._watch(bell, None)
                continue
            now = time.monotonic()
            if idle_since is None:
                idle_since = now
            left_s = 0.0 if self._is_closing else idle_since + LINGER_S - now
            if left_s > 0:
                self._watch(bell, left_s)
            elif self._end():
                return

    def _end(self) -> bool:
        """End the thread; False if there is something to do after all."""
        with self._lock:
            if self._inbox:
                return False
            self._close_bell()
            self._thread = None
            action, self._at_end = self._at_end, _nothing
        action()
        return True

    def _do_what_was_posted(self) -> None:
        with self._lock:
            self._is_rung = False
        while self._inbox:
            action = self._inbox.popleft()
            if not isinstance(action, Task):
                action()
            elif self._broken is None:
                self._waiting.append(action)
            else:
                action.fail(self._broken)

    def _watch(self, bell: int, timeout_s: float | None) -> set[int]:
        """Wait until something arrives, or is due. The descriptors that have something to read or write."""
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        for lane in self._lanes:
            for descriptor, is_writing in lane.links():
                poller.register(descriptor, select.POLLIN | (select.POLLOUT if is_writing else 0))
            if lane.wants_ticks:
                timeout_s = TICK_S
        with self._lock:
            if self._inbox:
                timeout_s = 0
        arrived = {
            descriptor for descriptor, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)
        }
        if bell in arrived:
            os.read(bell, 4096)
        return arrived

    def _open_lanes(self) -> None:
        """Get in line for one more worker if there is work for it: one place at a time, as others do."""
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft().future.set_running_or_notify_cancel()
        if self._opening or not self._waiting or len(self._lanes) >= self._max_lanes:
            return
        if any(lane.state in (State.WAITING, State.CONNECTING) for lane in self._lanes):
            return
        server = self._connections.take_idle_server()
        if server is not None:
            self._lanes.append(self._new_lane(server, is_new=False))
            return
        self._opening += 1
        _start(self._connect_to_server)

    def _new_lane(self, server: ServerConnection, *, is_new: bool) -> Lane:
        return Lane(self._connections, server, is_new=is_new, max_tasks=self._max_tasks)

    def _connect_to_server(self) -> None:
        try:
            server = self._connections.new_server()
        except BaseException as error:
            self._post(lambda error=error: self._fail_waiting(error))  # type: ignore[misc]
            return

        def opened() -> None:
            self._opening -= 1
            self._lanes.append(self._new_lane(server, is_new=True))

        self._post(opened)

    def _fail_waiting(self, error: BaseException) -> None:
        self._opening -= 1
        self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """Nothing can be run: all that waits fails."""
        while self._waiting:
            self._waiting.popleft().fail(error)
        self._failed_lanes = 0

    def _cancel_waiting(self) -> None:
        while self._waiting:
            task = self._waiting.popleft()
            if task.future.cancel():
                task.future.set_running_or_notify_cancel()
            else:  # It has run before, on a worker that was lost.
                task.fail(CancelledError())

    def _serve_lanes(self, arrived: set[int]) -> None:
        now = time.monotonic()
        for lane in self._lanes:
            lane.serve(arrived, now)
            lane.tick(now)
            if lane.state is State.CONNECTING and not lane.is_connecting:
                self._connect_to_worker(lane)

    def _settle_lanes(self) -> bool:
        """See to lanes that have nothing more to do, or could not do it; whether that changed anything."""
        now = time.monotonic()
        has_changed = False
        for lane in list(self._lanes):
            if lane.returned:
                self._waiting.extendleft(reversed(lane.returned))
                lane.returned = []
                has_changed = True
            if lane.state is State.WORKING and not lane.sent and (lane.has_to_yield or not self._waiting):
                lane.free()
            elif not self._waiting and lane.has_waited(now):
                lane.leave()
            if lane.state is State.CLOSED:
                self._lanes.remove(lane)
                self._look_at_end(lane)
                has_changed = True
        return has_changed

    def _look_at_end(self, lane: Lane) -> None:
        """A lane is over: perhaps that says something for all that waits."""
        self._failed_lanes = 0 if lane.has_done_something else self._failed_lanes + lane.has_failed
        if lane.error is not None:
            self._give_up(lane.error)
        elif self._failed_lanes >= MAX_FAILED_LANES:
            self._give_up(
                PoolError(f"{MAX_FAILED_LANES} workers one after another failed: see the server's log")
            )

    def _connect_to_worker(self, lane: Lane) -> None:
        worker = self._connections.take_idle_worker(lane.port)
        if worker is not None:
            lane.got_worker(worker)
            return
        lane.is_connecting = True
        address = self._connections.worker_address(lane.port)

        def connect() -> None:
            try:
                worker = self._connections.new_worker(lane.port)
            except (EOFError, OSError) as error:
                problem = why_no_worker(error, address)
                self._post(lambda: lane.got_no_worker(problem))
            except BaseException as error:
                self._post(lambda error=error: lane.got_no_worker(error))  # type: ignore[misc]
            else:
                self._post(lambda: lane.got_worker(worker))

        _start(connect)

    def _fill_lanes(self) -> None:
        """Send tasks, one to each lane in turn, as long as some lane can take one."""
        if not self._waiting:
            return
        # As long as another worker may be had at once, nothing is sent ahead of its turn.
        working = [lane for lane in self._lanes if lane.state is State.WORKING]
        now = time.monotonic()
        may_send_ahead = len(working) >= self._max_lanes or any(lane.is_in_line(now) for lane in self._lanes)
        able = working
        while able and self._waiting:
            able.sort(key=lambda lane: len(lane.sent))
            still_able = []
            for lane in able:
                if not self._waiting:
                    break
                if (may_send_ahead or not lane.sent) and lane.can_take(self._waiting[0], now):
                    self._send(lane, now)
                    still_able.append(lane)
            able = still_able
        for lane in working:
            lane.flush(now)

    def _send(self, lane: Lane, now: float) -> None:
        """Send the first task that waits, or what has to run on that worker before it."""
        task = self._waiting[0]
        scope = task.parcel.scope
        if self._prepare is not None and lane.worker is not None and scope not in lane.worker.prepared:
            lane.worker.prepared.add(scope)
            try:
                first = self._prepare()
            except PoolError as error:
                self._break(error)
                return
            first.begin(now)
            first.future.add_done_callback(self._check_prepared)
            lane.take(first)
            return
        self._waiting.popleft()
        if task.begin(now):
            lane.take(task)

    def _check_prepared(self, future: Any) -> None:
        error = future.exception()
        if error is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """The initializer has failed: this executor can run nothing."""
        self._broken = BrokenExecutor(f"the executor's initializer failed: {error!r}")
        self._broken.__cause__ = error
        self._give_up(self._broken)


def _nothing() -> None:
    """Wakes the thread: it looks what there is to do."""


def _start(connect: Callable[[], None]) -> None:
    """Run `connect` in a thread; here, if the program is ending and starts no threads any more."""
    try:
        threading.Thread(target=connect, name="connect", daemon=True).start()
    except RuntimeError:
        connect()
