"""Keeps the workers alive: each has a keeper, a thread that starts its process and replaces it when it ends.

It decides nothing about leases; it tells the dispatcher what became of workers.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from distribute_challenge.address import WORKER_VARIABLE, Address
from distribute_challenge.calls.ending import Ending
from distribute_challenge.record.profile import Usage
from distribute_challenge.record.tasks import LOST, CutOff
from distribute_challenge.server.dispatcher import Dispatcher
from distribute_challenge.server.workers.process import WorkerProcess
from distribute_challenge.server.workers.template import Template, TemplateEndedError
from distribute_challenge.tls import Tls

log = logging.getLogger(__name__)

START_S = 60.0  # A worker that has not answered by then is given up.
MAX_FAILED_STARTS = 5  # in a row
MAX_PAUSE_S = 30.0


class Supervisor:
    """Runs one worker on each of the `listeners`."""

    def __init__(
        self,
        template: Template,
        listeners: Sequence[socket.socket],
        server: Address,
        tls: Tls | None,
        on_failure: Callable[[str], None],
        worker_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        start_s: float = START_S,
    ) -> None:
        self._template = template
        self._listeners = listeners
        self._server = server
        self._tls = tls
        self._on_failure = on_failure
        self._worker_options = worker_options
        self._environment = environment or {}
        self._start_s = start_s
        # Called with the number of a worker whose process has ended, and that process, by its keeper.
        self.on_gone: Callable[[int, WorkerProcess], None] = lambda _worker, _process: None
        self._lock = threading.Lock()  # guards the one below: no process starts once stopping is decided
        self._processes: list[WorkerProcess | None] = [None] * len(listeners)
        self._counting = threading.Lock()  # guards the one below
        self._losses: Counter[str] = Counter()
        self.problems: list[str | None] = [None] * len(listeners)  # why each cannot be started, if it cannot
        self._is_stopping = threading.Event()
        self._keepers: list[threading.Thread] = []

    def start(self, observer: Dispatcher) -> None:
        """Start every worker. `observer` hears when each is up; `on_failure`, why one cannot start at all."""
        for worker, listener in enumerate(self._listeners):
            name = f"keeper of worker {listener.getsockname()[1]}"
            keeper = threading.Thread(target=self._keep, args=(worker, observer), name=name, daemon=True)
            self._keepers.append(keeper)
            keeper.start()

    def process(self, worker: int) -> WorkerProcess | None:
        """The worker's latest process."""
        return self._processes[worker]

    def has_run(self, worker: int) -> bool:
        """Whether the worker's latest process has begun any call."""
        process = self._processes[worker]
        return process is not None and any(process.flight.last_begun)

    def processes(self) -> list[WorkerProcess | None]:
        """Each worker's latest process; None where there has been none yet."""
        return list(self._processes)

    def kill_the_greedy(self, limit_bytes: int, pids: Sequence[int | None], usages: Sequence[Usage]) -> None:
        """Kill the workers that take more memory than they may; what they share with children counts once."""
        from distribute_challenge.record.meter import proportional_bytes  # Late: see the sampler.

        for process, pid, usage in zip(self.processes(), pids, usages, strict=True):
            if process is None or process.pid != pid or (usage.memory_bytes or 0) <= limit_bytes:
                continue
            if (taken := proportional_bytes(pid)) > limit_bytes:
                limit = f"--memory-limit is {limit_bytes / 2**20:.0f} MiB"
                process.stop_function(f"it took {taken / 2**20:.0f} MiB, and {limit}")

    def losses(self) -> dict[str, int]:
        """How many workers were lost, by `WorkerProcess.loss`."""
        with self._counting:
            return dict(self._losses)

    def stop(self) -> None:
        """Kill every worker, and wait until all are gone."""
        self._is_stopping.set()
        self._template.hang_up()
        with self._lock:
            processes = list(self._processes)
        for process in filter(None, processes):
            process.kill(end=CutOff(LOST, "WorkerLost: the server stopped"))
        for keeper in self._keepers:
            keeper.join()
        self._template.close()

    def _keep(self, worker: int, observer: Dispatcher) -> None:
        try:
            self._keep_alive(worker, observer)
        except Exception as error:  # Without its keeper a worker would stay away, and nobody would know why.
            log.exception("the keeper of worker %d failed", worker)
            self._on_failure(f"the keeper of a worker failed: {error!r}")

    def _keep_alive(self, worker: int, observer: Dispatcher) -> None:
        failed_starts, was_up = 0, False
        while not self._is_stopping.wait(_pause_s(failed_starts)):
            problem, is_over = None, False
            try:
                process = self._start(worker)
            except TemplateEndedError as error:
                if not self._is_stopping.is_set():
                    log.warning("%s: workers take longer to start now", error.strerror)
                continue
            except OSError as error:  # Out of descriptors or processes, say: that may pass.
                failed_starts, problem = failed_starts + 1, f"cannot start a worker: {error}"
                is_over = not was_up and failed_starts >= MAX_FAILED_STARTS
            else:
                if process is None:
                    return
                is_up = process.watch(ready_within_s=self._start_s)
                if is_up:
                    was_up, self.problems[worker] = True, None
                    observer.worker_up(worker)
                    process.watch()
                ending = process.bury()
                # Once it has been up, who kills it while it starts does not prove that it cannot start.
                is_someones = was_up and ending.signal and not ending.reason
                failed_starts = 0 if is_up else 1 if is_someones else failed_starts + 1
                if is_up and process.loss and not self._is_stopping.is_set():
                    with self._counting:
                        self._losses[process.loss] += 1
                self.on_gone(worker, process)
                observer.worker_down(worker, process)
                log.info("%s", ending)
                is_over = failed_starts >= MAX_FAILED_STARTS or bool(ending.reason and not is_up)
                problem = _explain(ending, failed_starts) if is_over else None
                turn_away_callers(self._listeners[worker])
            if problem is not None:
                self.problems[worker] = problem
                # As while an upgrade is under way: others may still run functions.
                others = self.problems[:worker] + self.problems[worker + 1 :]
                if is_over and (not was_up or None not in others):
                    self._on_failure(problem)
                    return
                log.error("cannot replace a worker yet, and try again: %s", problem)

    def _start(self, worker: int) -> WorkerProcess | None:
        """A new process; None if the pool is stopping. Raises OSError."""
        with self._lock:
            if self._is_stopping.is_set():
                return None
            environment = {**self._environment, WORKER_VARIABLE: str(worker)}
            how = (self._server, self._tls, self._worker_options, environment)
            process = WorkerProcess(self._template, self._listeners[worker], *how)
            self._processes[worker] = process
            return process


def _pause_s(failed_starts: int) -> float:
    """How long to wait before the next start: not at all, unless the last one failed."""
    return min(0.1 * 2 ** min(failed_starts, 20), MAX_PAUSE_S) if failed_starts else 0


def turn_away_callers(listener: socket.socket) -> None:
    """Close the connections that were made to a worker that has ended, lest its successor serves them."""
    listener.setblocking(False)
    try:
        while True:
            listener.accept()[0].close()
    except OSError as error:  # Most likely BlockingIOError: that was all.
        log.debug("no more callers to turn away: %s", error)
    finally:
        listener.setblocking(True)


def _explain(ending: Ending, times: int) -> str:
    last = [line.strip() for line in [*ending.last_lines, *ending.stack][-3:]] or ["it printed nothing"]
    so_often = "once" if times == 1 else f"{times} times"
    return f"a worker ended {so_often} before it was ready ({ending}): {'; '.join(last)}"
