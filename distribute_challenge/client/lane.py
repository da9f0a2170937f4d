"""One lease in use: a place in the line, then a worker, then one task after another on it.

A lane belongs to a driver, whose thread is the only one to touch it, and which never waits for one lane
while another has something to do: all calls are sent, and their answers taken in when they arrive. The next
tasks are sent before the last one has answered, but only as far ahead as about 20 ms of work.

The lease ends by our own word (`free`, `recycle`) or the server connection is closed.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections import deque
from typing import NamedTuple

from distribute_challenge.client.connections import Connections
from distribute_challenge.client.losses import Broken, Killed, Overdue, Unusable
from distribute_challenge.client.peers import ServerConnection, WorkerConnection
from distribute_challenge.client.printing import Printer
from distribute_challenge.client.tasks import Task
from distribute_challenge.errors import ServerUnavailable, WorkerLost
from distribute_challenge.wire import payload
from distribute_challenge.wire.ending import Ending
from distribute_challenge.wire.link import Answer
from distribute_challenge.wire.payload import Outcome
from distribute_challenge.wire.stream import KIBI

log = logging.getLogger(__name__)

AHEAD_S = 0.02  # of work that may have been sent and not begun
AHEAD_BYTES = 256 * KIBI
ANSWERED_S = 0.005  # A server that has a free worker says so before.
TICK_S = 0.1  # How often it shows output, has tasks counted, and learns who waits.

# What is expected of what has not been measured. It is not infinite, so that it can be taken off again.
_UNKNOWN_S = 1e6


class State(enum.Enum):
    """What a lane is about."""

    WAITING = "in line for a worker"
    CONNECTING = "making a connection to it"
    WORKING = "running tasks"
    ENDING = "having a worker that broke replaced"
    CLOSED = "over"


class Sent(NamedTuple):
    """A task on a worker, or on its way there."""

    task: Task
    answer: Answer
    end: int  # of its message, in bytes that were written to the worker
    expected_s: float


class Lane:
    """One lease. `sent` are the tasks on the worker, in the order in which they run there."""

    def __init__(
        self, connections: Connections, server: ServerConnection, *, is_new: bool, max_tasks: int | None
    ) -> None:
        self.state = State.WAITING
        self.server = server
        self.worker: WorkerConnection | None = None
        self.port = -1
        self.is_connecting = False
        self.has_done_something = False
        self.sent: deque[Sent] = deque()
        self.returned: list[Task] = []  # to be run elsewhere
        self.error: Exception | None = None  # why this lane could do nothing, if that concerns all tasks
        self._connections = connections
        self._is_new = is_new
        self._acquiring: Answer | None = None
        self._keeping: Answer | None = None
        self._recycling: Answer | None = None
        self._broken = Broken("", has_run=False)
        self._lost: Task | None = None
        self._finished = self._failed = 0
        self._functions_left = max_tasks or math.inf
        self._depth = 1  # how many tasks may be on the worker
        self._bytes_ahead = 0
        self._ahead_s = 0.0  # how long they are expected to take, all together
        self._printer: Printer | None = None  # of the task that runs; most print nothing
        self.has_to_yield = False
        self._began_at = self._kept_at = self._answered_at = time.monotonic()
        server.link.never_wait()
        try:
            self._acquiring = server.ask_for_worker()
            server.link.flush()
        except EOFError as error:
            self._lose_server(error)

    # What is to be watched

    def links(self) -> list[tuple[int, bool]]:
        """The descriptors that it waits for, and whether it also waits to write there."""
        links = [self.server.link]
        if self.worker is not None:
            links.append(self.worker.link)
        return [(link.fileno(), link.has_unsent) for link in links if not link.closed]

    @property
    def wants_ticks(self) -> bool:
        """Whether it has something to do now and then, whatever arrives."""
        return bool(self.sent) or self.state is State.WAITING

    def is_in_line(self, now: float) -> bool:
        """Whether it waits for a worker, and is not just about to be answered."""
        return self.state is State.WAITING and now - self._began_at > ANSWERED_S

    def has_waited(self, now: float) -> bool:
        """Whether it has been in line for some time."""
        return self.state is State.WAITING and now - self._began_at > 2 * TICK_S

    @property
    def has_failed(self) -> bool:
        """Whether its worker had to be replaced before it could run anything."""
        return self._recycling is not None and self._lost is None

    # Tasks

    def can_take(self, task: Task, now: float) -> bool:
        """Whether a task may be sent now, perhaps ahead of its turn."""
        if self.state is not State.WORKING or self.has_to_yield or self._keeping is not None:
            return False
        if not self.sent:
            if now - self._kept_at < TICK_S:
                return True
            self._ask_to_keep()  # Somebody may have come to wait meanwhile.
            return False
        if len(self.sent) >= self._depth or self._bytes_ahead + task.parcel.size > AHEAD_BYTES:
            return False
        if task.options.timeout_s is not None or self._functions_left < task.count:
            return False  # A time limit begins when the task is sent.
        return self._ahead_s + _expected_s(task) <= AHEAD_S

    def take(self, task: Task) -> None:
        """Send a task to the worker, at the next `flush`."""
        assert self.worker is not None
        answer = self.worker.start(task.parcel)
        sent = Sent(task, answer, self.worker.link.written, _expected_s(task))
        self.sent.append(sent)
        self._ahead_s += sent.expected_s
        self._bytes_ahead += task.parcel.size
        self._functions_left -= 0 if task.parcel.is_initializer else task.count
        self.has_to_yield |= self._functions_left <= 0

    def flush(self, now: float) -> None:
        """Let the worker have what was sent to it."""
        if self.state is State.WORKING and self.worker is not None:
            try:
                self.worker.link.flush()
            except EOFError:
                self._serve_worker(now)  # Answers may have arrived before it died.

    def got_worker(self, worker: WorkerConnection) -> None:
        """The connection is made."""
        if self.state is not State.CONNECTING:  # The server has gone meanwhile.
            worker.close()
            return
        self.worker = worker
        worker.link.never_wait()
        self.state = State.WORKING
        self._kept_at = self._answered_at = time.monotonic()

    def got_no_worker(self, problem: Exception) -> None:
        """The connection cannot be made."""
        if self.state is not State.CONNECTING:
            return
        if isinstance(problem, Broken):
            self._break(problem)
        else:
            self.error = problem
            self.free()

    # What happens

    def serve(self, arrived: set[int], now: float) -> None:
        """Take in what has arrived on the descriptors in `arrived`."""
        if self.server.link.fileno() in arrived:
            try:
                self.server.link.flush()
                self.server.link.serve_arrived()
            except EOFError as error:
                self._lose_server(error)
                return
        if self.state is State.WAITING:
            self._take_port()
        elif self.state is State.ENDING:
            self._take_ending()
        elif self.state is State.WORKING:
            assert self.worker is not None
            if self.worker.link.fileno() in arrived:
                self._serve_worker(now)
            if self._keeping is not None and self._keeping.is_here:
                answer, self._keeping = self._keeping, None
                self.has_to_yield |= int(answer.value) > 0

    def tick(self, now: float) -> None:
        """Do what is due at this time."""
        if self.state is not State.WORKING or not self.sent:
            return
        assert self.worker is not None
        task = self.sent[0].task
        timeout_s = task.options.timeout_s
        if task.is_unwanted:
            self._break(Killed())
            return
        if timeout_s is not None and now - task.sent_at > timeout_s * task.count:
            self._break(Overdue(timeout_s * task.count))
            return
        if task.parcel.prints and now - max(task.sent_at, self._answered_at) > TICK_S:
            self._printer = self._printer or Printer()
            self.worker.show_output(task.parcel.id, self._printer)
        if self._finished + self._failed and now - self._kept_at > TICK_S:
            self._ask_to_keep()

    def free(self) -> None:
        """Give the worker back."""
        self.server.free(self.port, finished=self._finished, failed=self._failed)
        self.state = State.CLOSED
        worker, self.worker = self.worker, None
        if worker is not None:
            try:
                worker.link.wait_again()
                self._connections.put_worker(self.port, worker)
            except EOFError as error:
                log.debug("the worker on port %d has died after its last task: %s", self.port, error)
                worker.close()
        self._put_server()

    def fail_all(self, error: Exception) -> None:
        """Fail the tasks that are on the worker, or were lost with it."""
        for task in [*(sent.task for sent in self.sent), self._lost]:
            if task is not None:
                task.fail(error)
        self.sent.clear()
        self._lost = None

    def leave(self) -> None:
        """Give up a place in the line, by ending the connection. (A worker handed over meanwhile is lost.)"""
        self.state = State.CLOSED
        self.server.close()

    # Its steps

    def _take_port(self) -> None:
        if self._acquiring is None or not self._acquiring.is_here:
            return
        try:
            self.port = self.server.port_in(self._acquiring)
        except ServerUnavailable as error:
            self.error = error
            self.state = State.CLOSED
            self._put_server()
            return
        self.state = State.CONNECTING

    def _serve_worker(self, now: float) -> None:
        assert self.worker is not None
        is_dead = False
        for step in (self.worker.link.flush, self.worker.link.serve_arrived):
            try:
                step()
            except EOFError:
                is_dead = True
        while self.sent and self.sent[0].answer.is_here:
            try:
                outcome = self.worker.outcome(self.sent[0].task.parcel, self.sent[0].answer)
            except Exception as error:
                self._break(self._what_broke(error))
                return
            self._take_outcome(self.sent.popleft(), outcome, now)
        if is_dead:
            has_run = bool(self.sent) and self.sent[0].end <= self.worker.link.sent
            name = self.sent[0].task.name if has_run else "a function"
            self._break(Broken(f"it died under {name}", has_run=has_run))

    def _what_broke(self, error: Exception) -> Broken:
        if payload.is_busy(error):
            return Broken("it still runs the function of a client that gave up", has_run=False)
        return Broken(f"it answers with {error!r}", has_run=True)

    def _take_outcome(self, sent: Sent, outcome: Outcome, now: float) -> None:
        task = sent.task
        task.pace.note(outcome.seconds / task.count)
        # As with what a new acquaintance is lent: more each time it turns out well, little again if not.
        self._depth = self._depth + 1 if outcome.seconds <= AHEAD_S else 1
        self._answered_at = now
        self._ahead_s -= sent.expected_s
        self._bytes_ahead -= task.parcel.size
        if outcome.output:
            self._printer = self._printer or Printer()
            self._printer.write(outcome.offset, outcome.output)
        self._end_output()
        if not task.parcel.is_initializer:
            finished, failed = outcome.counts(task.count)
            self._finished += finished
            self._failed += failed
        self.has_done_something = True
        task.complete(outcome)

    def _end_output(self) -> None:
        if self._printer is not None:
            self._printer.finish()
            self._printer = None

    def _ask_to_keep(self) -> None:
        """Have the tasks so far counted, and learn who waits."""
        try:
            self._keeping = self.server.ask_to_keep(self.port, finished=self._finished, failed=self._failed)
            self.server.link.flush()
        except EOFError as error:
            self._lose_server(error)
            return
        self._finished = self._failed = 0
        self._kept_at = time.monotonic()

    def _break(self, broken: Broken) -> None:
        """Give up the worker: what ran there is lost, what was sent ahead is not."""
        self._end_output()
        if self.worker is not None:
            self.worker.close()
            self.worker = None
        tasks = [sent.task for sent in self.sent]
        self.sent.clear()
        if broken.has_run and tasks:
            self._lost = tasks.pop(0)
        self.returned = tasks + self.returned
        self._broken = broken
        try:
            if self._finished + self._failed:
                self.server.ask_to_keep(self.port, finished=self._finished, failed=self._failed)
            self._recycling = self.server.ask_to_recycle(self.port, str(broken))
            self.server.link.flush()
            self.state = State.ENDING
        except EOFError as error:
            self._lose_server(error)

    def _take_ending(self) -> None:
        if self._recycling is None or not self._recycling.is_here:
            return
        ending = Ending.from_json(self._recycling.value)
        name = self._lost.name if self._lost is not None else "nothing"
        error = self._broken.error(name, ending)
        if self._lost is not None and isinstance(error, WorkerLost) and self._lost.retries:
            log.info("%s; it is run again", error)
            self._lost.retries -= 1
            self.returned.insert(0, self._lost)
        elif self._lost is not None:
            self._lost.fail(error)
        elif isinstance(error, Unusable):
            log.info("%s", error)
        self.state = State.CLOSED
        self._put_server()

    def _lose_server(self, error: EOFError) -> None:
        self.server.close()
        self._connections.forget_facts()
        if self.worker is not None:
            self.worker.close()
        if self.state is State.WAITING and not self._is_new:
            log.info("an idle connection to the server had ended (%s)", error)
        else:
            self.error = self.server.ended(error)
        self.state = State.CLOSED
        self.fail_all(self.server.ended(error))

    def _put_server(self) -> None:
        try:
            self.server.link.wait_again()
        except EOFError as error:
            log.debug("a connection to the server has ended: %s", error)
            self.server.close()
            return
        self._connections.put_server(self.server)


def _expected_s(task: Task) -> float:
    return _UNKNOWN_S if task.expected_s is None else task.expected_s
