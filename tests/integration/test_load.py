"""A thousand clients at once: every result right, shares fair, and nothing left over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import psutil

from tests.running import RunningServer, eventually

WORKERS = 64
PROCESSES = 4
THREADS = 250  # in each: a thousand connections to the server at once
CALLS = 4
LIMIT_S = 170

# Each thread is a plain client with a connection of its own to the server. All begin together.
CLIENT = """
import json, sys, threading, time
import rpyc

port, threads, calls = map(int, sys.argv[1:])
no_limit = {"sync_request_timeout": None}
source = "time.sleep(0.01)\\nresult = {0} * {0}"
ends = [[] for _ in range(threads)]
wrong = []
connected = threading.Barrier(threads + 1)
begin = threading.Event()

def client(number):
    scheduler = rpyc.connect("127.0.0.1", port, config=no_limit)
    acquire, free = scheduler.root.acquire_worker, scheduler.root.free_worker
    connected.wait()
    begin.wait()
    for call in range(calls):
        x = number * calls + call
        try:
            lease = acquire()
            worker = rpyc.connect("127.0.0.1", lease, config=no_limit)
            if worker.root.run_code(source.format(x)) != x * x:
                wrong.append("a wrong result")
            worker.close()
            free(lease)
        except Exception as error:
            wrong.append(repr(error))
        ends[number].append(time.monotonic())
    scheduler.close()

running = [threading.Thread(target=client, args=(number,)) for number in range(threads)]
for thread in running:
    thread.start()
connected.wait()
print("ready", flush=True)
sys.stdin.readline()
begin.set()
for thread in running:
    thread.join()
print(json.dumps([ends, wrong[:5]]), flush=True)
"""


def jain(shares: list[int]) -> float:
    """Jain's index of fairness: 1 if all have the same."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def test_a_thousand_clients_on_sixty_four_workers(start_server: Callable[..., RunningServer]):
    server = start_server(WORKERS, "--profile", "none")
    process = psutil.Process(server.pid)
    before = process.num_fds(), process.num_threads(), process.memory_info().rss
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(server.port), str(THREADS), str(CALLS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    answers = [json.loads(client.communicate(timeout=LIMIT_S)[0]) for client in clients]
    assert [wrong for _, wrong in answers] == [[]] * PROCESSES
    ends = [times for threads, _ in answers for times in threads]
    assert [len(times) for times in ends] == [CALLS] * (PROCESSES * THREADS)
    # As long as the first to be done was not, everybody was waiting or working.
    first_done = min(times[-1] for times in ends)
    assert jain([sum(time <= first_done for time in times) for times in ends]) >= 0.95
    status = server.idle_status()
    assert (status["finished"], status["failed"], status["waiting"]) == (PROCESSES * THREADS * CALLS, 0, 0)
    eventually(lambda: process.num_fds() <= before[0] + 4, "descriptors are as before")
    eventually(lambda: process.num_threads() <= before[1] + 2, "threads are as before")
    # The allocator keeps some for each of the threads that there were: 87 KB on Python 3.14.
    assert process.memory_info().rss < before[2] + (128 << 20)
