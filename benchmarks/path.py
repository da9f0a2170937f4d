"""Where the time of a lone call goes: the median of each step, beside a raw RPyC call and a bare echo.

    python benchmarks/path.py [CALLS]

The steps are those of `client/running/lone.py`, one after another, on a server and a worker of their own.
What runs at the same time as a step at the other end counts for nothing here: the free, for one, is sent and
not waited for.
"""

from __future__ import annotations

import collections
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rpyc
from rpyc.utils.server import ThreadedServer

sys.path.insert(0, str(Path(__file__).parents[1]))

from distribute_challenge.address import Address
from distribute_challenge.client.parcels.parcel import Destination
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.connections import Connections
from tests.running import RunningServer

clock = time.perf_counter


class Raw(rpyc.Service):
    """One method that does nothing."""

    def exposed_nothing(self, value: Any) -> Any:
        """What it was given."""
        return value


def serve_raw(pipe: Any) -> None:
    """A stock RPyC server, in a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    server = ThreadedServer(Raw, hostname="127.0.0.1", port=port)
    server._listen()
    pipe.send(port)
    server.start()


def serve_echo(pipe: Any) -> None:
    """What a round trip takes with no protocol at all."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := sock.recv(1 << 15):
        sock.sendall(data)


def nothing(value: Any) -> Any:
    """The function that is called."""
    return value


def main() -> None:
    """Measure, and print a table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    processes, ports = [], []
    for serve in (serve_raw, serve_echo):
        here, there = multiprocessing.Pipe()
        processes.append(multiprocessing.Process(target=serve, args=(there,), daemon=True))
        processes[-1].start()
        ports.append(here.recv())
    raw = rpyc.connect("127.0.0.1", ports[0])
    method = raw.root.nothing
    echo = socket.create_connection(("127.0.0.1", ports[1]))
    echo.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(1, folder=Path(folder))
        try:
            steps = measure(calls, Address.parse(server.address), lambda: method(1), lambda: bounce(echo))
        finally:
            server.close()
    raw.close()
    for process in processes:
        process.kill()
    whole = sum(steps[name] for name in steps if name not in ("a raw RPyC call", "an echo"))
    for name, seconds in [*steps.items(), ("all steps", whole)]:
        print(f"{seconds * 1e6:7.1f} us  {seconds / steps['a raw RPyC call']:5.2f} raw calls  {name}")


def bounce(sock: socket.socket) -> None:
    """One echo."""
    sock.sendall(b"x" * 60)
    sock.recv(1 << 15)


def measure(calls: int, address: Address, raw: Any, echo: Any) -> dict[str, float]:
    """The median seconds of each step."""
    connections = Connections(address)
    python = connections.facts().python
    shipment = Shipment(nothing)
    taken: dict[str, list[float]] = collections.defaultdict(list)
    last = clock()

    def step(name: str) -> None:
        nonlocal last
        now = clock()
        taken[name].append(now - last)
        last = clock()

    for number in range(calls):
        last = clock()
        parcel = shipment.parcel((number,), {}, Destination(python=python))
        step("pickle the arguments; the function is as it was")
        server = connections.take_idle_server()
        assert server is not None
        port = server.acquire()
        step("acquire a worker: there and back")
        worker = connections.take_worker(port)
        answer = worker.start(parcel)
        step("send the call, which wakes the worker")
        while not answer.is_here:
            worker.link.serve_for_a_tick()
        step("the worker wakes, runs it and answers; we wake")
        worker.outcome(shipment.name, parcel, answer).load()
        connections.put_worker(port, worker)
        step("unpickle the result")
        server.free(port, finished=1, failed=0)
        connections.put_server(server)
        step("send the free, which wakes the server")
        if number % 10 == 0:
            for name, call in (("a raw RPyC call", raw), ("an echo", echo)):
                call()
                last = clock()
                for _ in range(5):
                    call()
                    step(name)
    connections.close()
    return {name: statistics.median(times) for name, times in taken.items()}


if __name__ == "__main__":
    main()
