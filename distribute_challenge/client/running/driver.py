"""The one thread that runs the tasks of an executor.

It is started by the first task, and ends when there has been none for a moment; as it is no daemon, a
program ends only when its tasks have. What is posted to it from other threads happens in that thread.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.running.lanes import Lanes
from distribute_challenge.client.tasks.callbacks import LINGER_S, Threaded, here, nothing
from distribute_challenge.client.tasks.engine import AT_EXIT
from distribute_challenge.client.tasks.task import Latch, Task
from distribute_challenge.errors import PoolError

log = logging.getLogger(__name__)

GATHER_S = 0.001


class Driver(Threaded):
    """Runs tasks on the workers of a pool.

    `prepare` makes the task that has to run first on each worker, if there is one.
    """

    def __init__(self, connections: Connections, prepare: Callable[[], Task] | None = None) -> None:
        super().__init__(threading.Lock())  # guards `_inbox`, too
        self._claim = threading.Lock()  # guards `_is_running` as it becomes true
        self._inbox: deque[Task | Callable[[], None]] = deque()
        self._bell: tuple[int, int] | None = None
        self._is_rung = False
        self._is_running = False
        self._problem: RuntimeError | None = None  # why no thread can be started
        self._is_closing = False
        self._lanes = Lanes(connections, self._post, prepare)  # only for the thread, but for their limits

    # From any thread

    def add(self, task: Task, max_lanes: int, max_tasks: int | None) -> None:
        """Have a task run.

        From now on at most `max_lanes` workers are used at once, each for about `max_tasks` functions.
        """
        task.driver, task.future.task = self, task
        self._lanes.max_lanes, self._lanes.max_tasks = max_lanes, max_tasks
        self._post(task)

    @property
    def broken(self) -> Exception | None:
        """Why no task can be run any more; None if they can."""
        return self._lanes.broken

    def kill_all(self) -> None:
        """Stop all tasks: those that wait never run."""
        self._post(self._lanes.kill_all)

    def kill(self, task: Task) -> None:
        """Stop a task that runs, as soon as no other one would be stopped with it."""
        task.is_unwanted = True
        self._post(nothing)

    def close(self, *, cancel: bool) -> None:
        """Let the thread end once all tasks have; with `cancel`, those that wait never run."""
        self._is_closing = True
        with self._lock:
            is_idle = not (self._is_running or self._inbox)
        if not is_idle:
            self._post(self._lanes.cancel_waiting if cancel else nothing)

    def _post(self, action: Task | Callable[[], None]) -> None:
        """Have the thread run a task, or do something else, starting it if there is none.

        Ctrl-C may arrive between any two steps, also when a thread is just being started.
        """
        with self._lock:
            self._inbox.append(action)
            if self._is_running:
                if not self._is_rung and self._bell is not None:
                    with contextlib.suppress(BlockingIOError):
                        os.write(self._bell[1], b"!")
                    self._is_rung = True
                return
            try:
                self._bell = self._bell or _pipe()
                self._problem = None
                begun = Latch()
                _thread.start_new_thread(self._start, (begun,))
                begun.wait()
                if self._problem is not None:
                    raise self._problem
            except BaseException as error:
                self._inbox.pop()
                if isinstance(error, RuntimeError) and not threading.main_thread().is_alive():
                    raise RuntimeError(AT_EXIT) from None
                raise

    # The thread

    def _start(self, begun: Latch) -> None:
        """Start the thread. Not by who posts: `Thread.start` cannot be left in the middle, by Ctrl-C."""
        try:
            if not threading.main_thread().is_alive():
                raise RuntimeError(AT_EXIT)  # Nobody would wait for what is posted now.
            threading.Thread(target=self._run, args=(begun,), name="pool", daemon=False).start()
        except RuntimeError as error:  # There may be too many threads, too.
            self._problem = error
            begun.set()

    def _run(self, begun: Latch) -> None:
        with self._claim:
            is_wanted = not self._is_running and self._bell is not None
            if is_wanted:
                self._is_running, self._thread = True, threading.current_thread()
        begun.set()
        if not is_wanted:  # Ctrl-C came when this one was being started, and there has been another one.
            return
        here.callbacks, here.output = self._callbacks, self._output
        try:
            self._run_tasks()
        except BaseException as error:
            # Whatever that is, nobody may wait for ever.
            log.exception("the thread of an executor failed")
            self._lanes.fail_all(PoolError(f"the thread of this executor failed: {error!r}"))
            while not self._end():
                self._do_what_was_posted()  # Tasks fail at once now.

    def _run_tasks(self) -> None:
        assert self._bell is not None
        bell = self._bell[0]
        idle_since: float | None = None
        arrived: set[int] = set()
        while True:
            self._do_what_was_posted()
            if self._lanes.step(arrived):
                arrived = set()
                continue
            if not self._lanes.is_idle:
                idle_since = None
                arrived = self._watch(bell, self._lanes.tick_s)
                continue
            now = time.monotonic()
            if idle_since is None:
                idle_since = now
            left_s = 0.0 if self._is_closing else idle_since + LINGER_S - now
            if left_s > 0:
                arrived = self._watch(bell, left_s)
            elif self._end():
                return

    def _end(self) -> bool:
        """End the thread; False if there is something to do after all."""
        with self._lock:
            if self._inbox:
                return False
            for end in self._bell or ():
                os.close(end)
            self._bell = self._thread = None
            self._is_running = False
        return True

    def _do_what_was_posted(self) -> None:
        with self._lock:
            self._is_rung = False
        while self._inbox:
            action = self._inbox.popleft()
            if isinstance(action, Task):
                self._lanes.add(action)
            else:
                action()

    def _watch(self, bell: int, timeout_s: float) -> set[int]:
        """Wait until something arrives, or is due. The descriptors that have something to read or write."""
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        if self._lanes.have_plenty:
            # To be woken by each outcome takes longer than all else about it: let some gather.
            poller.poll(GATHER_S * 1000)
        for descriptor, is_writing in self._lanes.links():
            poller.register(descriptor, select.POLLIN | (select.POLLOUT if is_writing else 0))
        with self._lock:
            if self._inbox:
                timeout_s = 0
        timeout_ms = None if timeout_s == math.inf else max(timeout_s * 1000, 0)
        arrived = {descriptor for descriptor, _ in poller.poll(timeout_ms)}
        if bell in arrived:
            os.read(bell, 4096)
        return arrived


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
