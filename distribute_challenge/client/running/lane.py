"""One lease in use: a place in the line, then a worker, then one task after another on it.

Only its driver's thread touches it, and never waits here: calls are sent, and their answers taken in when
they arrive. The lease ends by our own word (`free`, `recycle`), or the server connection is closed.
"""

from __future__ import annotations

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
from distribute_challenge.client.running.place import Place
from distribute_challenge.client.running.state import State
from distribute_challenge.client.tasks.task import Task, end_lost
from distribute_challenge.errors import ServerUnavailable
from distribute_challenge.wire.link import Answer

log = logging.getLogger(__name__)

TICK_S = 0.1  # How often it has tasks counted, and learns who waits.


class Lane:
    """One lease. `pipeline` holds the tasks on the worker, once there is a connection to it."""

    def __init__(
        self,
        connections: Connections,
        server: ServerConnection,
        waiting: Callable[[], tuple[int, bytes]],  # tasks, and the executor that has them
        *,
        is_new: bool,
        max_tasks: int | None,
        port: int | None = None,
        waits: bool = True,
    ) -> None:
        """`port` is that of a worker which is leased already; else it asks for one, and `waits` or not."""
        self.state = State.WAITING if port is None else State.CONNECTING
        self.server = server
        self.pipeline: Pipeline | None = None
        self.port = -1 if port is None else port
        self.found_none = False  # It has asked for a worker that is free, and there was none.
        self.is_connecting = self.has_to_yield = self.has_done_something = False
        self.has_failed = False  # Its worker had to be replaced before it could run anything.
        self.returned: list[Task] = []  # to be run elsewhere
        self.error: BaseException | None = None  # why this lane could do nothing, if that concerns all tasks
        self._connections, self._distance = connections, connections.distance
        self._waiting, self._is_new = waiting, is_new
        self._max_functions = max_tasks or math.inf
        self._keeping: Answer | None = None
        self._recycling: Answer | None = None
        self._broken, self._broke_at, self._to_stop = Broken(""), 0.0, b""
        self._has_run = False  # any task but the initializer
        self._finished = self._failed = 0  # since they were last counted
        self._asked_at = self._kept_at = time.monotonic()
        server.link.never_wait()
        tasks = waiting() if waits else None
        self._place = Place(server, self._distance, tasks) if port is None else None

    def links(self) -> list[tuple[int, bool]]:
        """The descriptors that it waits for, and whether it also waits to write there."""
        links = [(self.server.link.fileno(), self.server.link.has_unsent)]
        if self.pipeline is not None:
            links.append((self.pipeline.worker.link.fileno(), self.pipeline.has_unsent))
        return [link for link in links if link[0] >= 0]

    @property
    def worker(self) -> WorkerConnection:
        """The connection to the worker, once it is working."""
        return self.pipeline.worker  # type: ignore[union-attr]

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
        return (
            min(TICK_S, self.pipeline.due_s(now, self._distance.round_trip_s)) if self.pipeline else math.inf
        )

    @property
    def is_in_line(self) -> bool:
        """Whether it will have a worker, however long that takes."""
        return self._place is not None and self._place.waits

    def leave_line(self, now: float) -> None:
        """Stand in line no longer: there is nothing to do."""
        if self._place is not None:
            self._place.leave(now)

    def can_take(self, task: Task, now: float) -> bool:
        """Whether a task may be sent now, perhaps ahead of its turn. An idle lane asks the server first."""
        if self.state is not State.WORKING or self.pipeline is None:
            return False
        round_trip_s = self._distance.round_trip_s
        if self.load:
            return not self.has_to_yield and self.pipeline.can_send_ahead(task, now, round_trip_s)
        # Who has prepared a worker runs something there, whoever waits: or it could be prepared for ever.
        if not self._has_run:
            return True
        if self.has_to_yield or now - self._kept_at < TICK_S + 2 * round_trip_s:
            return not self.has_to_yield
        if self._keeping is None:
            self._ask_to_keep()  # Somebody may have come to wait meanwhile.
        return False

    def take(self, task: Task) -> None:
        """Send a task to the worker, at the next `flush`."""
        assert self.pipeline is not None
        self.pipeline.send(task, self._distance.round_trip_s)
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
            self.state = State.WORKING
            self._kept_at = time.monotonic()
        elif isinstance(worker, Broken):
            self._break(worker)
        else:
            self.error = worker
            self.free()

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
        if self.pipeline is not None:
            self.pipeline.worker.close_reader()
            self._connections.put_worker(self.port, self.pipeline.worker)
        self.pipeline = None
        self._connections.put_server(self.server)

    def close(self) -> list[Task]:
        """End both connections. The tasks that were on the worker, and may have begun."""
        self.state, self._place = State.CLOSED, None
        self.server.close()
        pipeline, self.pipeline = self.pipeline, None
        return [] if pipeline is None else [task for some in pipeline.break_off(None) for task in some]

    def _take_answers(self, now: float) -> None:
        """Take in the server's answers, if they are here."""
        if self._place is not None:
            self._take_port(self._place, now)
        if self.state is State.ENDING and self._recycling and self._recycling.is_here:
            self._take_ending(self._recycling, now)
        if self._keeping is not None and self._keeping.is_here:
            waiting, self._keeping = int(self._keeping.value), None
            self._distance.note(now - self._asked_at)
            if self.pipeline is not None:
                self.pipeline.is_dead |= waiting < 0
            # Who has only told how many tasks wait has its whole turn all the same.
            if waiting < 0 or self._asked_at - self._kept_at >= TICK_S:
                self._kept_at = now
                self.has_to_yield |= waiting != 0

    def _take_port(self, place: Place, now: float) -> None:
        try:
            port = place.port(now)
        except ServerUnavailable as error:
            port, self.error = -1, error
        if port is None:
            return
        self._place, self.port = None, port
        self.state = State.CONNECTING if port != -1 else State.CLOSED
        if port == -1:
            self.found_none = not place.waits
            self._connections.put_server(self.server)

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
        if self.state is not State.WORKING or self.pipeline is None:
            return
        if self.pipeline.tick(now) is not None:
            # It may have ended in time, and this thread was held up.
            self._serve_worker(self.pipeline, now)
            broken = self.pipeline.tick(now)
            if broken is not None and self.state is State.WORKING:
                self._break(broken)
        # Far away it asks also without news, so that the next task need not wait for the answer.
        has_news = self._finished + self._failed or self._distance.round_trip_s
        is_due = self.load and now - self._kept_at > (TICK_S if has_news else LOOK_S)
        if is_due and self.state is State.WORKING and self._keeping is None:
            self._ask_to_keep()

    def _ask_to_keep(self) -> None:
        """Have the tasks so far counted, tell how many more wait, and learn who does."""
        self._asked_at = time.monotonic()
        self._keeping = self.server.ask_to_keep(self.port, self._finished, self._failed, *self._waiting())
        self._finished = self._failed = 0

    def _break(self, broken: Broken) -> None:
        """Have the worker replaced. Its end will tell what it had begun, which is lost, and what not."""
        self._broken, self._broke_at = broken, time.monotonic()
        self._to_stop = b"" if self.pipeline is None else self.pipeline.give_up(ends_task=broken.ends_task)
        self.state = State.ENDING
        self._recycle(self._broke_at)

    def _recycle(self, now: float) -> None:
        """Ask for that, once it is known what the function has printed."""
        if self._recycling is None and (self.pipeline is None or self.pipeline.has_shown_all(now)):
            if self._finished + self._failed:
                self._ask_to_keep()
            self._recycling = self.server.ask_to_recycle(self.port, self._broken, self._to_stop)

    def _take_ending(self, answer: Answer, now: float) -> None:
        self._recycling = None
        if not answer.value and self.pipeline is not None:
            self.state = State.WORKING
            self.pipeline.go_on()
            return
        ending = Ending.from_json(answer.value)
        stopped: list[Task] = []
        begun: list[Task] = []
        if self.pipeline is not None:
            self._serve_worker(self.pipeline, now)  # What it had answered before.
            stopped, begun, self.returned = self.pipeline.break_off(ending)
            self.pipeline = None
        if not (stopped or begun):
            self.has_failed = True
            log.info("%s", self._broken.unusable(ending))
        self.returned = end_lost(stopped, begun, self._broken, ending) + self.returned
        self.state = State.CLOSED
        self._connections.put_server(self.server)

    def _lose_server(self, error: EOFError) -> None:
        self._connections.doubt_facts()
        ended = self.server.ended(error)
        if self.pipeline is not None:  # What it has answered counts.
            self.state = State.ENDING
            self._serve_worker(self.pipeline, time.monotonic())
        if self.state is State.WAITING and not self._is_new:
            log.info("an idle connection to the server had ended (%s)", error)
        else:
            self.error = ended
        self.returned += [task for task in self.close() if task.is_run_again(ended)]
