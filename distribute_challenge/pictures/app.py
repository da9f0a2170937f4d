"""The grapher's command line: a profile -> figures, and what they say in a line."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distribute_challenge import cli
from distribute_challenge.address import DEFAULT_PORT
from distribute_challenge.errors import ProfileFormatError
from distribute_challenge.pictures.words import plural, significant
from distribute_challenge.record.cells import FOLDER, SWEEP, read_settings
from distribute_challenge.record.tasks import tasks_path

if TYPE_CHECKING:
    from distribute_challenge.pictures.reading import Profile
    from distribute_challenge.pictures.tasks import Tasks

ROUNDED_S = 10  # No server writes times like that, and no figure of them is right.
# So that the same profile gives the same file.
DATELESS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a profile; the exit code."""
    parser = cli.Parser("Draw what the workers did.")
    add = parser.add_argument
    add("file", metavar="FILE", help="a profile: a path, or a name in profiling/")
    add("--out", metavar="FOLDER", help="where the figures go (plots)")
    add("--html", metavar="FILE", help="write a report in one file instead, or beside --out")
    add("--trace", metavar="FILE", help="write a trace for ui.perfetto.dev instead, or beside --out")
    add("--format", choices=("pdf", "png", "svg"), default="pdf", help="of the figures (pdf)")
    port = f"the server's, by which workers are named ({DEFAULT_PORT}); 0: none"
    add("--port", type=cli.port_number, default=DEFAULT_PORT, help=port)
    options = parser.parse_args(arguments)
    path = find(options.file)

    # Late: they take a second, and a mistake takes none.
    from distribute_challenge.pictures import plots, reading

    try:
        profile = reading.read_profile(path)
    except (ProfileFormatError, OSError) as error:
        cli.fail(what_is_wrong(error))
    if profile.is_cut_short:
        print(f"the last row of {path} was cut short, and is left out")
    if profile.finished[-1] and not profile.throughput:
        cli.fail(
            f"{path}: {profile.finished[-1]:g} tasks finished in no time at all: its times are rounded, as "
            "by a spreadsheet that has saved it; use the file that the server wrote"
        )
    print(f"Throughput = {significant(profile.throughput)} tasks per second")
    if profile.step_s >= ROUNDED_S:
        print(f"its times are rounded to {profile.step_s} s, as by a spreadsheet, and so that is not exact")
    if not profile.finished[-1]:
        print("no task finished in this profile")
    if options.html is not None:
        write_report(Path(options.html), profile)
    if options.trace is not None:
        write_trace(Path(options.trace), profile)
    if (options.html or options.trace) is not None and options.out is None:
        return 0
    figures: dict[str, Any] = {
        "busy": plots.busy(profile, options.port or None),
        "throughput": plots.throughput(profile),
        "resources": plots.resources(profile),
        "benchmark": benchmark(),
    }
    save(figures, Path(options.out or "plots"), options.format)
    return 0


def tasks_of(profile: Profile) -> Tasks | None:
    """The tasks of a profile; None if it has no such file. Ends the script if that is broken."""
    from distribute_challenge.pictures.tasks import read_tasks

    try:
        return read_tasks(tasks_path(profile.path))
    except FileNotFoundError:
        return None
    except (ProfileFormatError, OSError) as error:
        cli.fail(what_is_wrong(error))


def write_report(path: Path, profile: Profile) -> None:
    """Write a report, and say where."""
    with cli.extra("live"):
        from distribute_challenge.pictures import report

    try:
        print(f"{path}: {report.write_report(path, profile)}")
    except ProfileFormatError as error:
        cli.fail(str(error))
    except OSError as error:
        cli.fail(f"cannot write {path} ({error.strerror}): name another file")


def write_trace(path: Path, profile: Profile) -> None:
    """Write a trace, and say where."""
    from distribute_challenge.pictures import trace

    try:
        left_out = trace.write_trace(path, profile, tasks_of(profile))
    except OSError as error:
        cli.fail(f"cannot write {path} ({error.strerror}): name another file")
    print(path)
    if left_out:
        print(f"{plural(left_out, 'task')} waited behind {trace.MOST_LINES} others: only counted in it")


def benchmark() -> Any:
    """The figure of the sweep; None if there is no sweep, or, which is said, if it cannot be read."""
    from distribute_challenge.pictures import efficiency, reading

    try:
        return efficiency.benchmark(reading.read_sweep(SWEEP), *read_settings())
    except FileNotFoundError:
        return None
    except (ProfileFormatError, OSError) as error:
        sys.stderr.write(f"{cli.program()}: the sweep is not drawn: {what_is_wrong(error)}\n")
    return None


def what_is_wrong(error: Exception) -> str:
    """Why a file cannot be read."""
    return f"cannot read {error.filename} ({error.strerror})" if isinstance(error, OSError) else str(error)


def find(name: str) -> Path:
    """The profile of that path, or of that name in `profiling/`. Ends the script if there is none."""
    modes = {path: mode_of(path) for path in (Path(name), FOLDER / name)}
    found = next((path for path, mode in modes.items() if stat.S_ISREG(mode)), None)
    folder = next((path for path, mode in modes.items() if stat.S_ISDIR(mode)), None)
    if found is None:
        if folder is not None:
            cli.fail(f"{folder} is a folder: name a profile in it")
        there = sorted(path.name for path in FOLDER.glob("*.csv") if path != SWEEP)
        known = f"there are {', '.join(there)}" if there else "there are none: start a server first"
        cli.fail(f"no profile {name}, here or in {FOLDER}/: {known}")
    return found


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
                figure.savefig(path, dpi=150, metadata=DATELESS.get(suffix))
                print(path)
    except OSError as error:
        cli.fail(f"cannot write the figures to {folder} ({error.strerror}): choose another --out")
