"""The benchmark: a server for each number of workers and clients, and what it gets done.

Each client is a process that runs its functions one after another. Throughput counts from the first
client's first call to the last result. What has been measured is kept: the sweep resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distribute_challenge import cli
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.app import save
from distribute_challenge.pictures.words import plural
from distribute_challenge.record import cells
from distribute_challenge.record.cells import FOLDER, SWEEP, Cell, Settings
from distribute_challenge.record.tasks import tasks_path
from distribute_challenge.sweep.children import ChildEnded, Stopped, answer, handled, running, stop, tell

ROOT = Path(__file__).parents[2]

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what has not been measured yet, and draw it; the exit code."""
    options = parse(arguments)
    try:
        with handled(stop):
            return run(options)
    except Stopped as stopped:
        kept = "stopped; what was measured is kept: the next run goes on from there"
        sys.stderr.write(f"{cli.program()}: {kept}\n")
        return int(128 + stopped.args[0])


def run(options: Any) -> int:
    """Measure and draw; the exit code."""
    settings = Settings(options.tasks, options.seconds)
    wanted = [Cell(workers, clients) for workers in options.workers for clients in options.clients]
    try:
        done = prepare(settings)
        known = sum(cell in done for cell in wanted)
        if known:
            was = (
                f"{known} of {plural(len(wanted), 'cell')} {'was' if known == 1 else 'were'} measured before"
            )
            print(f"{was} ({SWEEP}): remove that file to measure anew")
        tqdm.set_lock(threading.RLock())  # Its own is for many processes, and from Python 3.14 on starts one.
        with tqdm(wanted, unit="cell", disable=None) as progress:
            for cell in progress:
                size = f"{plural(cell.workers, 'worker')}, {plural(cell.clients, 'client')}"
                progress.set_description(size)
                if cell not in done:
                    done[cell] = measure(cell, settings)
                    with writing():
                        cells.write_cells(done)
    except (ProfileFormatError, ChildEnded) as error:
        cli.fail(str(error))
    return show({cell: done[cell] for cell in wanted}, settings)


def parse(arguments: Sequence[str] | None) -> Any:
    """The command line."""
    parser = cli.Parser("Measure the pool with more and more workers and clients.")
    add = parser.add_argument
    for things in ("--workers", "--clients"):
        add(things, type=cli.number_range, default=range(1, 5), metavar="A-B", help="(1-4)")
    add("--tasks", type=cli.number_of("functions"), default=5, help="functions of each client (5)")
    add("--seconds", type=cli.positive_duration, default=3, help="that each function takes (3)")
    return parser.parse_args(arguments)


def prepare(settings: Settings) -> dict[Cell, float]:
    """The cells that were measured before, with the same settings. Ends the script if they were others."""
    with writing():
        FOLDER.mkdir(exist_ok=True)
    try:
        if SWEEP.exists():
            before = cells.read_settings()
            if before != settings:
                cli.fail(f"{SWEEP} was measured with {before}: use those, or remove it to measure anew")
            return cells.read_cells(SWEEP)
    except OSError as error:
        cli.fail(f"cannot read {error.filename} ({error.strerror}): remove it to measure anew")
    with writing():
        cells.write_settings(settings)
    return {}


def show(sweep: dict[Cell, float], settings: Settings) -> int:
    """Print the results and draw all there are; the exit code."""
    from distribute_challenge.pictures import reading
    from distribute_challenge.pictures.figures import efficiency  # Late: measuring needs neither.

    print(table(sweep, settings))
    save({"benchmark": efficiency.benchmark(reading.read_sweep(SWEEP), *settings)}, Path("plots"), "pdf")
    for cell, throughput in sweep.items():
        if throughput > efficiency.ideal(*cell, *settings):
            sys.stderr.write(
                f"{cli.program()}: the cell {cell.workers} x {cell.clients} is above the ideal, as no pool "
                f"can be: if {SWEEP} is of other --tasks or --seconds, remove it and measure again\n"
            )
            return 1
    return 0


def measure(cell: Cell, settings: Settings) -> float:
    """The throughput of one cell, in tasks per second. Its profile is kept if it was measured to the end."""
    profile = FOLDER / f"results_{cell.workers}_{cell.clients}.csv"
    partial = profile.with_suffix(".partial")
    remove(partial)  # of a benchmark that was killed
    try:
        with running_server(cell.workers, partial) as address, contextlib.ExitStack() as stack:
            command = [sys.executable, "-c", CLIENT, str(ROOT), *map(str, settings)]
            clients = [stack.enter_context(running(command, address)) for _ in range(cell.clients)]
            for client in clients:
                answer(client)
            for client in clients:
                tell(client, b"start\n")
            answers = [answer(client).split() for client in clients]
            spans = [(float(began), float(end)) for began, end in answers]
        with writing():
            tasks_path(partial).replace(tasks_path(profile))
            partial.replace(profile)
    finally:
        remove(partial)
    return throughput(settings.tasks * cell.clients, spans)


def throughput(tasks: int, spans: Sequence[tuple[float, float]]) -> float:
    """Tasks per second, of clients that began and ended at these seconds: from the first to the last.

    >>> throughput(80, [(1.0, 4.5), (1.5, 5.0)])
    20.0
    """
    return tasks / (max(end for _, end in spans) - min(began for began, _ in spans))


def remove(profile: Path) -> None:
    """Remove a profile and its tasks, if they are there."""
    with writing():
        for path in (profile, tasks_path(profile)):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Writes files: that this cannot be ends the script."""
    try:
        yield
    except OSError as error:
        cli.fail(f"cannot write to {FOLDER}/ ({error.strerror}): run it where you may")


@contextlib.contextmanager
def running_server(workers: int, profile: Path) -> Iterator[str]:
    """A server with its profile; its address. It ends when we do, kill -9 included."""
    owned, owner = os.pipe()
    main = ROOT / "distribute_challenge" / "server" / "__main__.py"
    command = [sys.executable, str(main), str(workers)]
    command += ["--port", "0", "--profile", str(profile), "--owner", str(owned)]
    try:
        with running(command, "", pass_fds=(owned,)) as server:
            yield answer(server).split()[1].rstrip(",")
    finally:
        os.close(owned)
        os.close(owner)


def table(sweep: dict[Cell, float], settings: Settings) -> str:
    """The results as text."""
    from distribute_challenge.pictures.figures.efficiency import ideal

    lines = ["workers  clients  tasks/s    ideal  efficiency"]
    for (workers, clients), throughput in sweep.items():
        best = ideal(workers, clients, *settings)
        lines.append(f"{workers:7}  {clients:7}  {throughput:7.4f}  {best:7.4f}  {throughput / best:10.1%}")
    return "\n".join(lines)
