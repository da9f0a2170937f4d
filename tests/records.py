"""Records as tests write them: a profile and its tasks, as a server would."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from distribute_challenge.record import profile as profiles
from distribute_challenge.record import tasks as task_files
from distribute_challenge.record.tasks import DONE, FAILED, LOST, tasks_path

BEGAN = 1.79e9


class Row(NamedTuple):
    """A row of a tasks file. Times are seconds since the record began."""

    function: str
    worker: int  # number
    started: float
    ended: float
    count: int = 1
    status: str = DONE
    error: str = ""
    client: str = "a.py:7"

    def text(self, number: int, ports: list[int]) -> str:
        """The row in the file."""
        times = f"{BEGAN + self.started - 0.5:.6f},{BEGAN + self.started:.6f},{BEGAN + self.ended:.6f}"
        spent = self.ended - self.started
        name = f'"{self.function}"' if "," in self.function else self.function
        where = f"{number},{name},{self.client},{ports[self.worker]}"
        return f"{where},{times},{self.count},{spent:.6f},{self.status},100,10,,{self.error}\n"


def write_tasks(path: Path, rows: list[Row], ports: list[int]) -> None:
    """Write the tasks file that belongs to a profile."""
    text = "".join(row.text(number, ports) for number, row in enumerate(rows))
    tasks_path(path).write_text(task_files.HEADER + text)


def write_profile(path: Path, workers: int, seconds: int) -> None:
    """Write a profile in which all workers are busy from 1 s on, with a sample each half second."""
    rows = profiles.Rows(workers)
    usage = [profiles.Usage(50.0, 1 << 20)] * workers
    text = rows.change(profiles.Change(BEGAN, "start", None, 0, 0, 0, 0, 0))
    for worker in range(workers):
        text += rows.change(profiles.Change(BEGAN + 1, "acquire", worker, 1, 0, 0, 2, 5))
    text += "".join(rows.sample(BEGAN + half / 2, usage) for half in range(3, 2 * seconds))
    for worker in range(workers):
        text += rows.change(profiles.Change(BEGAN + seconds, "free", worker, 0, 10, 0, 0, 0))
    path.write_text(profiles.HEADER + text)


def random_rows(count: int, workers: int, seed: int = 1) -> list[Row]:
    """Tasks one after another on each worker, short and long, in the order of their ends; some fail."""
    chance = random.Random(seed)
    at = [1.0] * workers
    rows = []
    for _ in range(count):
        worker = chance.randrange(workers)
        started = at[worker] + chance.expovariate(100)
        at[worker] = ended = started + chance.expovariate(20)
        status = chance.choices((DONE, FAILED, LOST), (96, 3, 1))[0]
        error = "" if status == DONE else "ValueError: <b>no</b>"
        name = f"func_{chance.randrange(12)}"
        rows.append(Row(name, worker, started, ended, chance.choice((1, 1, 7)), status, error))
    return sorted(rows, key=lambda row: row.ended)
