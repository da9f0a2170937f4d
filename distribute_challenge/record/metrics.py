"""What the pool does, as Prometheus asks for it: the format, and the port on which it is served.

`prometheus_client` (the extra [metrics]) writes the text. The counts are kept here, since a row of the tasks
file may stand for thousands of functions, which its histograms would take one by one.

    compute_workers{state}                  how many are free, leased, starting
    compute_tasks_total{function,status}    the first 50 functions by name, and then `other`
    compute_task_duration_seconds           histogram; of functions that went together, their mean
    compute_task_wait_seconds               histogram, of tasks whose client said since when they waited
    compute_clients_waiting                 in line
    compute_tasks_waiting                   of those, and of clients whose lease goes on
    compute_worker_cpu_seconds_total{worker}  its child processes included; `worker` is the port
    compute_worker_memory_bytes{worker}     when it was last measured
    compute_workers_lost_total{reason}      timeout, killed, client, memory, exit, or the name of a signal
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

log = logging.getLogger(__name__)

# As RPyC's authenticators: takes the socket of a connection, gives the one to use and who is there.
Admit = Callable[[socket.socket], tuple[socket.socket, Any]]

MAX_FUNCTIONS = 50
OTHER = "other"
STATES = ("free", "leased", "starting")
BOUNDS_S = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0),
    float("inf"),
)
TIMEOUT_S = 5.0  # Who asks has so long for each step.


class Histogram:
    """How often times were within some bounds.

    >>> histogram = Histogram()
    >>> histogram.add(0.002, 3)
    >>> histogram.buckets()[:3], histogram.sum
    ([('0.001', 0), ('0.003', 3), ('0.01', 3)], 0.006)
    """

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * len(BOUNDS_S)

    def add(self, seconds: float, count: int) -> None:
        """So many took that long."""
        self._counts[bisect.bisect_left(BOUNDS_S, seconds)] += count
        self.sum += seconds * count

    def buckets(self) -> list[tuple[str, int]]:
        """Each bound, and how many took no longer."""
        return list(zip(map(floatToGoString, BOUNDS_S), itertools.accumulate(self._counts), strict=True))


class Metrics(Collector):
    """The counts of a pool. `status` gives its state, as that call; `cpu_seconds` one for each worker."""

    def __init__(self, status: Callable[[], dict[str, Any]], cpu_seconds: Callable[[], list[float]]) -> None:
        self._status = status
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()  # guards all that follows
        self._tasks: Counter[tuple[str, str]] = Counter()
        self._functions: set[str] = set()
        self._duration, self._wait = Histogram(), Histogram()

    def add(self, function: str, status: str, count: int, seconds: float, wait_s: float | None) -> None:
        """So many functions have ended, in `seconds` together, `wait_s` after their client had them."""
        with self._lock:
            if function not in self._functions:
                if len(self._functions) < MAX_FUNCTIONS:
                    self._functions.add(function)
                else:
                    function = OTHER
            self._tasks[function, status] += count
            self._duration.add(max(seconds, 0) / count, count)
            if wait_s is not None:
                self._wait.add(max(wait_s, 0), count)

    def collect(self) -> Iterator[Metric]:
        """All of it, now."""
        status, cpu_seconds = self._status(), self._cpu_seconds()
        workers = GaugeMetricFamily("compute_workers", "Workers, by what they are.", labels=["state"])
        states = Counter(worker["state"] for worker in status["workers"])
        for state in STATES:
            workers.add_metric([state], states[state])
        yield workers
        tasks = CounterMetricFamily(
            "compute_tasks", "Functions that have ended, by how.", labels=["function", "status"]
        )
        with self._lock:
            for labels, count in self._tasks.items():
                tasks.add_metric(labels, count)
            run, wait = ((it.buckets(), it.sum) for it in (self._duration, self._wait))
        yield tasks
        yield HistogramMetricFamily("compute_task_duration_seconds", "How long functions ran.", *run)
        about = "How long they waited, from when their client had them."
        yield HistogramMetricFamily("compute_task_wait_seconds", about, *wait)
        yield GaugeMetricFamily("compute_clients_waiting", "Clients in line.", value=status["waiting"])
        about = "Tasks that clients have waiting."
        yield GaugeMetricFamily("compute_tasks_waiting", about, value=status["tasks"])
        cpu = CounterMetricFamily(
            "compute_worker_cpu_seconds", "Processor time, child processes included.", labels=["worker"]
        )
        memory = GaugeMetricFamily(
            "compute_worker_memory_bytes", "Resident memory, child processes included.", labels=["worker"]
        )
        for worker, seconds in zip(status["workers"], cpu_seconds, strict=True):
            cpu.add_metric([str(worker["port"])], seconds)
            if worker["memory"] is not None:
                memory.add_metric([str(worker["port"])], worker["memory"])
        yield cpu
        yield memory
        about = "Workers that died or were killed."
        lost = CounterMetricFamily("compute_workers_lost", about, labels=["reason"])
        for reason, number in status["lost"].items():
            lost.add_metric([reason], number)
        yield lost


def hang_up(sock: socket.socket) -> None:
    """End a connection, in whatever state it is."""
    with contextlib.suppress(OSError):  # It has ended.
        sock.shutdown(socket.SHUT_RDWR)


class MetricsServer(HTTPServer):
    """Answers one request after another, so that who asks can take nothing from the pool but a moment."""

    def __init__(self, listener: socket.socket, metrics: Metrics, admit: Admit | None) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(metrics)
        super().__init__(
            listener.getsockname()[:2], MetricsHandler.factory(registry), bind_and_activate=False
        )
        self.socket.close()
        self.socket = listener
        self._admit = admit

    def start(self) -> None:
        """Answer from now on, in a thread of its own."""
        threading.Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, with a limit of time."""
        sock, peer = self.socket.accept()
        if self._admit is not None:
            try:
                sock, _ = self._admit(sock)
            except Exception as error:
                sock.close()
                raise OSError(f"{peer} is not let in: {error}") from None  # The loop goes on.
        sock.settimeout(TIMEOUT_S)
        return sock, peer

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer, or hang up on who takes long to ask: others wait."""
        limit = threading.Timer(TIMEOUT_S, hang_up, (request,))
        limit.daemon = True
        limit.start()
        try:
            super().finish_request(request, client_address)
        finally:
            limit.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  The signature is its own.
        """Somebody has hung up, say."""
        log.debug("a request for metrics of %s has failed", client_address, exc_info=True)
