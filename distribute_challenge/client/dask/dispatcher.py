"""The one thread of an executor on a cluster: tasks that wait here, those that are with Dask, their ends.

Dask knows only as many tasks as its workers have threads, and of short ones some more: a scheduler that holds
a million is slow, and what waits here can be cancelled. What has waited here for a second goes to Dask as
well, up to a limit, so that a cluster that grows when it is asked for more is asked.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from distribute_challenge import errors
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.client.dask.freight import ERROR, OUTCOME, call_there
from distribute_challenge.client.peers.printing import show
from distribute_challenge.client.tasks.callbacks import LINGER_S, Threaded, here, nothing
from distribute_challenge.client.tasks.engine import AT_EXIT
from distribute_challenge.client.tasks.task import MOST_SHOWN_S, SHOWN_S, Task
from distribute_challenge.errors import PoolError, ServerUnavailable, WorkerLost

if TYPE_CHECKING:
    from distribute_challenge.client.dask.connection import Connection

log = logging.getLogger(__name__)

LOOK_S = 1.0  # How often it looks whether the cluster has grown, while tasks wait here.
AHEAD_S = 0.1  # of work for each thread may be with Dask and not begun: about what it takes to bring more
MAX_AHEAD = 10  # tasks for each thread; and so many are sent on that have waited here


class Dispatcher(Threaded):
    """Runs tasks on a cluster."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.broken: Exception | None = None
        super().__init__(threading.RLock())  # guards all that follows, too
        self._waiting: deque[tuple[float, Task]] = deque()  # since when
        self._with_dask: dict[Task, Any] = {}  # and its future there; None while it is being sent
        self._sent_again: weakref.WeakSet[Task] = weakref.WeakSet()  # with a scattered value that was lost
        self._patience = 0  # how many more than usual may be with Dask
        self._is_closing = False
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # Not in the thread of Dask's client: handlers of log records may take long, or use the cluster.
        shown = self._output
        connection.show = lambda number, data: shown.call(partial(show, number), data)

    # From any thread

    def add(self, task: Task) -> None:
        """Have a task run."""
        task.driver, task.future.task = self, task
        with self._lock:
            self._waiting.append((time.monotonic(), task))
            if self._thread is None:
                self._start()
        self._posted.put(nothing)

    def kill(self, task: Task) -> None:
        """Stop a task that runs."""
        task.is_unwanted = True
        with self._lock:
            waiting = [entry for entry in self._waiting if entry[1] is task]  # It was with Dask before.
            for entry in waiting:
                self._waiting.remove(entry)
        if waiting:
            task.drop()
        else:
            self._in_background(self._kill, [task])

    def kill_all(self) -> None:
        """Stop all tasks: those that wait never run."""
        with self._lock:
            waiting, tasks = self._take_waiting(), list(self._with_dask)
        for task in tasks:
            task.is_unwanted = True
        for task in waiting:
            task.drop()
        self._in_background(self._kill, tasks)

    def close(self, *, cancel: bool) -> None:
        """Let the thread end once all tasks have; with `cancel`, those that wait never run."""
        self._is_closing = True
        for task in self._take_waiting() if cancel else ():
            task.drop()
        self._posted.put(nothing)

    def _start(self) -> None:
        try:
            if not threading.main_thread().is_alive():
                raise RuntimeError(AT_EXIT)
            self._thread = threading.Thread(target=self._run, name="dask", daemon=False)
            self._thread.start()
        except BaseException:  # There may be too many threads, or Ctrl-C came.
            if self._thread is not None and not self._thread.is_alive():
                self._thread = None
            self._waiting.pop()
            raise

    def _take_waiting(self) -> list[Task]:
        with self._lock:
            waiting = [task for _, task in self._waiting]
            self._waiting.clear()
            return waiting

    def _in_background(self, function: Callable[[list[Task]], None], tasks: list[Task]) -> None:
        if tasks:
            threading.Thread(target=function, args=(tasks,), name="killing", daemon=True).start()

    def _kill(self, tasks: list[Task]) -> None:
        """Have the workers that run these tasks stop them. What has not come to a worker never runs."""
        with self._lock:
            sent = [(task, self._with_dask.get(task)) for task in tasks]
        futures = {task.parcel.id: future for task, future in sent if future is not None}
        if not futures:
            return
        try:
            client = self.connection.client
            with contextlib.suppress(TimeoutError):  # A worker is stuck: the others know.
                for ids in client.ask_workers(call_there, "kill", list(futures)).values():
                    for id_ in ids or ():
                        futures.pop(id_, None)
            client.cancel(list(futures.values()), force=True)
        except Exception as error:  # The cluster has gone, and the tasks end with that.
            log.info("cannot stop functions on the Dask cluster: %s", error)

    # The thread

    def _run(self) -> None:
        here.callbacks, here.output = self._callbacks, self._output
        try:
            while self._step() or not self._end():
                pass
        except BaseException as error:
            # Whatever that is, nobody may wait for ever.
            log.exception("the thread of an executor failed")
            self.broken = PoolError(f"the thread of this executor failed: {error!r}")
            self._fail_all(self.broken, ends=True)
            with self._lock:
                self._thread = None

    def _step(self) -> bool:
        """Do what is to be done next; False if there has been nothing for a moment."""
        with self._lock:
            is_idle, has_waiting = not (self._waiting or self._with_dask), bool(self._waiting)
        timeout_s = LOOK_S if has_waiting else None
        if is_idle:
            timeout_s = 0.0 if self._is_closing else LINGER_S
        try:
            self._posted.get(timeout=timeout_s, block=timeout_s != 0)()
        except queue.Empty:
            if is_idle:
                return False
        self._send()
        return True

    def _end(self) -> bool:
        """End the thread; False if there is something to do after all."""
        with self._lock:
            if self._waiting or self._with_dask or not self._posted.empty():
                return False
            self._thread = None
            return True

    def _send(self) -> None:
        """Give tasks to Dask, as many as are good to be there."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._patience = 0
                    return
                since, task = self._waiting[0]
            problem = None
            try:
                at_once = self._at_once(task, since)  # It may ask the scheduler.
            except Exception as error:
                problem = error
            with self._lock:
                if problem is None and len(self._with_dask) >= at_once:
                    return
                if not self._waiting or self._waiting[0][1] is not task:  # It was cancelled meanwhile.
                    continue
                self._waiting.popleft()
                self._with_dask[task] = None
            if not task.begin(time.monotonic()):
                self._forget(task)
                continue
            try:
                if problem is not None:
                    raise problem
                if task.is_unwanted:  # It was with Dask before, and is not to go there again.
                    raise CancelledError(f"{task.name} was killed, as its caller wished")
                future = self.connection.submit(task)
                with self._lock:
                    self._with_dask[task] = future
                self.connection.watch(future, self._tell_of(task))
            except Exception as error:
                self._forget(task)
                self._fail(task, error)
            else:
                if task.is_unwanted:
                    self.kill(task)

    def _at_once(self, task: Task, since: float) -> int:
        """How many tasks may be with Dask, the first of which waits since then."""
        workers = self.connection.workers(LOOK_S)
        threads = max(workers, 1)
        ahead = min(MAX_AHEAD, int(AHEAD_S / max(task.expected_s, 1e-9))) * threads
        if time.monotonic() - since > LOOK_S:
            self._patience = min(self._patience + 1, MAX_AHEAD * threads)
        most = threads + max(ahead, self._patience)
        # More workers may come: what is with Dask can all run at once.
        return most if self.connection.limit is None else min(most, self.connection.limit)

    def _tell_of(self, task: Task) -> Callable[[Any, BaseException | None], None]:
        """What is called when the task's future at Dask has ended, in another thread."""
        return lambda report, error: self._posted.put(lambda: self._take(task, report, error))

    def _take(self, task: Task, report: Any, error: BaseException | None) -> None:
        """Take in what became of a task."""
        self._settle(task, report, error)
        self._forget(task)

    def _forget(self, task: Task) -> None:
        """It is with Dask no longer."""
        with self._lock:
            self._with_dask.pop(task, None)

    def _settle(self, task: Task, report: Any, error: BaseException | None) -> None:
        kind, content, printed = report or ("", b"", ())
        for number, data in printed:
            self.connection.show(number, data)
        # The end comes after all that was printed, also what came while it ran, unless that takes long.
        self._output.settle(SHOWN_S, MOST_SHOWN_S)
        if error is not None:
            may_go_again = not task.is_unwanted and task not in self._sent_again
            if may_go_again and self.connection.has_lost_value(task, error):
                self._sent_again.add(task)
                self._wait_again(task)
            else:
                self._fail(task, self.connection.explained(task.name, error))
            return
        if kind == OUTCOME:
            outcome = Outcome.unpack(content)
            task.pace.note(outcome.seconds / task.count)
            task.complete(outcome)
        elif kind == ERROR:
            self._fail(task, pickle.loads(content))
        else:
            self._fail(task, PoolError(content))

    def _fail(self, task: Task, error: BaseException) -> None:
        if isinstance(error, errors.InitializerFailed):  # The initializer has failed: nothing can run.
            self.broken = error
            task.fail(error)
            self._fail_all(error)
        elif task.is_unwanted and isinstance(error, WorkerLost | ServerUnavailable):
            task.fail(CancelledError(f"{task.name} was killed, as its caller wished"))
        elif not isinstance(error, Exception):
            task.fail(error)
        elif task.is_run_again(error):
            self._wait_again(task)

    def _wait_again(self, task: Task) -> None:
        with self._lock:
            self._waiting.appendleft((time.monotonic(), task))

    def _fail_all(self, error: BaseException, *, ends: bool = False) -> None:
        """Fail what waits; with `ends`, since nobody would take it in, also what is with Dask."""
        with self._lock:
            tasks = self._take_waiting()
            if ends:
                tasks += self._with_dask
                self._with_dask.clear()
        for task in tasks:
            task.fail(error)
