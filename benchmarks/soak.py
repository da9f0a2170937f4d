"""A pool under random kills: every accepted task ends exactly once, and nothing leaks.

    python benchmarks/soak.py [SECONDS]

Client programs call functions of every kind on one server, in every way, while workers and clients are killed
at random. Each function that begins leaves a mark in a file. At the end: every task of the clients that lived
has one end, as the right result or a named error; none ran twice; and the server is as it was at first.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import rpyc

ROOT = Path(__file__).parents[1]
WORKERS = 3
CLIENTS = 4
KILL_WORKER_EVERY_S = 0.7
KILL_CLIENT_EVERY_S = 5.0

CLIENT = """
import json, os, random, sys, time
from distribute_challenge import PoolExecutor, WorkerLost, compute_this

marks, report = sys.argv[1:]

def work(kind, task, marks):
    import os, time
    descriptor = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (task + "\\n").encode())
    os.close(descriptor)
    if kind == "raises":
        raise ValueError(task)
    if kind == "slow":
        time.sleep(0.05)
    if kind == "prints":
        print(task)
    return task

def end_of(call, task, kind):
    try:
        value = call()
    except ValueError as error:
        return "raised" if kind == "raises" and error.args == (task,) else "wrong"
    except WorkerLost:
        return "lost"
    return "returned" if value == task and kind != "raises" else "wrong"

on_pool = compute_this(prints=False)(work)
ends = {}
number = 0
pool = PoolExecutor(prints=False)
while not os.path.exists(report + ".stop"):
    tasks = []
    for _ in range(random.randrange(1, 60)):
        number += 1
        kind = random.choice(["quick", "quick", "slow", "raises", "prints"])
        tasks.append((kind, f"{os.getpid()}-{number}"))
    how = random.choice(["run", "submit", "map"])
    if how == "run":
        for kind, task in tasks[:10]:
            ends[task] = end_of(lambda: on_pool(kind, task, marks).run(), task, kind)
    elif how == "submit":
        futures = [(kind, task, pool.submit(work, kind, task, marks)) for kind, task in tasks]
        for kind, task, future in futures:
            ends[task] = end_of(lambda: future.result(60), task, kind)
    else:
        kinds, names = zip(*tasks)
        results = pool.map(work, kinds, names, [marks] * len(tasks), return_exceptions=True)
        for (kind, task), result in zip(tasks, results):
            def give(result=result):
                if isinstance(result, BaseException):
                    raise result
                return result
            ends[task] = end_of(give, task, kind)
pool.shutdown()
with open(report, "w") as file:
    json.dump(ends, file)
"""


def main() -> int:
    """Run, report, and say with the exit code whether all promises were kept."""
    duration_s = float(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as name:
        return soak(Path(name), duration_s)


def is_worker(child: psutil.Process) -> bool:
    """Whether a child of the server is a worker, and has not ended: not the template, nor a zombie."""
    try:
        return "worker" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


def soak(folder: Path, duration_s: float) -> int:
    """One run in a folder."""
    command = [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", "0"]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1].rstrip(",")
    process = psutil.Process(server.pid)
    rpyc.connect(*address.split(":")).close()  # What the first connection leaves is no leak.
    time.sleep(1)
    before = usage(process)
    environment = {**os.environ, "COMPUTE_SERVER": address, "PYTHONPATH": str(ROOT)}
    marks = folder / "marks"
    clients: dict[Path, subprocess.Popen[bytes]] = {}
    killed: collections.Counter[str] = collections.Counter()

    def start_client() -> None:
        report = folder / f"client-{len(clients) + sum(killed.values())}-{time.monotonic_ns()}"
        command = [sys.executable, "-c", CLIENT, str(marks), str(report)]
        clients[report] = subprocess.Popen(command, env=environment)

    for _ in range(CLIENTS):
        start_client()
    ends_at = time.monotonic() + duration_s
    next_client = time.monotonic() + KILL_CLIENT_EVERY_S
    while time.monotonic() < ends_at:
        time.sleep(random.expovariate(1 / KILL_WORKER_EVERY_S))
        workers = [child for child in process.children() if is_worker(child)]
        if workers:
            random.choice(workers).send_signal(signal.SIGKILL)
            killed["workers"] += 1
        if time.monotonic() > next_client:
            next_client = time.monotonic() + random.expovariate(1 / KILL_CLIENT_EVERY_S)
            report = random.choice(list(clients))
            client = clients.pop(report)
            client.kill()
            client.wait()
            killed["clients"] += 1
            start_client()
    for report in clients:
        Path(f"{report}.stop").touch()
    codes = [client.wait(120) for client in clients.values()]
    ends = {
        task: end
        for report in clients
        if report.exists()
        for task, end in json.loads(report.read_text()).items()
    }
    ran = collections.Counter(marks.read_text().split())
    after = settled(process, before)
    server.terminate()
    code = server.wait(60)
    log.close()
    return report_on(ends, ran, killed, codes, code, before, after)


def usage(process: psutil.Process) -> tuple[int, int, int]:
    """Descriptors, threads and resident bytes of the server."""
    return process.num_fds(), process.num_threads(), process.memory_info().rss


def settled(process: psutil.Process, before: tuple[int, int, int]) -> tuple[int, int, int]:
    """The server's usage once it is back to what it was, or after ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (usage(process)[0] > before[0] or usage(process)[1] > before[1]):
        time.sleep(0.1)
    return usage(process)


def report_on(
    ends: dict[str, str],
    ran: collections.Counter[str],
    killed: collections.Counter[str],
    codes: list[int],
    code: int,
    before: tuple[int, int, int],
    after: tuple[int, int, int],
) -> int:
    """Print what happened; the exit code."""
    kinds = collections.Counter(ends.values())
    twice = sum(count > 1 for count in ran.values())
    never = sum(end in ("returned", "raised") and not ran[task] for task, end in ends.items())
    print(f"killed: {killed['workers']} workers, {killed['clients']} clients")
    print(f"functions begun: {sum(ran.values())}; begun twice: {twice}")
    print(f"ends of the clients that lived: {dict(kinds)}; ended without having run: {never}")
    names = ("descriptors", "threads", "resident MiB")
    for name, old, new in zip(names, before, after, strict=True):
        scale = 2**20 if "MiB" in name else 1
        print(f"server's {name}: {old / scale:.0f} at first, {new / scale:.0f} at the end")
    is_good = not (twice or never or kinds["wrong"] or any(codes) or code)
    is_good &= after[0] <= before[0] and after[1] <= before[1] and after[2] < before[2] + (50 << 20)
    print("all promises were kept" if is_good else f"NOT GOOD: clients ended {codes}, the server {code}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
