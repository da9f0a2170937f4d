"""The main job, once: two workers, four programs at the same time, and what the workers did."""

from __future__ import annotations

import contextlib
import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
SHELLS = 4
PROFILE = Path("profiling") / "results_demo.csv"  # A name of its own: it takes the place of no other.
WORDS = {
    "start": "both workers are free",
    "acquire": "a client gets the first free worker",
    "free": "one ends: its worker is free",
    "lost": "a worker died",
    "replaced": "a new worker answers in its place",
    "stop": "the server stops",
}


def main() -> int:
    """Run the demonstration; the exit code."""
    with contextlib.suppress(OSError):  # Then the server says that it cannot write there.
        PROFILE.parent.mkdir(exist_ok=True)
    command = ["server.py", str(WORKERS), "-q", "--port", "0", "--profile", str(PROFILE)]
    show(command)
    server = subprocess.Popen(python(command), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        ready = server.stdout.readline()
        if not ready.startswith("ready: "):
            return server.wait()
        print(ready)
        command = ["challenge.py", "--server", ready.split()[1].rstrip(",")]
        show(command, f"     # in {SHELLS} shells at once: with {WORKERS} workers, two wait")
        # Whole lines at once: all print here.
        variables = {**os.environ, "PYTHONUNBUFFERED": ""}
        shells = [subprocess.Popen(python(command), env=variables) for _ in range(SHELLS)]
        codes = [shell.wait() for shell in shells]
    finally:
        server.terminate()
        server.wait()

    lines = tell(PROFILE) if PROFILE.exists() else []
    if not lines:
        print(f"\nThe server left no profile in {PROFILE}", flush=True)
        return 1
    print("\nThe busy list (1: that worker is busy), change by change:")
    for line in lines:
        print(f"  {line}")
    print(f"\nThe profile is {PROFILE}\n")

    command = ["grapher.py", PROFILE.name, "--out", "plots/demo", "--port", "0"]
    show(command)
    codes.append(subprocess.run(python(command), check=False).returncode)
    return int(any(codes))


def show(command: list[str], remark: str = "") -> None:
    """Print a command as one would type it."""
    print(f"$ python3 {shlex.join(command)}{remark}", flush=True)


def python(command: list[str]) -> list[str]:
    """The command with this interpreter, wherever the current directory is."""
    return [sys.executable, str(ROOT / command[0]), *command[1:]]


def tell(profile: Path) -> list[str]:
    """The profile in words; the samples and a row that was cut short are left out."""
    with profile.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Event"] in WORDS]
    began = float(rows[0]["Timestamp"]) if rows else 0.0
    lines = []
    before = None
    for row in rows:
        what = WORDS[row["Event"]]
        if row["Event"] == "free" and row["Busy"] == before:
            what = "one ends: its worker passes to who waited longest"
        elif row["Event"] == "acquire" and row["Busy"] == before:
            continue  # The other half of that.
        before = row["Busy"]
        counts = f"{row['Finished']} finished, {row['Waiting']} waiting"
        lines.append(f"{float(row['Timestamp']) - began:6.3f} s  {before}  {counts}  {what}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
