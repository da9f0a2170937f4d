"""How far one server goes: the real `scheduler.py` in virtual time, with costs measured on this machine.

    python benchmarks/simulate.py [--check]

It measures what a call takes of the processor at its client, the server and the worker (processor time, which
other programs on the machine do not change much), and plays pools of 10 to 100,000 workers with that. Each
process has a processor of its own there, and the network takes no time. Two kinds of programs:

    leases     each call takes a worker from the server and gives it back: lone `run()`s of many programs
    executor   one program with an executor, which keeps its workers: the server only hears of it, and its
               driver's thread is what all tasks go through

What is lost is the share of their time in which workers do not run functions, once all are at work. It writes
plots/scaling.png and prints the table of docs/scaling.md. With --check it runs real pools as well, of 1 to 64
workers whose functions sleep, and prints how long these took beside what was foretold.
"""

from __future__ import annotations

import heapq
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from distribute_challenge import PoolExecutor, compute_this
from distribute_challenge.server.scheduler import Scheduler
from tests.running import RunningServer

ROOT = Path(__file__).parents[1]
WORKERS = (10, 100, 1000, 10_000, 100_000)
LENGTHS_S = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
QUEUED = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
ROUNDS = 4  # functions for each worker
ENOUGH = 0.05  # of a worker's time may be lost
CALLS = 300
MEASURED = 20  # rounds of so many
CHECKED = (1, 2, 4, 16, 64)
CHECKED_S, CHECKED_ROUNDS = 1.0, 5
KINDS = ("leases", "executor")


class Costs(NamedTuple):
    """Seconds of a processor for one call."""

    acquire: float  # at the server
    free: float  # at the server
    lone: float  # of a lone call at its client and worker, together
    driver: float  # of a task of an executor, at its client
    worker: float  # of a task of an executor, at its worker


def used_s(pid: int) -> float:
    """Seconds of a processor that the threads of a process have used."""
    if pid == os.getpid():
        return time.process_time()
    told = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(text.split()[0]) for text in told) / 1e9


def nothing() -> None:
    """A function that takes no time."""


def least(pids: list[int], calls: Callable[[], object]) -> list[float]:
    """What each process takes for one of so many calls: the least of many rounds."""
    rounds = []
    for _ in range(MEASURED):
        before = list(map(used_s, pids))
        calls()
        rounds.append([(used_s(pid) - began) / CALLS for pid, began in zip(pids, before, strict=True)])
    return min(rounds, key=sum)


def measure() -> Costs:
    """The costs on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(1, folder=Path(folder))
        pids = [os.getpid(), server.pid, server.worker_pids()[0]]
        task = compute_this(server=server.address)(nothing)
        lone = least(pids, lambda: [task().run() for _ in range(CALLS)])
        with PoolExecutor(server.address) as pool:
            kept = least(
                pids, lambda: [ended.result() for ended in [pool.submit(nothing) for _ in range(CALLS)]]
            )
        server.close()
    return Costs(lone[1] / 2, lone[1] / 2, lone[0] + lone[2], kept[0], kept[2])


def _results(futures: Sequence[Future[object]]) -> None:
    """Wait for all."""
    for future in futures:
        future.result()


class Client:
    """A program that makes one call."""

    __slots__ = ()


def play_leases(workers: int, tasks: int, length_s: float, costs: Costs) -> list[float]:
    """When each call ended, if every one takes a lease, and all clients are in line at the beginning."""
    pool: Scheduler[Client] = Scheduler(workers)
    for _ in range(tasks):
        pool.wait(Client())
    server_s = 0.0  # when the server has done what has come so far
    ended: list[float] = []
    # When the word that a worker is free comes to the server.
    frees: list[tuple[float, int]] = []
    cycle_s = costs.lone + length_s
    for worker in range(workers):  # They come up one after another.
        server_s += costs.acquire
        if pool.up(worker) is not None:
            heapq.heappush(frees, (server_s + cycle_s, worker))
    while frees:
        now, worker = heapq.heappop(frees)
        ended.append(now)
        server_s = max(now, server_s) + costs.free
        holder = pool.holder(worker)
        assert holder is not None
        if pool.free(holder, worker) is not None:
            server_s += costs.acquire  # The answer to who has waited, and the line behind.
            heapq.heappush(frees, (server_s + cycle_s, worker))
    assert pool.finished == tasks
    return ended


def play_executor(workers: int, tasks: int, length_s: float, costs: Costs) -> list[float]:
    """When each task ended, if one program has all workers and its driver sends one after another."""
    driver_s = 0.0
    ended: list[float] = []
    arrives: list[float] = []
    left = tasks
    for _ in range(min(workers, tasks)):
        driver_s += costs.driver
        heapq.heappush(arrives, driver_s + costs.worker + length_s)
        left -= 1
    while arrives:
        now = heapq.heappop(arrives)
        ended.append(now)
        driver_s = max(now, driver_s) + costs.driver
        if left:
            left -= 1
            heapq.heappush(arrives, driver_s + costs.worker + length_s)
    return ended


PLAYS = dict(zip(KINDS, (play_leases, play_executor), strict=True))


def lost(workers: int, length_s: float, kind: str, costs: Costs) -> float:
    """The share of workers' time that is lost once all are at work."""
    tasks = ROUNDS * workers
    ended = PLAYS[kind](workers, tasks, length_s, costs)
    first, last = workers - 1, tasks - workers - 1  # The ends of the first round, and of the last but one.
    seconds = ended[last] - ended[first]
    return max(1 - (last - first) * length_s / (workers * seconds), 0.0) if seconds else 0.0


