"""The server's calls. They take plain values, checked by exact type: a remote reference can lie about its."""

from __future__ import annotations

import json
import logging
import platform
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import rpyc

from distribute_challenge.record.profile import Clock
from distribute_challenge.record.sampler import Sampler
from distribute_challenge.record.tasks import KILLED, LOST, TIMEOUT, CutOff
from distribute_challenge.server.caller import Caller, Clients
from distribute_challenge.server.dispatcher import Dispatcher
from distribute_challenge.server.workers.process import WorkerProcess
from distribute_challenge.server.workers.supervisor import Supervisor
from distribute_challenge.wire.serving import Served

log = logging.getLogger(__name__)

MAX_COUNT = 1 << 53
MAX_SECONDS = 1e9
MAX_PROGRAM = 64  # bytes
ENDING_TIMEOUT_S = 5
_MOST_TOLD = 5
STACK_TIMEOUT_S = 2
_ERRORS = {TIMEOUT: "TaskTimeout", KILLED: "CancelledError", LOST: "WorkerLost"}


@dataclass(frozen=True)
class PoolState:
    """The state that all calls work on: the dispatcher, the workers' ports, and the status."""

    dispatcher: Dispatcher
    supervisor: Supervisor
    sampler: Sampler
    ports: list[int]
    fixed: dict[str, Any]  # what `status` tells of it that never changes
    started: float = field(default_factory=time.monotonic)
    clients: Clients = field(default_factory=Clients)
    clock: Clock = field(default_factory=Clock)

    def status(self) -> dict[str, Any]:
        """The workers, the counts, and what is fixed."""
        states, counts = self.dispatcher.snapshot()
        told = zip(self.ports, self.supervisor.processes(), states, self.sampler.latest, strict=True)
        workers: list[dict[str, Any]] = [
            {
                "port": port,
                "pid": None if process is None else process.pid,
                "state": state,
                "cpu": usage.cpu_percent,
                "memory": usage.memory_bytes,
                "running": [] if process is None or state == "starting" else self._running(process),
            }
            for port, process, state, usage in told
        ]
        for worker, problem in zip(workers, self.supervisor.problems, strict=True):
            if problem is not None:
                worker["problem"] = problem
        counts["lost"] = self.supervisor.losses()
        times = {"uptime": round(time.monotonic() - self.started, 3), "now": round(self.clock.now(), 3)}
        return {"python": platform.python_version(), **self.fixed, "workers": workers, **counts, **times}

    def _running(self, process: WorkerProcess) -> list[dict[str, Any]]:
        """The functions that run on a worker: each but the first within another one."""
        return [
            {"function": call.function, "client": call.client, "since": round(self.clock.at(call.started), 3)}
            for call in process.flight.running()
        ]

    def work(self) -> str:
        """The functions on workers that somebody holds, for a message; empty if there are none."""
        states, _ = self.dispatcher.snapshot()
        held = [worker for worker, state in enumerate(states) if state == "leased"]
        told = []
        for worker in held[:_MOST_TOLD]:
            function, port = self.function_on(worker), self.ports[worker]
            told.append(f"{function} (worker {port})" if function else f"a client that holds worker {port}")
        more = [f"{len(held) - _MOST_TOLD} more"] if len(held) > _MOST_TOLD else []
        return ", ".join(told + more)

    def function_on(self, worker: int) -> str:
        """Which function a worker runs, and whose, for a message; empty if none."""
        process = self.supervisor.process(worker)
        calls = [] if process is None else process.flight.running()
        return f"{calls[0].function} of {calls[0].client}" if calls else ""

    def port(self, worker: int | None) -> int:
        """A worker's port; -1 for none."""
        return -1 if worker is None else self.ports[worker]

    def worker(self, port: object) -> int:
        """The number of the worker on a port. Raises ValueError if there is none."""
        if type(port) is not int:
            raise ValueError(f"a worker's port is an int, not a {type(port).__name__}")
        if port not in self.ports:
            raise ValueError(f"no worker of this pool has the port {port}")
        return self.ports.index(port)


def serve(served: Served) -> None:
    """Serve a client until its connection ends, also since its system does not answer: workers are needed."""
    served.channel.stream.end_if_not_taken()
    served.service.listen_to(served)
    served.serve_all()


