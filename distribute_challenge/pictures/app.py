"""The grapher's command line: a profile -> figures, and what they say in a line."""

from __future__ import annotations

import contextlib
import math
import re
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distribute_challenge import cli
from distribute_challenge.address import DEFAULT_PORT
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.words import plural, short_time, significant
from distribute_challenge.record.cells import FOLDER, SWEEP, read_settings
from distribute_challenge.record.tasks import tasks_path

if TYPE_CHECKING:
    from distribute_challenge.pictures.figures.busy import Run

ROUNDED_S = 10  # No server writes times like that, and no figure of them is right.
# So that the same profile gives the same file.
DATELESS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a profile, or a sweep; the exit code."""
    options = parse(arguments)
    path = find(options.file)
    folder = Path(options.out or "plots")
    if path.name == SWEEP.name:
        with files_are_read():
            figure = benchmark(path)
        save({"benchmark": figure}, folder, options.format)
        return 0
    for option in ("html", "trace"):
        if (name := getattr(options, option)) is not None:
            check_output(Path(name), f"--{option}", path)
    with files_are_read():
        run = read(path, options)
    tell(run)
    if options.html is not None:
        write_report(Path(options.html), run)
    if options.trace is not None:
        write_trace(Path(options.trace), run)
    if (options.html or options.trace) is not None and options.out is None:
        return 0
    save(figures(run), folder, options.format)
    return 0


def parse(arguments: Sequence[str] | None) -> Any:
    """What was asked for."""
    parser = cli.Parser("Draw what the workers did.")
    add = parser.add_argument
    what = "a profile: a path, or a name in profiling/ (the newest there); or a sweep's benchmarks.csv"
    add("file", metavar="FILE", nargs="?", help=what)
    add("--out", metavar="FOLDER", help="where the figures go (plots)")
    add("--html", metavar="FILE", help="write a report in one file instead, or beside --out")
    add("--trace", metavar="FILE", help="write a trace for ui.perfetto.dev instead, or beside --out")
    add("--format", choices=("pdf", "png", "svg"), default="pdf", help="of the figures (pdf)")
    port = f"the server's, by which workers are named ({DEFAULT_PORT}); 0: none"
    add("--port", type=cli.port_number, default=DEFAULT_PORT, help=port)
    either = parser.add_mutually_exclusive_group()
    since = "only what is recorded from then on: like 14:30, or '2026-01-31 14:30'"
    either.add_argument("--since", metavar="TIME", type=cli.moment, help=since)
    last = "only the end of the record: like 90s, 10m or 2h"
    either.add_argument("--last", metavar="LENGTH", type=cli.length_of_time, help=last)
    return parser.parse_args(arguments)


def check_output(path: Path, option: str, profile: Path) -> None:
    """End the script if a record would be written over: FILE may be left out, and stand for the option's."""
    records = [one for one in (profile, tasks_path(profile)) if one.exists()]
    if path.suffix == ".csv" or (path.exists() and any(map(path.samefile, records))):
        cli.fail(
            f"will not write to {path}, which is a record, or named like one: give {option} another name"
        )


@contextlib.contextmanager
def files_are_read() -> Iterator[None]:
    """Reads files: one that is broken, or cannot be read, ends the script."""
    try:
        yield
    except (ProfileFormatError, OSError) as error:
        cli.fail(what_is_wrong(error))


def read(path: Path, options: Any) -> Run:
    """The part of a profile that is asked for, and its tasks. Raises ProfileFormatError and OSError."""
    # Late: they take a second, and a mistake takes none.
    from distribute_challenge.pictures import period, reading
    from distribute_challenge.pictures.figures.busy import run_of
    from distribute_challenge.pictures.tasks import read_tasks

    profile = reading.read_profile(path)
    tasks = read_tasks(tasks_path(path)) if tasks_path(path).exists() else None
    for one in (profile, tasks):
        if one is not None and one.is_cut_short:
            print(f"the last row of {one.path} was cut short, and is left out")
    if tasks is not None:
        profile = period.lengthened(profile, tasks)
    began, ended = profile.span_s
    if profile.finished[-1] and began == ended:
        cli.fail(
            f"{path}: {profile.finished[-1]:g} tasks finished in no time at all: its times are rounded, as "
            "by a spreadsheet that has saved it; use the file that the server wrote"
        )
    run = run_of(profile, tasks, options.port or None)
    begin, end = period.asked(profile, options.since, options.last)
    if (begin, end) == (0, profile.seconds[-1]):
        return run
    if options.since is options.last is None:
        all_s = math.ceil(profile.seconds[-1])
        drawn = f"{short_time(end - begin)} of {short_time(all_s)} are drawn"
        print(f"{drawn}: in the rest nothing was asked for (--last {all_s}s draws all)")
    return run.part(begin, end)


