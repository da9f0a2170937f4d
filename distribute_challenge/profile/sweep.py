"""The benchmark: a server for each number of workers and clients, and what it gets done.

Each client is a process that runs its functions one after another. Throughput counts from the first
client's first call to the last result; starting interpreters and servers does not count. What has been
measured is kept: the sweep resumes where it was stopped.
"""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from distribute_challenge import cli
from distribute_challenge.address import SERVER_VARIABLE
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.profile.app import FOLDER, SWEEP, save

ROOT = Path(__file__).parents[2]
COLUMNS = ("Workers", "Functions", "Throughput")
DIGITS = 6  # of a throughput: those of the file, so that a result read back is the same
STOP_S = 30.0

# A client waits for the word to start, and says when its first call began and its last result came.
CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from distribute_challenge import cli, compute_this

def sleep(seconds):
    time.sleep(seconds)

task = compute_this(sleep)
tasks, seconds = int(sys.argv[2]), float(sys.argv[3])
task.source
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
with cli.pool_errors_in_one_line():
    for _ in range(tasks):
        task(seconds).run()
print(began, time.monotonic(), flush=True)
"""


class Cell(NamedTuple):
    """One measurement to make."""

    workers: int
    clients: int


class ChildEnded(Exception):
    """A server or a client ended too early."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what has not been measured yet, and draw it; the exit code."""
    parser = cli.Parser(
        prog="benchmark.py", description="Measure the pool with more and more workers and clients."
    )
    parser.add_argument("--workers", type=cli.number_range, default=range(1, 5), metavar="A-B", help="(1-4)")
    parser.add_argument("--clients", type=cli.number_range, default=range(1, 5), metavar="A-B", help="(1-4)")
    parser.add_argument(
        "--tasks", type=cli.number_of("functions"), default=5, help="functions of each client (5)"
    )
    parser.add_argument("--seconds", type=cli.duration, default=3, help="that each function takes (3)")
    options = parser.parse_args(arguments)
    cells = [Cell(workers, clients) for workers in options.workers for clients in options.clients]
    try:
        FOLDER.mkdir(exist_ok=True)
        done = read_cells()
        with tqdm(cells, unit="cell", disable=None) as progress:
            for cell in progress:
                progress.set_description(f"{cell.workers} workers, {cell.clients} clients")
                if cell not in done:
                    done[cell] = measure(cell, options.tasks, options.seconds)
                    write_cells(done)
    except (ProfileFormatError, ChildEnded) as error:
        cli.fail(str(error))
    except OSError as error:
        cli.fail(f"cannot write to {FOLDER}/ ({error.strerror}): run it where you may")
    except KeyboardInterrupt:
        sys.stderr.write(
            "benchmark.py: stopped; what was measured is kept, and the next run goes on from there\n"
        )
        return 128 + signal.SIGINT

    from distribute_challenge.profile import efficiency, reading  # Late: measuring needs neither.

    sweep = {cell: done[cell] for cell in cells}
    print(table(sweep, options.tasks, options.seconds))
    figure = efficiency.benchmark(reading.read_sweep(SWEEP), options.tasks, options.seconds)
    save({"benchmark": figure}, Path("plots"), "pdf")
    for cell, throughput in sweep.items():
        if throughput > efficiency.ideal(*cell, options.tasks, options.seconds):
            sys.stderr.write(
                f"benchmark.py: the cell {cell.workers} x {cell.clients} is above the ideal, as no pool can "
                f"be: if {SWEEP} is of other --tasks or --seconds, remove it and measure again\n"
            )
            return 1
    return 0


def measure(cell: Cell, tasks: int, seconds: float) -> float:
    """The throughput of one cell, in tasks per second. Its profile is kept if it was measured to the end."""
    profile = FOLDER / f"results_{cell.workers}_{cell.clients}.csv"
    partial = profile.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    try:
        with running_server(cell.workers, partial) as address, contextlib.ExitStack() as stack:
            command = [sys.executable, "-c", CLIENT, str(ROOT), str(tasks), str(seconds)]
            clients = [stack.enter_context(running(command, address)) for _ in range(cell.clients)]
            for client in clients:
                answer(client)
            for client in clients:
                assert client.stdin is not None
                # Past the buffer: what an interrupt leaves in that, closing it would try to write again.
                os.write(client.stdin.fileno(), b"start\n")
            spans = [tuple(map(float, answer(client).split())) for client in clients]
        partial.replace(profile)
    finally:
        partial.unlink(missing_ok=True)
    span_s = max(end for _, end in spans) - min(began for began, _ in spans)
    return round(tasks * cell.clients / span_s, DIGITS)


@contextlib.contextmanager
def running_server(workers: int, profile: Path) -> Iterator[str]:
    """A server with its profile; its address. It ends when we do, kill -9 included."""
    owned, owner = os.pipe()
    command = [sys.executable, str(ROOT / "server.py"), str(workers)]
    command += ["--port", "0", "--profile", str(profile), "--owner", str(owned)]
    try:
        with running(command, "", pass_fds=(owned,)) as server:
            yield answer(server).split()[1].rstrip(",")
    finally:
        os.close(owned)
        os.close(owner)


@contextlib.contextmanager
def running(command: list[str], server: str, pass_fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A child process, ended with the block. It has a session of its own: Ctrl-C is for us to pass on."""
    process = None
    try:
        with uninterrupted():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                pass_fds=pass_fds,
                env={**os.environ, SERVER_VARIABLE: server},
            )
        yield process
    finally:
        if process is not None:
            end(process)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C until the end of the block: else a process could be started, and nobody know of it."""
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt


def end(process: subprocess.Popen[str]) -> None:
    """End a child process, and wait for that."""
    with process:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    """The next line that a child prints. Raises ChildEnded if it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ChildEnded(
            f"a process of the benchmark ended too early, with exit code {process.wait()}: "
            "what it said is above; start the benchmark again to go on from there"
        )
    return line


def read_cells() -> dict[Cell, float]:
    """What has been measured before."""
    if not SWEEP.exists():
        return {}
    from distribute_challenge.profile.reading import read_sweep

    rows = read_sweep(SWEEP).to_dict("records")
    return {Cell(row["Workers"], row["Functions"]): row["Throughput"] for row in rows}


def write_cells(cells: dict[Cell, float]) -> None:
    """Write the results, in one step: whoever reads finds the old file or the new one."""
    partial = SWEEP.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*cell, f"{throughput:.{DIGITS}f}") for cell, throughput in sorted(cells.items()))
    partial.replace(SWEEP)


def table(cells: dict[Cell, float], tasks: int, seconds: float) -> str:
    """The results as text."""
    from distribute_challenge.profile.efficiency import ideal

    lines = ["workers  clients  tasks/s    ideal  efficiency"]
    for cell, throughput in cells.items():
        best = ideal(*cell, tasks, seconds)
        lines.append(
            f"{cell.workers:7}  {cell.clients:7}  {throughput:7.4f}  {best:7.4f}  {throughput / best:10.1%}"
        )
    return "\n".join(lines)
