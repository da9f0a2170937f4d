"""The tasks on one worker: one that runs, and those sent ahead, as far as that is a moment's work."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import INITIALIZER, OUTPUT, Outcome
from distribute_challenge.client.peers.failures import Broken, Busy, Dead, Killed, Overdue, Silent
from distribute_challenge.client.peers.printing import Printer
from distribute_challenge.client.peers.worker import LAST_OUTPUT_S, WorkerConnection
from distribute_challenge.client.running.limit import TimeLimit
from distribute_challenge.client.tasks.task import Task
from distribute_challenge.wire.link import Answer
from distribute_challenge.wire.stream import KIBI

AHEAD_S = 0.02  # of work that may have been sent and not begun
AHEAD_BYTES = 256 * KIBI
OUTPUT_S = 0.1  # How often what the running function prints is shown.
SPARED_S = 1.0  # What has ended has that long for its outcome to arrive.


class SentTask(NamedTuple):
    """A task on a worker, or on its way there."""

    task: Task
    answer: Answer
    expected_s: float
    limit: TimeLimit | None


class Pipeline:
    """The tasks on a worker, in the order in which they run there. It is to run `max_functions` in all."""

    def __init__(self, worker: WorkerConnection, max_functions: float) -> None:
        self.worker = worker
        self._functions_left = max_functions
        self._sent: deque[SentTask] = deque()
        self._depth = 1  # how many tasks may be on the worker
        self._bytes = 0  # of them all
        self._expected_s = 0.0  # how long they will take, all together
        self._printer: Printer | None = None  # of the task that runs; most print nothing
        self._answered_at = time.monotonic()
        self.is_dead = False  # as the server says
        self._is_over = False
        self._given_up_at = 0.0
        self._unanswered: list[Task] = []  # that are to be stopped, or whose outcome is none
        self._spared: Task | None = None  # that had ended when it was to be stopped: its outcome is under way
        self._spared_until = 0.0
        self._refused: list[Task] = []
        self._steps = (worker.link.flush, worker.link.serve_arrived)
        worker.link.never_wait()

    def __len__(self) -> int:
        return len(self._sent)

    def tasks(self) -> list[Task]:
        """All that are there."""
        return [sent.task for sent in self._sent]

    @property
    def is_spent(self) -> bool:
        """Whether it has been sent as many functions as it is to run."""
        return self._functions_left <= 0

    def can_send_ahead(self, task: Task, now: float, round_trip_s: float = 0) -> bool:
        """Whether a task may be sent before the last one has answered.

        If the worker is far away, that is also when it will have nothing to do before long: else it would
        wait for each task as long as the last outcome and the next task are under way.
        """
        if self._bytes + task.parcel.size > AHEAD_BYTES:
            return False
        if task.options.timeout_s is not None or self._functions_left < task.count:
            return False  # A time limit begins when the task is sent.
        running_s = self._sent[0].expected_s
        waiting_s = self._expected_s - running_s
        if len(self._sent) < self._depth and running_s <= AHEAD_S and waiting_s + task.expected_s <= AHEAD_S:
            return True
        return bool(round_trip_s) and self._next_in_s(now, round_trip_s) <= 0

    def _next_in_s(self, now: float, round_trip_s: float) -> float:
        """In how many seconds to send the next task to a far worker, which so need not wait for it.

        It is infinite as long as only an outcome can tell.
        """
        first = self._sent[0]
        running_s = first.task.expected_s  # Another worker may have told meanwhile.
        runs_since = max(first.task.sent_at, self._answered_at - round_trip_s) + round_trip_s / 2
        left_s = running_s - (now - runs_since)
        if -left_s >= running_s + round_trip_s:
            return math.inf  # One that takes longer than any before may take for ever.
        spare_s = round_trip_s + AHEAD_S - (self._expected_s - first.expected_s)
        return max(left_s, 0) - spare_s if spare_s >= 0 else math.inf

    def send(self, task: Task, round_trip_s: float = 0) -> None:
        """Send a task to the worker, at the next `flush`."""
        limit = None
        if (timeout_s := task.options.timeout_s) is not None:
            limit = TimeLimit(timeout_s * task.count, self.worker.link, round_trip_s)
        sent = SentTask(task, self.worker.start(task.parcel), task.expected_s, limit)
        self._sent.append(sent)
        self._expected_s += sent.expected_s
        self._bytes += task.parcel.size
        self._functions_left -= 0 if task.parcel.flags & INITIALIZER else task.count

    def flush(self) -> None:
        """Let the worker have what was sent to it. EOFError if it died."""
        self.worker.link.flush()

    def outcomes(self, now: float) -> Iterator[tuple[Task, Outcome]]:
        """Take in what has arrived: the tasks that have ended. Raises Broken if the worker must go."""
        broken: Broken | None = None
        for step in (self.worker.link.serve_arrived,) if self._is_over else self._steps:
            try:
                step()
            except EOFError:  # Answers may have arrived before it died.
                broken = Dead(self._sent[0].task.name if self._sent else None)
        while self._sent and self._sent[0].answer.is_here:
            sent = self._sent.popleft()
            try:
                outcome = self.worker.outcome(sent.task.name, sent.task.parcel, sent.answer)
            except Broken as error:
                broken = error
                (self._refused if isinstance(error, Busy) else self._unanswered).append(sent.task)
                continue
            self._note(sent, outcome, now)
            if sent.task in self._unanswered:  # It has ended before it was stopped.
                self._unanswered.remove(sent.task)
            yield sent.task, outcome
        if broken is not None:
            raise broken

    def left_s(self, now: float) -> float:
        """How many seconds the function that runs may go on."""
        if not self._sent:
            return math.inf
        task, _, _, limit = self._sent[0]
        if self._is_spared(task, now):
            return self._spared_until - now
        return math.inf if limit is None else limit.left_s(now)

    def _is_spared(self, task: Task, now: float) -> bool:
        return task is self._spared and now < self._spared_until

    def due_s(self, now: float, round_trip_s: float) -> float:
        """In how many seconds there is something to do, whatever arrives."""
        left_s = self.left_s(now)
        next_s = self._next_in_s(now, round_trip_s) if round_trip_s and self._sent else math.inf
        return min(left_s, next_s) if next_s > 0 else left_s

    def tick(self, now: float) -> Broken | None:
        """Do what is due at this time. If the function that runs is to be stopped, why."""
        if not self._sent:
            return None
        task = self._sent[0].task
        if self.is_dead:
            return Dead(task.name)
        if self._is_spared(task, now):
            return None
        if task.is_unwanted:
            return Killed()
        if self.left_s(now) <= 0:
            return Overdue((task.options.timeout_s or 0) * task.count)
        if now - max(task.sent_at, self._answered_at) <= OUTPUT_S:
            return None
        if self.worker.link.is_stuck(now):
            return Silent()
        if task.parcel.flags & OUTPUT:
            self._printer = self._printer or task.printer()
            self.worker.show_output(task.parcel.id, self._printer)
        return None

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be written to the worker."""
        return self.worker.link.has_unsent and not self._is_over

    def give_up(self, *, ends_task: bool) -> bytes:
        """Send nothing more, since the worker is being replaced. What it still answers counts.

        With `ends_task`, to stop the task that runs: its call's id, if that shall be spared if it has ended.
        """
        self._is_over = True
        self._given_up_at = time.monotonic()
        if not ends_task or not self._sent or self._unanswered:
            return b""
        task = self._sent[0].task
        self._unanswered.append(task)
        return b"" if task is self._spared else task.parcel.id

    def go_on(self) -> None:
        """The worker was not replaced after all: the task that was to be stopped had ended."""
        self._is_over = False
        for task in self._unanswered:
            self._spared, self._spared_until = task, time.monotonic() + SPARED_S
        self._unanswered.clear()

    def has_shown_all(self, now: float) -> bool:
        """Once it is given up: show what the task that runs has printed. Whether that is done, or takes long.

        Nothing that was sent ahead shall begin meanwhile.
        """
        if len(self._sent) != 1 or not self._unanswered or now - self._given_up_at > LAST_OUTPUT_S:
            return True
        parcel = self._sent[0].task.parcel
        if not parcel.flags & OUTPUT:
            return True
        self._printer = self._printer or self._sent[0].task.printer()
        return self.worker.show_output(parcel.id, self._printer, is_last=True)

    def break_off(self, ending: Ending | None) -> tuple[list[Task], list[Task], list[Task]]:
        """End the connection. The tasks that were to be stopped, those that the worker had begun, the others.

        Without an `ending` it is none: no task is sent anywhere else.
        """
        self._end_output()
        self.worker.close()
        tasks = [task for task in self.tasks() if task not in self._unanswered]
        begun = 0
        for number, task in enumerate(tasks, start=1):
            if ending is not None and ending.has_begun(task.parcel.id):
                begun = number
        self._sent.clear()
        return self._unanswered, tasks[:begun], [*self._refused, *tasks[begun:]]

    def _note(self, sent: SentTask, outcome: Outcome, now: float) -> None:
        sent.task.pace.note(outcome.seconds / sent.task.count)
        # The depth grows by one after each quick task, and drops to one after a slow one. How long it took to
        # prepare the worker says nothing of what it is for.
        if not sent.task.parcel.flags & INITIALIZER:
            self._depth = self._depth + 1 if outcome.seconds <= AHEAD_S else 1
        self._answered_at = now
        self._expected_s -= sent.expected_s
        self._bytes -= sent.task.parcel.size
        if outcome.output:
            self._printer = self._printer or sent.task.printer()
            self._printer.write(outcome.offset, outcome.output)
        self._end_output()

    def _end_output(self) -> None:
        if self._printer is not None:
            self._printer.finish()
            self._printer = None
