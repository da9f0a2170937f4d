"""The tables of the README, made from the results: what was measured, and what is promised of it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.cases import CASES, COMPARED, TARGETS, Case, Target
from benchmarks.peers.results import Results
from benchmarks.peers.rivals import PEERS
from benchmarks.recording import WORKERS

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- speed: made by `make bench` -->", "<!-- end of speed -->"

BARE = ("raw", "direct", "naive")  # They are no pools: they share a column, by name.
POOLS = [name for name in PEERS if name not in BARE]


def put_into_readme(results: Results) -> None:
    """Replace what is between the marks."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README} has no place for the results: {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}")


def text(results: Results) -> str:
    """All that the README says of the results."""
    parts = [promises(results)]
    if any(results.rounds(case.name, "pool") for case in COMPARED):
        parts = [measured(results), notes(results), *parts]
    return "\n\n".join(parts)


def measured(results: Results) -> str:
    """A row for each case, a column for each pool."""
    names = [name for name in POOLS if any(results.rounds(case.name, name) for case in COMPARED)]
    lines = [
        row(f"{WORKERS} workers", *(PEERS[name].title for name in names), "without a pool"),
        "|---|" + "---:|" * len(names) + "---|",
    ]
    for case in COMPARED:
        if results.rounds(case.name, "pool"):
            cells = [cell(results, case, name) for name in names]
            bare = [f"{PEERS[name].title}: {value}" for name in BARE if (value := cell(results, case, name))]
            lines.append(row(case.title, f"**{cells[0]}**", *cells[1:], "; ".join(bare)))
    return "\n".join(lines)


def cell(results: Results, case: Case, name: str) -> str:
    """One value."""
    value = results.value(case.name, name)
    return "" if value is None else shown(value, case.unit)


def notes(results: Results) -> str:
    """Versions and chunk sizes."""
    known = {"processpool": "Python", "raw": "RPyC"}  # What these belong to has the version.
    versions = [
        f"{known.get(name, PEERS[name].title)} {version}"
        for name, version in results.versions().items()
        if name in PEERS and name not in ("pool", "private", "naive", "direct", "forkserver")
    ]
    chunks = [
        f"{PEERS[name].title} {how.removeprefix('chunks of ')}"
        for name, how in results.chunks("map").items()
        if how.startswith("chunks of ")
    ]
    said = [f"{', '.join(versions)}."] if versions else []
    if chunks:
        said.append(f"Chunks of 100,000 no-ops: {', '.join(chunks)}; this pool chooses for itself.")
    return " ".join(said)


def promises(results: Results) -> str:
    """A row for each promise of which both sides were measured."""
    lines = [row("case", "beside", "promised", "measured", ""), "|---|---|---:|---:|---|"]
    for target in TARGETS:
        ratio = results.ratio(target)
        if ratio is not None:
            sign = "≥" if target.at_least else "≤"
            kept = "kept" if target.is_met(ratio) else "**falls short**"
            lines.append(
                row(
                    CASES[target.case].title, beside(target), f"{sign} {target.limit:g}", f"{ratio:.3g}", kept
                )
            )
    return "\n".join(lines)


def beside(target: Target) -> str:
    """What stands on both sides of a ratio."""
    other = PEERS[target.other].title if target.other in PEERS else target.other
    return other if target.one == "pool" else f"{target.one} : {other}"


def shown(value: float, unit: str) -> str:
    """A value as it is read: three digits, and its unit.

    >>> shown(1234.5, "calls/s"), shown(0.4567, "s"), shown(1234567, "calls/s")
    ('1,230/s', '0.457 s', '1.23 M/s')
    """
    number, unit = (value / 1e6, "M/s") if unit == "calls/s" and value >= 1e6 else (value, unit)
    digits = f"{float(f'{number:.3g}'):,}"
    digits = digits.removesuffix(".0")
    return f"{digits}/s" if unit == "calls/s" else f"{digits} {unit}"


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