def tell(run: Run) -> None:
    """Print the throughput, and what became of the tasks."""
    from distribute_challenge.pictures import listing

    profile, tasks = run.profile, run.tasks
    print(f"Throughput = {significant(profile.throughput)} tasks per second")
    if profile.step_s >= ROUNDED_S:
        print(f"its times are rounded to {profile.step_s} s, as by a spreadsheet, and so that is not exact")
    idle_s, (began, ended) = profile.idle_s, profile.span_s
    if not profile.finished[-1]:
        print("no task finished in this profile")
    elif 0 < idle_s < ended - began:
        busy = profile.finished[profile.span[1]] / (ended - began - idle_s)
        print(
            f"in {short_time(idle_s)} of its {short_time(ended - began)} nothing was asked for; "
            f"without those it is {significant(busy)} tasks per second"
        )
    if tasks is not None and len(tasks):
        print("\n".join(["", *listing.table(tasks), "", *listing.failures(tasks)]).rstrip() + "\n")


def figures(run: Run) -> dict[str, Any]:
    """All figures by their names; None for those of which there is nothing to draw."""
    from distribute_challenge.pictures.figures import busy, functions, overview, resources, throughput

    return {
        "overview": overview.overview(run),
        "busy": busy.busy(run),
        "tasks": functions.functions(run),
        "throughput": throughput.throughput(run.profile, run.tasks),
        "resources": resources.resources(run.profile),
        "benchmark": sweep_of(run.profile.path),
    }


def sweep_of(profile: Path) -> Any:
    """The figure of a profile's sweep; None if it is of no sweep, or, which is said, of a broken one."""
    path = profile.with_name(SWEEP.name)
    if not re.fullmatch(r"results_\d+_\d+\.csv", profile.name) or not path.exists():
        return None
    try:
        return benchmark(path)
    except (ProfileFormatError, OSError) as error:
        sys.stderr.write(f"{cli.program()}: the sweep is not drawn: {what_is_wrong(error)}\n")
    return None


def write_report(path: Path, run: Run) -> None:
    """Write a report, and say where."""
    with cli.extra("live"):
        from distribute_challenge.pictures import report

    try:
        print(f"{path}: {report.write_report(path, run.profile, run.tasks, run.ports)}")
    except OSError as error:
        cli.fail(f"cannot write {path} ({error.strerror}): name another file")


def benchmark(path: Path) -> Any:
    """The figure of a sweep. Raises ProfileFormatError and OSError."""
    from distribute_challenge.pictures import reading
    from distribute_challenge.pictures.figures import efficiency

    return efficiency.benchmark(reading.read_sweep(path), *read_settings(path.with_suffix(".json")))


def write_trace(path: Path, run: Run) -> None:
    """Write a trace, and say where."""
    from distribute_challenge.pictures import trace

    try:
        left_out = trace.write_trace(path, run.profile, run.tasks, run.ports)
    except OSError as error:
        cli.fail(f"cannot write {path} ({error.strerror}): name another file")
    print(path)
    if left_out:
        print(f"{plural(left_out, 'task')} waited behind {trace.MOST_LINES} others: only counted in it")


def what_is_wrong(error: Exception) -> str:
    """Why a file cannot be read."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read {error.filename} ({error.strerror})"
    return str(error)


def find(name: str | None) -> Path:
    """The profile of that path, or of that name in `profiling/`; without one, the newest there.

    Ends the script if there is none.
    """
    tasks_of = {tasks_path(path): path for path in FOLDER.glob("*.csv")}
    profiles = sorted(
        path for path in FOLDER.glob("*.csv") if path != SWEEP and path.is_file() and not is_tasks(path)
    )
    known = ", ".join(path.name for path in profiles)
    known = f"there are {known}" if known else "there are none: start a server first"
    if name is None:
        if not profiles:
            cli.fail(f"name a profile: in {FOLDER}/ {known}")
        newest = max(profiles, key=lambda path: path.stat().st_mtime)
        print(f"{newest} is the newest profile:")
        return newest
    modes = {path: mode_of(path) for path in (Path(name), FOLDER / name)}
    found = next((path for path, mode in modes.items() if stat.S_ISREG(mode)), None)
    folder = next((path for path, mode in modes.items() if stat.S_ISDIR(mode)), None)
    if found is None:
        if folder is not None:
            cli.fail(f"{folder} is a folder: name a profile in it")
        cli.fail(f"no profile {name}, here or in {FOLDER}/: {known}")
    if is_tasks(found) and found in tasks_of:
        cli.fail(f"{found} has the tasks of {tasks_of[found]}: name that")
    return found


def is_tasks(path: Path) -> bool:
    """Whether a file is called as the tasks of a profile are: `tasks_path`."""
    return path.name.startswith("tasks_") or path.name.endswith(".tasks.csv")


def mode_of(path: Path) -> int:
    """The kind of a file, as in `stat`; 0 if there is none. Ends the script if that cannot be told."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        cli.fail(what_is_wrong(error))


def save(figures: dict[str, Any], folder: Path, suffix: str) -> None:
    """Write the figures there are, and say where."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            if figure is not None:
                path = folder / f"{name}.{suffix}"
                with warnings.catch_warnings():  # A name may be in letters that its font does not have.
                    warnings.filterwarnings("ignore", "Glyph .* missing from")
                    figure.savefig(path, dpi=150, metadata=DATELESS.get(suffix))
                print(path)
    except BrokenPipeError:  # of those who read where they are
        raise
    except OSError as error:
        cli.fail(f"cannot write the figures to {folder} ({error.strerror}): choose another --out")
