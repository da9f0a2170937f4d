"""The cases of this pool alone: one part of it beside another, or early beside late."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path

import psutil
import rpyc

from benchmarks.peers.cases import ALONE, Case
from benchmarks.peers.results import Results
from benchmarks.peers.running import ROOT, Client, version
from benchmarks.recording import running_server
from distribute_challenge import PoolExecutor
from distribute_challenge.server.scheduler import Scheduler

CLIENTS = 4
SIZES = (100, 100_000)
BLOCK = 500  # leases
BLOCKS = 10  # so many make the beginning, and as many the end
SETTLE_S = 1.0
IDLE_WORKERS = 4
IDLE_S = 30.0  # The system counts processors' time in steps of 10 ms.
NAMES = {"one that uses nothing": False, "one that uses names": True}
SCATTERED = {"the value as an argument": False, "the value scattered": True}

Note = Callable[[str, int, str, float], None]  # case, round, which side, value


def measure(results: Results, folder: Path, server: str, cases: set[str], rounds: int, quick: bool) -> None:
    """Measure the cases called `cases`."""

    def note(case: str, number: int, side: str, value: float) -> None:
        results.add(case, side, number, value, version("pool"))

    by_name = {case.name: case for case in ALONE}
    shrink = 10 if quick else 1
    if "clients" in cases:
        clients(note, by_name["clients"], folder, server, rounds, shrink)
    if "names" in cases:
        sides(note, by_name["names"], folder, server, rounds, "used", NAMES)
    if "scatter" in cases:
        sides(note, by_name["scatter"], folder, server, rounds, "scattered", SCATTERED)
    if "lost" in cases:
        lost(note, by_name["lost"], folder, server, rounds)
    if "scheduler" in cases:
        scheduler(note, by_name["scheduler"], rounds)
    if cases & {"lease_time", "lease_memory"}:
        server_leases(note, server, by_name["lease_time"].count // shrink)
    if cases & {"move_time", "move_memory"}:
        scheduler_moves(note, by_name["move_time"].count // shrink)
    if "memory" in cases:
        memory(note, folder, rounds)
    if "idle" in cases:
        idle(note, folder)


def clients(note: Note, case: Case, folder: Path, server: str, rounds: int, shrink: int) -> None:
    """The same number of no-ops, by four clients at once and by one of them."""
    count = case.count // shrink
    started = [Client("pool", folder, server) for _ in range(CLIENTS)]
    try:
        for number in range(rounds):
            rates: dict[str, list[float]] = {"four clients": [], "one client": []}
            for turn in range(case.turns):
                sides = (("four clients", started), ("one client", started[:1]))
                for side, taking_part in sides if (number + turn) % 2 else sides[::-1]:
                    rates[side].append(together(taking_part, count))
            for side, values in rates.items():
                note("clients", number, side, statistics.median(values))
    finally:
        for client in started:
            client.close()


def sides(
    note: Note, case: Case, folder: Path, server: str, rounds: int, option: str, by_side: dict[str, bool]
) -> None:
    """A case with an option, off and on."""
    client = Client("pool", folder, server)
    try:
        for number in range(rounds):
            values: dict[str, list[float]] = {side: [] for side in by_side}
            for turn in range(case.turns):
                for side, value in list(by_side.items())[:: 1 if turn % 2 else -1]:
                    values[side].append(client.ask(case.name, count=case.count, **{option: value}))
            for side, measured in values.items():
                note(case.name, number, side, statistics.median(measured))
    finally:
        client.close()


def lost(note: Note, case: Case, folder: Path, server: str, rounds: int) -> None:
    """How long until a worker that was killed is back, beside an interpreter that imports RPyC and ends."""
    host, _, port = server.rpartition(":")
    bare = [sys.executable, "-c", "import rpyc"]
    with rpyc.connect(host, int(port), config={"sync_request_timeout": None}) as connection:
        for number in range(rounds):
            back, imports = [], []
            for _ in range(case.turns):
                worker = json.loads(connection.root.status())["workers"][0]
                began = time.perf_counter()
                os.kill(worker["pid"], signal.SIGKILL)
                while True:
                    now = json.loads(connection.root.status())["workers"][0]
                    if now["state"] == "free" and now["pid"] != worker["pid"]:
                        break
                back.append(time.perf_counter() - began)
                began = time.perf_counter()
                subprocess.run(bare, cwd=folder, check=True)
                imports.append(time.perf_counter() - began)
            note("lost", number, "a lost worker", statistics.median(back))
            note("lost", number, "import rpyc", statistics.median(imports))


def together(taking_part: list[Client], count: int) -> float:
    """Calls per second of clients who begin at once and share the calls, from the first to the last."""
    share = count // len(taking_part)
    for client in taking_part:
        client.begin("submit", count=share)
    answers = [client.end() for client in taking_part]
    took_s = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
    return share * len(taking_part) / took_s


def scheduler(note: Note, case: Case, rounds: int) -> None:
    """Taking and giving back, in pools of which half the workers are taken."""
    pools = {size: half_taken(size) for size in SIZES}
    for number in range(rounds):
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for turn in range(case.turns):
            for size in SIZES if (number + turn) % 2 else SIZES[::-1]:
                times[size].append(move_s(pools[size], case.count))
        for size, values in times.items():
            note("scheduler", number, f"{size:,} workers", statistics.median(values))


def half_taken(size: int) -> Scheduler[object]:
    """A pool in use: workers were given back in no order."""
    pool: Scheduler[object] = Scheduler(size)
    for worker in range(size):
        pool.up(worker)
    holder = object()
    while pool.lease(holder) is not None:
        pass
    for worker in random.Random(0).sample(range(size), size // 2):
        pool.free(holder, worker)
    return pool


def move_s(pool: Scheduler[object], count: int) -> float:
    """Seconds for one lease, taken and given back by somebody new each time."""
    began = time.perf_counter()
    for _ in range(count):
        holder = object()
        worker = pool.lease(holder)
        assert worker is not None
        pool.free(holder, worker)
    return (time.perf_counter() - began) / count


def scheduler_moves(note: Note, count: int) -> None:
    """Time and memory of the scheduler at the first and at the last of so many leases."""
    pool = half_taken(SIZES[0])
    move_s(pool, count)
    times: dict[str, list[float]] = {"the first": [], "the last": []}
    for _ in range(BLOCKS):  # In turn: a block takes a millisecond, and noise more.
        times["the first"].append(move_s(half_taken(SIZES[0]), BLOCK))
        times["the last"].append(move_s(pool, BLOCK))
    for side, measured in times.items():
        note("move_time", 0, side, statistics.median(measured))
    tracemalloc.start()
    pool = half_taken(SIZES[0])
    move_s(pool, BLOCK)
    note("move_memory", 0, "the first", allocated_in(sys.modules[Scheduler.__module__]))
    move_s(pool, count)
    note("move_memory", 0, "the last", allocated_in(sys.modules[Scheduler.__module__]))
    tracemalloc.stop()


def allocated_in(module: types.ModuleType) -> int:
    """Bytes that the lines of a module have allocated and not let go."""
    gc.collect()
    assert module.__file__ is not None
    lines = tracemalloc.Filter(True, module.__file__)
    traces = tracemalloc.take_snapshot().filter_traces([lines]).traces
    return sum(trace.size for trace in traces)


def server_leases(note: Note, server: str, count: int) -> None:
    """Processor time and memory of a server at the first and at the last of so many leases.

    How long they take moves by half with which processor wakes whom.
    """
    host, _, port = server.rpartition(":")
    with rpyc.connect(host, int(port), config={"sync_request_timeout": None}) as connection:
        worker = json.loads(connection.root.status())["workers"][0]
        process = server_of(worker["pid"])
        find = rpyc.async_(connection.root.find_free_worker)
        free = rpyc.async_(connection.root.free_worker)
        taken = [processor_s(process)]
        for number in range(count // BLOCK):
            for _ in range(BLOCK // 100):  # Sent ahead, so that nobody waits.
                answers = [(find(), free(worker["port"])) for _ in range(100)]
                for found, freed in answers:
                    assert found.value == worker["port"]
                    assert freed.value is None
            taken.append(processor_s(process))
            if number == BLOCKS - 1:
                note("lease_memory", 0, "the first", process.memory_info().rss)
        note("lease_memory", 0, "the last", process.memory_info().rss)
    note("lease_time", 0, "the first", (taken[BLOCKS] - taken[0]) / BLOCKS / BLOCK)
    note("lease_time", 0, "the last", (taken[-1] - taken[-1 - BLOCKS]) / BLOCKS / BLOCK)


def server_of(worker: int) -> psutil.Process:
    """The server that has started a worker."""
    process = psutil.Process(worker).parent()
    assert process is not None
    return process


def processor_s(*processes: psutil.Process) -> float:
    """Seconds of processors that processes have taken."""
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def idle(note: Note, folder: Path) -> None:
    """What a server and its workers take while nobody calls, and a client whose executor is open."""
    with (
        running_server(ROOT, tempfile.mkdtemp(dir=folder), workers=IDLE_WORKERS) as pool,
        PoolExecutor(pool.address) as executor,
    ):
        server = server_of(executor.submit(os.getpid).result())
        processes = [server, *server.children(recursive=True)]
        time.sleep(SETTLE_S)
        there, began, here = processor_s(*processes), time.monotonic(), time.process_time()
        time.sleep(IDLE_S)
        here = time.process_time() - here  # First: to ask for the others takes more than it does meanwhile.
        note("idle", 0, "the time", time.monotonic() - began)
        note("idle", 0, "a server with 4 workers", processor_s(*processes) - there)
        note("idle", 0, "a client with an executor", here)


def memory(note: Note, folder: Path, rounds: int) -> None:
    """Resident memory of an idle worker, and of an interpreter that has only imported RPyC."""
    bare = [sys.executable, "-c", "import rpyc; print('ready: ', flush=True); input()"]
    for number in range(rounds):
        note("memory", number, "a worker", resident([sys.executable, str(ROOT / "worker.py"), "0"], folder))
        note("memory", number, "a bare interpreter", resident(bare, folder))


def resident(command: list[str], folder: Path) -> float:
    """Resident bytes of a process, a moment after it said that it is ready."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith("ready: "):
                raise RuntimeError(f"{command} did not start")
            time.sleep(SETTLE_S)  # What it does when nobody asks for anything belongs to it.
            return float(psutil.Process(process.pid).memory_info().rss)
        finally:
            process.kill()
