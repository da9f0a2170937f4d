"""One lease in use: a place in the line, then a worker, then one task after another on it.

Only its driver's thread touches it, and never waits here: calls are sent, and their answers taken in when
they arrive. The lease ends by our own word (`free`, `recycle`), or the server connection is closed.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Callable

from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import INITIALIZER
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.failures import Broken
from distribute_challenge.client.peers.server import LOOK_S, RECYCLED_S, ServerConnection
from distribute_challenge.client.peers.worker import LAST_TICK_S, WorkerConnection
from distribute_challenge.client.running.pipeline import Pipeline
from distribute_challenge.client.running.tasks import Task, end_lost
from distribute_challenge.errors import ServerUnavailable
from distribute_challenge.wire.link import Answer

log = logging.getLogger(__name__)

TICK_S = 0.1  # How often it has tasks counted, and learns who waits.


class State(enum.Enum):
    """The state of a lane."""

    WAITING = "in line for a worker"
    CONNECTING = "making a connection to it"
    WORKING = "running tasks"
    ENDING = "having a worker that broke replaced"
    CLOSED = "over"


class Lane:
    """One lease. `pipeline` holds the tasks on the worker, once there is a connection to it."""

    def __init__(
        self,
        connections: Connections,
        server: ServerConnection,
        waiting_to_tell: Callable[[Lane], int],
        *,
        is_new: bool,
        max_tasks: int | None,
    ) -> None:
        self.state = State.WAITING
        self.server = server
        self.pipeline: Pipeline | None = None
        self.port = -1
        self.prepared: set[bytes] = set()  # the executors whose initializer has run there, or went there
        self.is_connecting = False
        self.has_to_yield = False
        self.has_done_something = False
        self.has_failed = False  # Its worker had to be replaced before it could run anything.
        self.returned: list[Task] = []  # to be run elsewhere
        self.error: BaseException | None = None  # why this lane could do nothing, if that concerns all tasks
        self._connections = connections
        self._waiting_to_tell = waiting_to_tell
        self._is_new = is_new
        self._max_functions = max_tasks or math.inf
        self._keeping: Answer | None = None
        self._recycling: Answer | None = None
        self._broken, self._broke_at = Broken(""), 0.0
        self._has_run = False  # any task but the initializer
        self._finished = self._failed = 0  # since they were last counted
        self._began_at = self._kept_at = time.monotonic()
        self._left_at: float | None = None  # when it left the line
        server.link.never_wait()
        self._acquiring = server.ask_for_worker(self._waiting_to_tell(self))

    def links(self) -> list[tuple[int, bool]]:
        """The descriptors that it waits for, and whether it also waits to write there."""
        links = [(self.server.link.fileno(), self.server.link.has_unsent)]
        if self.pipeline is not None:
            links.append((self.pipeline.worker.link.fileno(), self.pipeline.has_unsent))
        return [link for link in links if link[0] >= 0]

    @property
    def load(self) -> int:
        """How many tasks are on the worker."""
        return 0 if self.pipeline is None else len(self.pipeline)

    def tasks(self) -> list[Task]:
        """All that are on the worker, or come back from it."""
        return self.returned if self.pipeline is None else [*self.pipeline.tasks(), *self.returned]

    def tick_s(self, now: float) -> float:
        """In how many seconds it has something to do, whatever arrives."""
        if self.state in (State.WAITING, State.ENDING):
            return LAST_TICK_S if self.state is State.ENDING and self._recycling is None else TICK_S
        return min(TICK_S, self.pipeline.left_s(now)) if self.pipeline is not None and self.load else math.inf

    def leave_line(self, now: float) -> None:
        """If it has been in line for some time, stand there no longer. Its answer tells when it is over.

        If the connection were closed, a worker that is just handed over would have to be replaced.
        """
        if self.state is State.WAITING and self._left_at is None and now - self._began_at > 2 * TICK_S:
            self._left_at = now
            self.server.leave_line()

    # Tasks

    def can_take(self, task: Task, now: float) -> bool:
        """Whether a task may be sent now, perhaps ahead of its turn. An idle lane asks the server first."""
        if self.state is not State.WORKING or self.has_to_yield or self._keeping is not None:
            return False
        assert self.pipeline is not None
        if self.load:
            return self.pipeline.can_send_ahead(task)
        # Who has prepared a worker runs something there, or a slow initializer could go on for ever.
        if not self._has_run or now - self._kept_at < TICK_S:
            return True
        self._ask_to_keep()  # Somebody may have come to wait meanwhile.
        return False

    def take(self, task: Task) -> None:
        """Send a task to the worker, at the next `flush`."""
        assert self.pipeline is not None
        self.pipeline.send(task)
        self.has_to_yield |= self.pipeline.is_spent

    def flush(self, now: float) -> None:
        """Let the worker have what was sent to it."""
        if self.state is State.WORKING and self.pipeline is not None:
            try:
                self.pipeline.flush()
            except EOFError:
                self._serve_worker(self.pipeline, now)

    def got_worker(self, worker: WorkerConnection | BaseException) -> None:
        """The connection is made; or why it cannot be."""
        if self.state is not State.CONNECTING:  # The server has gone meanwhile.
            if isinstance(worker, WorkerConnection):
                worker.close()
        elif isinstance(worker, WorkerConnection):
            self.pipeline = Pipeline(worker, self._max_functions)
            self.prepared = worker.prepared
            self.state = State.WORKING
            self._kept_at = time.monotonic()
        elif isinstance(worker, Broken):
            self._break(worker)
        else:
            self.error = worker
            self.free()

    # What happens

    def serve(self, arrived: set[int], now: float) -> None:
        """Take in what has arrived on the descriptors in `arrived`, and do what is due at this time."""
        try:
            if self.server.link.fileno() in arrived:
                self.server.link.flush()
                self.server.link.serve_arrived()
            self._take_answers(now)
        except EOFError as error:
            self._lose_server(error)
        except Exception as error:
            self._lose_server(EOFError(f"it sent what no server of a pool does: {error!r}"))
        if self.pipeline is not None and self.pipeline.worker.link.fileno() in arrived:
            self._serve_worker(self.pipeline, now)
        self._tick(now)

    def free(self) -> None:
        """Give the worker back."""
        self.server.free(self.port, finished=self._finished, failed=self._failed)
        self.state = State.CLOSED
        pipeline, self.pipeline = self.pipeline, None
        if pipeline is not None:
            try:
                pipeline.worker.link.wait_again()
                pipeline.worker.close_reader()
                self._connections.put_worker(self.port, pipeline.worker)
            except EOFError as error:
                log.debug("the worker on port %d has died after its last task: %s", self.port, error)
                pipeline.worker.close()
        self._put_server()

    def close(self) -> list[Task]:
        """End both connections. The tasks that were on the worker, and may have begun."""
        self.state = State.CLOSED
        self.server.close()
        pipeline, self.pipeline = self.pipeline, None
        return [] if pipeline is None else [task for some in pipeline.break_off(None) for task in some]

    # Its steps

    def _take_answers(self, now: float) -> None:
        """Take in the server's answers, if they are here."""
        if self.state is State.WAITING and self._acquiring.is_here:
            try:
                self.port = self.server.port_in(self._acquiring)
                self.state = State.CLOSED if self.port == -1 else State.CONNECTING
            except ServerUnavailable as error:
                self.error = error
                self.state = State.CLOSED
            if self.state is State.CLOSED:
                self._put_server()
        elif self.state is State.ENDING and self._recycling is not None and self._recycling.is_here:
            self._take_ending(self._recycling, now)
        elif self._keeping is not None and self._keeping.is_here:
            answer, self._keeping = self._keeping, None
            self._kept_at = now
            if self.pipeline is not None and int(answer.value) < 0:
                self.pipeline.is_dead = True
            self.has_to_yield |= int(answer.value) != 0

    def _serve_worker(self, pipeline: Pipeline, now: float) -> None:
        try:
            for task, outcome in pipeline.outcomes(now):
                if not task.parcel.flags & INITIALIZER:
                    finished, failed = outcome.counts(task.count)
                    self._finished += finished
                    self._failed += failed
                    self._has_run = True
                self.has_done_something = True
                task.complete(outcome)
        except Broken as broken:
            if self.state is State.WORKING:
                self._break(broken)

    def _tick(self, now: float) -> None:
        if self.state is State.ENDING:
            self._recycle(now)
            if now - self._broke_at > RECYCLED_S:
                self._lose_server(EOFError("it does not answer"))
        if self.state is State.WAITING and self._left_at is not None and now - self._left_at > RECYCLED_S:
            self.state = State.CLOSED
            self.server.close()
        if self.state is not State.WORKING or self.pipeline is None:
            return
        if self.pipeline.tick(now) is not None:
            # It may have ended in time, and this thread was held up.
            self._serve_worker(self.pipeline, now)
            broken = self.pipeline.tick(now)
            if broken is not None and self.state is State.WORKING:
                self._break(broken)
        is_due = now - self._kept_at > (TICK_S if self._finished + self._failed else LOOK_S)
        if self.state is State.WORKING and self.load and self._keeping is None and is_due:
            self._ask_to_keep()

    def _ask_to_keep(self) -> None:
        """Have the tasks so far counted, and learn who waits."""
        tasks = self._waiting_to_tell(self)
        self._keeping = self.server.ask_to_keep(self.port, self._finished, self._failed, tasks)
        self._finished = self._failed = 0

    def _break(self, broken: Broken) -> None:
        """Have the worker replaced. Its end will tell what it had begun, which is lost, and what not."""
        self._broken, self._broke_at = broken, time.monotonic()
        if self.pipeline is not None:
            self.pipeline.give_up(ends_task=broken.ends_task)
        self.state = State.ENDING
        self._recycle(self._broke_at)

    def _recycle(self, now: float) -> None:
        """Ask for that, once it is known what the function has printed."""
        if self._recycling is None and (self.pipeline is None or self.pipeline.has_shown_all(now)):
            if self._finished + self._failed:
                self._ask_to_keep()
            self._recycling = self.server.ask_to_recycle(self.port, self._broken)

    def _take_ending(self, answer: Answer, now: float) -> None:
        ending = Ending.from_json(answer.value)
        lost_tasks: list[Task] = []
        if self.pipeline is not None:
            self._serve_worker(self.pipeline, now)  # What it had answered before.
            lost_tasks, self.returned = self.pipeline.break_off(ending)
            self.pipeline = None
        self.has_failed = not lost_tasks
        if not lost_tasks:
            log.info("%s", self._broken.unusable(ending))
        self.returned = end_lost(lost_tasks, self._broken, ending) + self.returned
        self.state = State.CLOSED
        self._put_server()

    def _lose_server(self, error: EOFError) -> None:
        self._connections.forget_facts()
        ended = self.server.ended(error)
        if self.state is State.WAITING and not self._is_new:
            log.info("an idle connection to the server had ended (%s)", error)
        else:
            self.error = ended
        self.returned += [task for task in self.close() if task.is_run_again(ended)]

    def _put_server(self) -> None:
        try:
            self.server.link.wait_again()
        except EOFError as error:
            log.debug("a connection to the server has ended: %s", error)
            self.server.close()  # And so it is not kept.
        self._connections.put_server(self.server)
