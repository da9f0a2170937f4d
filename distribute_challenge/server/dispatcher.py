"""The one lock around the scheduler: waiting for a worker, and being woken with one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from distribute_challenge.record.profile import COUNTS_ONLY
from distribute_challenge.record.tasks import LOST, CutOff
from distribute_challenge.server.caller import Caller
from distribute_challenge.server.scheduler import Scheduler, Ticket
from distribute_challenge.server.workers.process import WorkerProcess

log = logging.getLogger(__name__)

PATIENCE_S = 0.1  # Who has waited longer is worth the time it takes to find out which process it is.
STOPPED_POLL_S = 0.2  # How often a client that was stopped is looked at: nothing tells when it goes on.


class Dispatcher:
    """Hands workers, by number, to callers. Safe to call from any thread.

    `process` gives a worker's latest process, `record` takes what goes into the profile. `on_all_up` is
    called once, when every worker has answered; `on_idle` when no worker is leased, after `close`.
    """

    def __init__(
        self,
        size: int,
        process: Callable[[int], WorkerProcess | None],
        record: Callable[[str, int | None, int, int, int, int, int], None],
        on_all_up: Callable[[], None],
        on_idle: Callable[[], None],
        max_tasks: int | None = None,
        scheduler: Scheduler[Caller] | None = None,
    ) -> None:
        self._lock = threading.Lock()  # guards all that follows, and the order of what is recorded
        self._scheduler: Scheduler[Caller] = scheduler or Scheduler(size)
        self._lost_under_lease: dict[int, list[WorkerProcess]] = {}  # until that lease ends
        self._max_tasks = max_tasks
        self._tasks = [0] * size  # that each worker's process has run
        self._is_open = self._is_closed = self._is_ended = False
        self._process, self._record, self._on_all_up, self._on_idle = process, record, on_all_up, on_idle

    # Leases

    def find(self, caller: Caller) -> int | None:
        """Lease the lowest-numbered free worker; None if there is none. Raises RuntimeError once closed."""
        with self._lock:
            return self._lease(caller)

    def acquire(
        self, caller: Caller, timeout_s: float | None, tasks: int = 1, executor: bytes = b""
    ) -> int | None:
        """As `find`, but wait in line for so many tasks; None after `timeout_s` seconds, or if it leaves."""
        with self._lock:
            self._scheduler.tell(caller, tasks, executor)
            try:
                if (worker := self._lease(caller)) is not None:
                    return worker
                caller.prepare_to_wait()
            except RuntimeError:
                self._scheduler.hush(caller)
                raise
            ticket = self._scheduler.wait(caller)
            self._note(COUNTS_ONLY, None)
        try:
            return self._await_turn(caller, ticket, timeout_s)
        finally:  # Also if it has said what no client does.
            with self._lock:
                self._scheduler.leave(ticket)

    def _await_turn(self, caller: Caller, ticket: Ticket[Caller], timeout_s: float | None) -> int | None:
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        look_s = PATIENCE_S
        while True:
            is_woken = caller.await_bell(max(min(look_s, deadline - time.monotonic()), 0))
            if not is_woken:
                caller.find_process()
            with self._lock:
                caller.answer_bell()
                if ticket.is_passed_over and not caller.is_away():
                    self._has_come_back(ticket)
                if not self._scheduler.is_in_line(ticket):
                    if ticket.worker is None:
                        self._check_open()
                    return ticket.worker
                if caller.wants_no_worker() or time.monotonic() >= deadline:
                    self._scheduler.leave(ticket)
                    self._note(COUNTS_ONLY, None)
                    return None
                look_s = STOPPED_POLL_S if ticket.is_passed_over else look_s if is_woken else math.inf

    def free(self, caller: Caller, worker: int, finished: int, failed: int) -> None:
        """End a lease. Raises ValueError, and changes nothing, unless `caller` holds it."""
        with self._lock:
            if self._is_worn(worker, finished + failed) and self._scheduler.is_up(worker):
                self._scheduler.retire(caller, worker, finished, failed)
                self._replace(worker, "it has run its functions")
            else:
                self._find_who_is_next()
                self._pass_on("free", worker, self._scheduler.free(caller, worker, finished, failed))
                self._renew()
            self._tasks[worker] += finished + failed
            if self._lost_under_lease.pop(worker, None) is not None:
                self._tasks[worker] = 0  # All of those were of a process that has died since.
            self._check_idle()

    def keep(self, caller: Caller, worker: int, finished: int, failed: int, tasks: int, whose: bytes) -> int:
        """Count tasks of a lease that goes on, and has so many more; how many clients wait; -1: it died.

        They are of the executor `whose`, if that is not empty. Raises as `free` does.
        """
        with self._lock:
            self._scheduler.keep(caller, worker, finished, failed)
            self._scheduler.tell(caller, tasks, whose)
            self._tasks[worker] += finished + failed
            self._note(COUNTS_ONLY, None)
            if worker in self._lost_under_lease:
                return -1
            # Who is to give a worker back, since it has run enough or we stop, is told that somebody waits.
            waiting = self._scheduler.waiting - self._scheduler.passed_over
            return max(waiting, int(self._is_worn(worker, 0) or self._is_closed))

    def count(self, finished: int, failed: int) -> None:
        """Count functions of which no client tells: those that ran in place, within others, say."""
        with self._lock:
            self._scheduler.count(finished, failed)
            self._note(COUNTS_ONLY, None)

    def recycle(
        self, caller: Caller, worker: int, end: CutOff | None = None, stack: Sequence[str] = ()
    ) -> tuple[WorkerProcess, list[WorkerProcess], int]:
        """End a lease and kill its worker. Raises as `free` does. `end` is what that means for its function,
        and `stack` where that was.

        Returns the process that was lost; others of the lease, as those that had died before it, and the one
        there is now; and how many functions of all have been counted. What else they began is to be counted.
        """
        with self._lock:
            is_up = self._scheduler.is_up(worker)
            self._scheduler.retire(caller, worker, finished=0, failed=0)
            counted = self._tasks[worker]
            lost = self._end_badly(worker, is_up)
            self._check_idle()
            process = self._process(worker)
        assert process is not None
        if is_up:
            process.give_up(end, list(stack), is_second=bool(lost))
        told = lost[-1] if lost else process
        return told, [one for one in dict.fromkeys([*lost, process]) if one is not told], counted

    def abandon(self, caller: Caller) -> None:
        """End all leases of a client that has gone, and kill the workers: functions may be running there."""
        with self._lock:
            up = [worker for worker in self._scheduler.held_by(caller) if self._scheduler.is_up(worker)]
            for worker in self._scheduler.abandon(caller):
                self._end_badly(worker, worker in up)
            self._check_idle()
            doomed = [process for worker in up if (process := self._process(worker))]
            why = "the server stopped" if self._is_ended else "its client has gone"
        for process in doomed:
            process.kill(end=CutOff(LOST, f"WorkerLost: {why}"))

    def worker_up(self, worker: int) -> None:
        """A worker's process answers."""
        with self._lock:
            self._find_who_is_next()
            if worker not in self._lost_under_lease:
                self._tasks[worker] = 0
            ticket = self._scheduler.up(worker)
            if self._is_open:
                self._pass_on("replaced", worker, ticket)
            elif not any(self._scheduler.busy):
                self._is_open = True
                self._note("start", None)
                self._on_all_up()

    def worker_down(self, worker: int, process: WorkerProcess) -> None:
        """A worker's process has ended."""
        with self._lock:
            if self._is_ended or not self._scheduler.is_up(worker):
                return  # It was to end, and that has been noted.
            log.warning("lost %s", process.ending())
            self._scheduler.down(worker)
            if self._scheduler.holder(worker) is not None:
                self._lost_under_lease.setdefault(worker, []).append(process)
            if self._is_open:
                self._note("lost", worker)

    def close(self) -> None:
        """Hand out nothing more: those in line, and all who come, get RuntimeError."""
        with self._lock:
            self._is_closed = True
            for ticket in self._scheduler.line():
                self._dismiss(ticket)
            self._check_idle()

    def end(self) -> None:
        """Hang up on who holds a worker. What becomes of the workers after this is no loss."""
        with self._lock:
            self._is_ended = True
            holders = set(map(self._scheduler.holder, range(self._scheduler.size)))
        for holder in filter(None, holders):
            holder.hang_up()

    def record_stop(self) -> None:
        """Record the end of the pool, with all that was counted."""
        with self._lock:
            pool = self._scheduler
            self._record("stop", None, 0, pool.finished, pool.failed, pool.waiting, pool.tasks)

    def snapshot(self) -> tuple[list[str], dict[str, object]]:
        """The state of each worker, and the busy list and counts, all at one moment."""
        with self._lock:
            pool = self._scheduler
            counts = {"finished": pool.finished, "failed": pool.failed, "waiting": pool.waiting}
            return pool.states(), {"busy": list(pool.busy), **counts, "tasks": pool.tasks}

    def _lease(self, caller: Caller) -> int | None:
        self._check_open()
        if (worker := self._scheduler.lease(caller)) is None:
            self._renew(1)
        else:
            self._note("acquire", worker)
        return worker

    def _renew(self, more: int = 0) -> None:
        """Have a free worker come up anew for those in line and so many more, if it has to."""
        if (worker := self._scheduler.renew(more)) is not None:
            self._replace(worker, "it has run functions of another program")

    def _replace(self, worker: int, reason: str) -> None:
        """End the process of a worker that nobody holds, and that is down."""
        self._note("free", worker)
        if (process := self._process(worker)) is not None:
            log.info("worker %d is replaced: %s", process.port, reason)
            process.retire()

    def _is_worn(self, worker: int, more: int) -> bool:
        """Whether a worker's process has run as many functions as it shall."""
        return self._max_tasks is not None and self._tasks[worker] + more >= self._max_tasks

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the server is stopping: it hands out no more workers")

    def _check_idle(self) -> None:
        if self._is_closed and not self._scheduler.leases:
            self._on_idle()

    def _find_who_is_next(self) -> None:
        """Before a worker can be handed over: nobody may be first in line who has gone, or is stopped."""
        for ticket in self._scheduler.line():
            if ticket.holder.has_hung_up():
                self._dismiss(ticket)
            elif not ticket.holder.is_away():
                if not (ticket.is_passed_over and self._has_come_back(ticket)):
                    return
                ticket.holder.ring()
            elif not ticket.is_passed_over:
                self._scheduler.pass_over(ticket)
                ticket.holder.ring()  # From now on it looks whether that is over.

    def _has_come_back(self, ticket: Ticket[Caller]) -> bool:
        """Have who was passed over wait again; whether there was a free worker, and it has got that."""
        if self._scheduler.come_back(ticket):
            self._note("acquire", ticket.worker)
            return True
        self._renew()
        return False

    def _dismiss(self, ticket: Ticket[Caller]) -> None:
        self._scheduler.leave(ticket)
        self._note(COUNTS_ONLY, None)
        ticket.holder.ring()

    def _pass_on(self, event: str, worker: int, ticket: Ticket[Caller] | None) -> None:
        self._note(event, worker)
        if ticket is not None:
            self._note("acquire", worker)
            ticket.holder.ring()

    def _end_badly(self, worker: int, is_up: bool) -> list[WorkerProcess]:
        """After a lease has ended with its worker down: the processes that had died under it."""
        self._note("lost" if is_up else "free", worker)
        return self._lost_under_lease.pop(worker, [])

    def _note(self, event: str, worker: int | None) -> None:
        pool = self._scheduler
        busy, process = (0, None) if worker is None else (pool.busy[worker], self._process(worker))
        if event == "acquire" and worker is not None and process is not None:
            log.debug("%s leases worker %d", pool.holder(worker), process.port)
            process.forget_output()  # What one client's function printed is not for the next client.
        if not self._is_ended:
            self._record(event, worker, busy, pool.finished, pool.failed, pool.waiting, pool.tasks)
