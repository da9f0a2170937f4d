"""Keeps the workers alive: each has a keeper, a thread that starts its process and replaces it when it ends.

The listening sockets belong to the server, bound once, so that no port can be lost while its worker is
being replaced. The supervisor decides nothing about leases; it tells an observer what became of workers.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from distribute_challenge.address import Address
from distribute_challenge.server.process import Ending, WorkerProcess

log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 5  # in a row


class Observer(Protocol):
    """Who is told when a worker's process comes and goes."""

    def worker_up(self, worker: int, process: WorkerProcess) -> None:
        """The process answers."""

    def worker_down(self, worker: int, process: WorkerProcess) -> None:
        """The process has ended."""


class Supervisor:
    """Runs one worker on each of the `listeners`."""

    def __init__(
        self, listeners: Sequence[socket.socket], server: Address, on_failure: Callable[[str], None]
    ) -> None:
        self._listeners = listeners
        self._server = server
        self._on_failure = on_failure
        self._lock = threading.Lock()  # guards the two below: no process starts once stopping is decided
        self._processes: list[WorkerProcess | None] = [None] * len(listeners)
        self._is_stopping = False
        self._keepers: list[threading.Thread] = []

    def start(self, observer: Observer) -> None:
        """Start every worker. `observer` hears when each is up; `on_failure`, why one cannot start at all."""
        for worker, listener in enumerate(self._listeners):
            name = f"keeper of worker {listener.getsockname()[1]}"
            keeper = threading.Thread(target=self._keep, args=(worker, observer), name=name, daemon=True)
            self._keepers.append(keeper)
            keeper.start()

    def process(self, worker: int) -> WorkerProcess | None:
        """The worker's latest process."""
        return self._processes[worker]

    def stop(self) -> None:
        """Kill every worker, and wait until all are gone."""
        with self._lock:
            self._is_stopping = True
            processes = list(self._processes)
        for process in processes:
            if process is not None:
                process.kill()
        for keeper in self._keepers:
            keeper.join()

    def _keep(self, worker: int, observer: Observer) -> None:
        failed_starts = 0
        while (process := self._start(worker)) is not None:
            if process.await_ready():
                failed_starts = 0
                observer.worker_up(worker, process)
                process.await_end()
            elif not process.is_condemned:
                failed_starts += 1
            ending = process.bury()
            observer.worker_down(worker, process)
            # A client may see the end of a process first, and have it condemned when it is dead already.
            was_killed_by_us = self._is_stopping or (process.is_condemned and ending.signal == "SIGKILL")
            is_news = process.is_ready and not was_killed_by_us
            log.log(logging.WARNING if is_news else logging.INFO, "lost %s", ending)
            if failed_starts >= MAX_FAILED_STARTS:
                self._on_failure(_explain(ending))
                return
            turn_away_callers(self._listeners[worker])

    def _start(self, worker: int) -> WorkerProcess | None:
        with self._lock:
            if self._is_stopping:
                return None
            try:
                process = WorkerProcess(self._listeners[worker], self._server)
            except OSError as error:
                self._on_failure(f"cannot start a worker: {error}")
                return None
            self._processes[worker] = process
            return process


def turn_away_callers(listener: socket.socket) -> None:
    """Close the connections that were made to a worker that has ended, lest its successor serves them."""
    listener.setblocking(False)
    try:
        while True:
            listener.accept()[0].close()
    except BlockingIOError:
        return
    finally:
        listener.setblocking(True)


def _explain(ending: Ending) -> str:
    last = "; ".join(line.strip() for line in ending.last_lines[-3:]) or "it printed nothing"
    return f"a worker ended {MAX_FAILED_STARTS} times before it was ready ({ending}): {last}"
