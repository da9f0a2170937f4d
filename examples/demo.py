"""The main job, once: two workers, four programs at the same time, and what the workers did."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
SHELLS = 4
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
    print(f"$ python3 server.py {WORKERS}", flush=True)
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "server.py"), str(WORKERS), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        ready = server.stdout.readline()
        if not ready.startswith("ready: "):
            return server.wait()
        print(ready, end="")
        address = ready.split()[1].rstrip(",")

        print(f"\n$ python3 challenge.py     # in {SHELLS} shells at once: with {WORKERS} workers, two wait")
        command = [sys.executable, str(ROOT / "challenge.py"), "--server", address]
        codes = [shell.wait() for shell in [subprocess.Popen(command) for _ in range(SHELLS)]]
    finally:
        server.terminate()
        server.wait()

    profile = Path("profiling") / f"results_{WORKERS}.csv"
    print("\nThe busy list (1: that worker is busy), change by change:")
    for line in tell(profile):
        print(f"  {line}")
    print(f"\nThe profile is {profile}")

    print(f"\n$ python3 grapher.py {profile.name}", flush=True)
    grapher = [sys.executable, str(ROOT / "grapher.py"), str(profile), "--port", "0"]
    codes.append(subprocess.run(grapher, check=False).returncode)
    return max(codes)


def tell(profile: Path) -> list[str]:
    """The profile in words."""
    with profile.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Event"] != "sample"]
    began = float(rows[0]["Timestamp"])
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
