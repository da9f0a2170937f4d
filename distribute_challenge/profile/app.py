"""The grapher's command line: a profile -> figures, and what they say in a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distribute_challenge import cli
from distribute_challenge.errors import ProfileFormatError

FOLDER = Path("profiling")
SWEEP = FOLDER / "benchmarks.csv"
# So that the same profile gives the same file.
DATELESS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a profile; the exit code."""
    parser = cli.Parser(prog="grapher.py", description="Draw what the workers did.")
    parser.add_argument("file", metavar="FILE", help="a profile: a path, or a name in profiling/")
    parser.add_argument("--out", metavar="FOLDER", default="plots", help="where the figures go (plots)")
    parser.add_argument("--format", choices=("pdf", "png", "svg"), default="pdf", help="of the figures (pdf)")
    parser.add_argument(
        "--port",
        type=cli.port_number,
        default=18811,
        help="the server's, by which workers are named (18811); 0: none",
    )
    options = parser.parse_args(arguments)
    path = find(options.file)

    # Late: they take a second, and a mistake takes none.
    from distribute_challenge.profile import efficiency, plots, reading

    try:
        profile = reading.read_profile(path)
        cells = reading.read_sweep(SWEEP) if SWEEP.exists() else None
    except (ProfileFormatError, OSError) as error:
        cli.fail(str(error))
    if profile.is_cut_short:
        print(f"the last row of {path} was cut short, and is left out")
    print(f"Throughput = {plots.significant(profile.throughput)} tasks per second")
    if not profile.finished[-1]:
        print("no task finished in this profile")
    figures: dict[str, Any] = {
        "busy": plots.busy(profile, options.port or None),
        "throughput": plots.throughput(profile),
        "resources": plots.resources(profile),
        "benchmark": None if cells is None else efficiency.benchmark(cells, tasks=5, seconds=3),
    }
    save(figures, Path(options.out), options.format)
    return 0


def find(name: str) -> Path:
    """The profile of that path, or of that name in `profiling/`. Ends the script if there is none."""
    path = Path(name) if Path(name).is_file() else FOLDER / name
    if not path.is_file():
        there = sorted(path.name for path in FOLDER.glob("*.csv") if path != SWEEP)
        known = f"there are {', '.join(there)}" if there else "there are none: start a server first"
        cli.fail(f"no profile {name}, here or in {FOLDER}/: {known}")
    return path


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