class SchedulerService(rpyc.Service):
    """The calls that the server exposes. One instance per connection, which holds its leases."""

    def __init__(self, pool: PoolState) -> None:
        self._pool = pool
        self._dispatcher = pool.dispatcher
        self._caller: Caller

    def on_connect(self, connection: Any) -> None:
        """Called by RPyC before the first request."""
        self._caller = Caller(threading.current_thread().name, connection.fileno(), self._pool.clients)

    def listen_to(self, served: Served) -> None:
        """Where its client's messages come from, also while it waits in line."""
        self._caller.next_call = served.next_call
        self._caller.is_silent = served.channel.stream.is_peer_silent

    def on_disconnect(self, connection: Any) -> None:  # noqa: ARG002  The signature is RPyC's.
        """Called by RPyC when the connection has ended, perhaps twice."""
        self._dispatcher.abandon(self._caller)
        self._caller.close()

    def exposed_find_free_worker(self) -> int:
        """Lease the first free worker, at once: its port, or -1."""
        return self._pool.port(self._dispatcher.find(self._caller))

    def exposed_acquire_worker(
        self, timeout: float | None = None, tasks: int = 1, executor: bytes = b""
    ) -> int:
        """Lease a worker, waiting in line for it: its port, or -1 after `timeout` seconds.

        The client has so many tasks that wait for one; those of an executor are the same on each of its
        connections.
        """
        worker = self._dispatcher.acquire(self._caller, seconds(timeout), count(tasks), executor_id(executor))
        return self._pool.port(worker)

    def exposed_leave_line(self) -> None:
        """Have this connection's `acquire_worker`, if it waits in line, return -1: no worker is needed."""
        # That one has seen it come, and has returned: see `Caller.wants_no_worker`.

    def exposed_free_worker(self, port: int, finished: int = 1, failed: int = 0) -> None:
        """End the lease."""
        self._dispatcher.free(self._caller, self._pool.worker(port), count(finished), count(failed))

    def exposed_keep_worker(
        self, port: int, finished: int = 0, failed: int = 0, tasks: int = 0, executor: bytes = b""
    ) -> int:
        """Count tasks of a lease that goes on; how many clients wait, or -1 if the worker has died meanwhile.

        The client has so many more tasks, all of an executor as in `acquire_worker`.
        """
        counts = count(finished), count(failed), count(tasks)
        return self._dispatcher.keep(self._caller, self._pool.worker(port), *counts, executor_id(executor))

    def exposed_recycle_worker(
        self, port: int, reason: str, status: str | None = None, call: bytes = b""
    ) -> str:
        """End the lease, and replace the worker; JSON on how its process ended.

        `status` is what that means for the function, in the record: timeout, killed or lost. Who does not say
        has had one run: that is counted, also if the worker knows of none. With the id of a `call`, only that
        one is to be stopped: if it has ended meanwhile, the lease goes on, and the answer is empty.
        """
        if type(reason) is not str:
            raise ValueError("the reason must be a str")
        least, status = (1, LOST) if status is None else (0, status)
        if type(status) is not str or status not in _ERRORS:
            raise ValueError(f"the status must be one of {', '.join(_ERRORS)}")
        if type(call) is not bytes:
            raise ValueError("a call is told apart by its id, which is bytes")
        worker = self._pool.worker(port)
        process = self._pool.supervisor.process(worker)
        # That takes its time. First, or what is to be stopped may end meanwhile, and the next one begin.
        stack = [] if process is None or status == LOST else process.stack()
        if call and process is not None and process.has_ended_call(call):
            return ""
        memory_bytes = self._pool.sampler.latest[worker].memory_bytes  # when it was last measured
        end = CutOff(status, f"{_ERRORS[status]}: {reason}")
        under = f" under {function}" if (function := self._pool.function_on(worker)) else ""
        lost, others, counted = self._dispatcher.recycle(self._caller, worker, end, stack)
        ending = lost.ending(ENDING_TIMEOUT_S)
        begun = sum(one.flight.functions for one in (lost, *others))
        self._dispatcher.count(0, max(begun - counted, least))
        # Its client may have run something on any of them.
        last_calls = [*ending.last_calls, *(one.last_call() for one in others)]
        ending = replace(ending, memory_bytes=memory_bytes, last_calls=last_calls)
        told = (self._caller, ending.worker, ending.how, under, reason)
        log.warning("%s has had %s replaced (%s)%s; its reason: %.500s", *told)
        return ending.to_json()

    def exposed_introduce(self, program: bytes) -> None:
        """This connection belongs to that program: with --fresh it shares workers with its others."""
        if type(program) is not bytes or not 0 < len(program) <= MAX_PROGRAM:
            raise ValueError(f"a program is told apart by bytes, 1 to {MAX_PROGRAM} of them")
        self._caller.program = program

    def exposed_stack(self, port: int) -> str:
        """The Python stack of the function that a worker runs, innermost frame first; empty if none runs.

        Raises RuntimeError if the worker does not say.
        """
        process = self._pool.supervisor.process(self._pool.worker(port))
        if process is None or not process.flight.running():
            return ""
        frames = process.stack(STACK_TIMEOUT_S)
        if not frames and process.flight.running():
            raise RuntimeError(
                f"worker {port} does not say where its function is: it was stopped, waits in the system, or "
                f"keeps signals off (see the state of process {process.pid} with ps)"
            )
        return "\n".join(frames)

    def exposed_status(self) -> str:
        """JSON on the workers and the counts."""
        return json.dumps(self._pool.status())


def count(number: object) -> int:
    """A number of tasks. Raises ValueError if it is none."""
    if type(number) is not int or not 0 <= number <= MAX_COUNT:
        raise ValueError("finished, failed and tasks are counts: int, 0 or more")
    return number


def executor_id(executor: object) -> bytes:
    """What tells an executor apart; empty for none. Raises ValueError if it is no such thing."""
    if type(executor) is not bytes or len(executor) > MAX_PROGRAM:
        raise ValueError(f"an executor is told apart by bytes, at most {MAX_PROGRAM} of them")
    return executor


def seconds(timeout: object) -> float | None:
    """A time limit, or None for none. Raises ValueError if it is neither."""
    if timeout is None:
        return None
    if (type(timeout) is int or type(timeout) is float) and timeout >= 0:
        return float(min(timeout, MAX_SECONDS))
    raise ValueError("timeout is a number of seconds, 0 or more, or None")