def move_s(queued: int) -> float:
    """Real seconds of one move in the scheduler alone, with so many in line."""
    pool: Scheduler[Client] = Scheduler(1)
    for _ in range(queued + 1):
        pool.wait(Client())
    pool.up(0)
    moves = 20_000
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(moves):
            holder = pool.holder(0)
            assert holder is not None
            pool.free(holder, 0)
            pool.wait(Client())
            if pool.holder(0) is None:  # Nobody was left for it.
                pool.lease(Client())
        best = min(best, (time.perf_counter() - began) / moves)
    return best


def sleeps(seconds: float) -> None:
    """What real workers do."""
    time.sleep(seconds)


def checks(costs: Costs) -> Iterator[tuple[int, float, float]]:
    """For real pools, used by one executor: how many workers, seconds that were foretold, and taken."""
    for workers in CHECKED:
        tasks = CHECKED_ROUNDS * workers
        with tempfile.TemporaryDirectory() as folder:
            server = RunningServer(workers, folder=Path(folder))
            with PoolExecutor(server.address) as pool:
                # All connections are there, and it is known how long the function takes.
                _results([pool.submit(sleeps, CHECKED_S) for _ in range(2 * workers)])
                began = time.perf_counter()
                _results([pool.submit(sleeps, CHECKED_S) for _ in range(tasks)])
                taken = time.perf_counter() - began
            server.close()
        yield workers, play_executor(workers, tasks, CHECKED_S, costs)[-1], taken


def draw(losses: dict[tuple[str, int, float], float], moves: dict[int, float]) -> Path:
    """The figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, kind, title in zip(
        axes, KINDS, ("each call takes a lease", "one executor keeps its workers"), strict=False
    ):
        for length_s in LENGTHS_S:
            shares = [100 * losses[kind, workers, length_s] for workers in WORKERS]
            ax.plot(WORKERS, shares, marker="o", markersize=3, label=f"{length_s:g} s")
        ax.axhline(100 * ENOUGH, color="black", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", xlabel="workers", ylim=(-2, 102), title=title)
    axes[0].set_ylabel("time lost (%); dotted: 5 %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="a function takes", loc="outside lower center", ncols=len(labels))
    axes[2].plot(list(moves), [1e6 * seconds for seconds in moves.values()], marker="o", markersize=3)
    axes[2].set(
        xscale="log", xlabel="clients in line", ylabel="a hand-over in scheduler.py (µs)", ylim=(0, None)
    )
    axes[2].set_title("the length of the line")
    path = ROOT / "plots" / "scaling.png"
    figure.savefig(path, dpi=130)
    return path


def main() -> None:
    """Measure, play, draw and print."""
    costs = measure()
    print(
        "µs of a processor: "
        + ", ".join(f"{name} {1e6 * value:.0f}" for name, value in costs._asdict().items())
    )
    losses = {}
    for kind in KINDS:
        print(f"\n| {kind} | " + " | ".join(f"{length_s:g} s" for length_s in LENGTHS_S) + " |")
        print("|---:|" + "---:|" * len(LENGTHS_S))
        for workers in WORKERS:
            for length_s in LENGTHS_S:
                losses[kind, workers, length_s] = lost(workers, length_s, kind, costs)
            row = [f"{100 * losses[kind, workers, length_s]:.1f} %" for length_s in LENGTHS_S]
            print(f"| {workers:,} | " + " | ".join(row) + " |", flush=True)
    moves = {queued: move_s(queued) for queued in QUEUED}
    print("\nclients in line: " + ", ".join(f"{queued:,}: {1e6 * s:.1f} µs" for queued, s in moves.items()))
    print(draw(losses, moves))
    if "--check" in sys.argv:
        print("\n| workers | foretold | taken | |\n|---:|---:|---:|---:|")
        for workers, foretold, taken in checks(costs):
            print(
                f"| {workers} | {foretold:.3f} s | {taken:.3f} s | {100 * (taken / foretold - 1):+.0f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
