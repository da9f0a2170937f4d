"""What the live page costs: a full pool with nobody looking, with a browser open, and a large record.

    python benchmarks/live_page.py [WORKERS] [TASKS A SECOND]

A process writes the record of 64 workers that run 5,000 tasks a second, each with a row of its own, as a
server would. The page's process is measured over 20 seconds, first alone, then with a headless Chromium (left
out where there is none). Then a record of a million tasks is made, opened as a page, and written as a report.

The promises: a quarter of a core, 100 kB a second to each browser, 10 s to open, 5 MB. The exit code is 1 if
one is missed.
"""

from __future__ import annotations

import fcntl
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from distribute_challenge.record import profile as profiles
from distribute_challenge.record import tasks as task_files
from distribute_challenge.record.tasks import tasks_path

ROOT = Path(__file__).parents[1]
MEASURED_S = 20
LARGE = 1_000_000
FIRST_PORT = 18812
PYTHON = [sys.executable]


def rows(workers: int, number: int, began: float, ended: float) -> str:
    """The row of a task."""
    port, function = FIRST_PORT + number % workers, f"package.module.function_{number % 12}"
    status, error = ("failed", "ValueError: bad") if random.random() < 0.002 else ("done", "")
    times = f"{began - 0.5:.6f},{began:.6f},{ended:.6f}"
    client = f"program.py:{1000 + number % 9}"
    return f"{number},{function},{client},{port},{times},1,{ended - began:.6f},{status},400,80,,{error}\n"


def sample(made: profiles.Rows, workers: int, now: float) -> str:
    """A row of the profile with what each worker takes."""
    return made.sample(now, [profiles.Usage(random.uniform(0, 100), random.randint(3, 6) * 10**7)] * workers)


def write_for_ever(path: Path, workers: int, rate: int) -> None:
    """Write a record as a server does, 50 times a second."""
    with path.open("w") as profile, tasks_path(path).open("w") as tasks:
        fcntl.flock(profile, fcntl.LOCK_EX)
        made, number = profiles.Rows(workers), 0
        profile.write(profiles.HEADER + made.change(profiles.Change(time.time(), "start", None, *[0] * 5)))
        tasks.write(task_files.HEADER)
        lasts_s, due = 0.9 * workers / rate, time.time()
        while True:
            now = time.time()
            count = rate // 50
            tasks.write("".join(rows(workers, number + n, now - lasts_s, now) for n in range(count)))
            number += count
            if now >= due:
                profile.write(sample(made, workers, now))
                due += 0.5
            profile.flush()
            tasks.flush()
            time.sleep(max(0.02 - (time.time() - now), 0))


def write_large(path: Path, workers: int) -> None:
    """Write a record of a million tasks."""
    began, lasts_s = 1.79e9, 0.05
    made = profiles.Rows(workers)
    with path.open("w") as profile, tasks_path(path).open("w") as tasks:
        profile.write(profiles.HEADER + made.change(profiles.Change(began, "start", None, *[0] * 5)))
        tasks.write(task_files.HEADER)
        for number in range(LARGE):
            at = began + 1 + number // workers * lasts_s
            tasks.write(rows(workers, number, at, at + lasts_s * random.uniform(0.1, 1)))
        for half in range(int(2 * LARGE / workers * lasts_s)):
            profile.write(sample(made, workers, began + half / 2))


class Page:
    """The page of a record, from the start of its process."""

    def __init__(self, path: Path) -> None:
        began = time.monotonic()
        command = [*PYTHON, "-m", "distribute_challenge.pictures.live", str(path), "--address", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[1]
        self.opened_s = time.monotonic() - began
        self._measured = psutil.Process(self.process.pid)

    def cores(self, wait: Any) -> tuple[float, float]:
        """The share of a core that it takes while `wait` waits, and how long that was."""
        began, before = time.monotonic(), sum(self._measured.cpu_times()[:2])
        wait()
        spent_s = time.monotonic() - began
        return (sum(self._measured.cpu_times()[:2]) - before) / spent_s, spent_s

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def with_browser(page: Page) -> tuple[float, float] | None:
    """The share of a core with a browser open, and bytes sent a second; None if there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    sizes: list[int] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("websocket", lambda socket: socket.on("framereceived", lambda data: sizes.append(len(data))))
        tab.goto(page.url)
        tab.wait_for_timeout(8000)  # The first look at what was there already is sent at once.
        sizes.clear()
        cores, spent_s = page.cores(lambda: tab.wait_for_timeout(MEASURED_S * 1000))
        browser.close()
    return cores, sum(sizes) / spent_s


def figures(folder: Path, workers: int, rate: int) -> Iterator[tuple[str, float, float]]:
    """What is measured, what came out, and what it may be at most."""
    path = folder / "live.csv"
    writer = subprocess.Popen([*PYTHON, __file__, str(workers), str(rate), str(path)])
    try:
        while not (path.exists() and tasks_path(path).exists() and path.read_text().count("\n") > 2):
            time.sleep(0.1)
        page = Page(path)
        yield "cores, nobody looks", page.cores(lambda: time.sleep(MEASURED_S))[0], 0.25
        looked = with_browser(page)
        if looked is not None:
            yield "cores, a browser is open", looked[0], 0.25
            yield "kB a second to the browser", looked[1] / 1000, 100
        page.close()
    finally:
        writer.kill()
        writer.wait()
    write_large(folder / "large.csv", workers)
    page = Page(folder / "large.csv")
    page.close()
    yield "seconds to open a million tasks", page.opened_s, 10

    report = folder / "report.html"
    command = [*PYTHON, "grapher.py", str(folder / "large.csv"), "--html", str(report)]
    subprocess.check_output(command, cwd=ROOT)
    yield "MB of their report", report.stat().st_size / 1e6, 5


def main(workers: int, rate: int) -> int:
    """Measure, and print a line for each figure."""
    is_kept = True
    with tempfile.TemporaryDirectory() as folder:
        for name, value, most in figures(Path(folder), workers, rate):
            print(f"{value:10.3f}  of at most {most:6.2f}  {name}", flush=True)
            is_kept = is_kept and value <= most
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    numbers = [int(argument) for argument in sys.argv[1:3]] + [64, 5000][len(sys.argv[1:3]) :]
    if len(sys.argv) > 3:
        write_for_ever(Path(sys.argv[3]), *numbers)
    sys.exit(main(*numbers))
