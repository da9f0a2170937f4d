"""A client of `soak.py`: calls functions in every way, whatever happens, and reports how each of them ended.

    python benchmarks/soak_client.py MARKS REPORT

Each function that begins leaves a line in MARKS. It goes on until there is a file `REPORT.stop`; from
`REPORT.begun` on, it may get Ctrl-C. REPORT is JSON: task -> how it ended. Children that it forks write
reports of their own, `REPORT.of-PID`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

from distribute_challenge import PoolExecutor, ServerUnavailable, WorkerLost, compute_this

KINDS = ("quick", "quick", "slow", "raises", "prints")
WAYS = ("run", "submit", "map", "fork")
WAIT_S = 60
MAX_CHILDREN = 100


def work(kind: str, task: str, marks: str) -> str:
    """What runs on the workers."""
    import os
    import time

    descriptor = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (task + "\n").encode())
    os.close(descriptor)
    if kind == "raises":
        raise ValueError(task)
    if kind == "slow":
        time.sleep(0.05)
    if kind == "prints":
        print(task)
    return task


def end_of(call: Callable[[], object], task: str, kind: str) -> str:
    """How a task ended, in a word or two."""
    try:
        value = call()
    except ValueError as error:
        return "raised" if kind == "raises" and error.args == (task,) else "wrong"
    except WorkerLost:
        return "lost"
    except ServerUnavailable:
        return "without a server"
    except CancelledError:
        return "cancelled"
    return "returned" if value == task and kind != "raises" else "wrong"


class Client:
    """The program."""

    def __init__(self, marks: str, report: str) -> None:
        self._marks, self._report = marks, report
        self._on_pool = compute_this(prints=False, wait=WAIT_S)(work)
        self._pool = PoolExecutor(prints=False, wait=WAIT_S)
        self._ends: dict[str, str] = {}
        self._children: list[int] = []

    def run(self) -> int:
        """Call until it is told to stop; the exit code."""
        is_over = False
        while not is_over:
            try:
                try:
                    self._call_on_and_on()
                    is_over = True
                except KeyboardInterrupt:
                    continue
            except KeyboardInterrupt:  # Another one, meanwhile.
                continue
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for _ in range(3):  # Whatever was interrupted, it works.
            self._submit(self._some_tasks())
        self._pool.shutdown()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self._children]
        self._write(self._report)
        return int(any(codes))

    def _call_on_and_on(self) -> None:
        Path(f"{self._report}.begun").touch()
        while not Path(f"{self._report}.stop").exists():
            way = random.choice(WAYS)
            if way == "fork" and len(self._children) < MAX_CHILDREN:
                self._call_in_child()
            elif way == "submit":
                self._submit(self._some_tasks())
            elif way == "map":
                self._map(self._some_tasks())
            else:
                self._run_each(self._some_tasks()[:10])

    def _some_tasks(self) -> list[tuple[str, str]]:
        """Kinds, and names that no other task has: numbers of processes are used again."""
        return [(random.choice(KINDS), str(uuid.uuid4())) for _ in range(random.randrange(1, 60))]

    def _run_each(self, tasks: list[tuple[str, str]]) -> None:
        for kind, task in tasks:
            self._ends[task] = end_of(self._on_pool(kind, task, self._marks).run, task, kind)

    def _submit(self, tasks: list[tuple[str, str]]) -> None:
        futures = [(*named, self._pool.submit(work, *named, self._marks)) for named in tasks]
        for kind, task, future in futures:
            self._ends[task] = end_of(lambda future=future: future.result(2 * WAIT_S), task, kind)

    def _map(self, tasks: list[tuple[str, str]]) -> None:
        kinds, names = zip(*tasks, strict=True)
        marks = [self._marks] * len(tasks)
        results = self._pool.map(work, kinds, names, marks, return_exceptions=True)
        for (kind, task), result in zip(tasks, results, strict=True):
            self._ends[task] = end_of(lambda result=result: given(result), task, kind)

    def _call_in_child(self) -> None:
        pid = os.fork()
        if pid:
            self._children.append(pid)
            return
        code = 1
        try:
            self._ends.clear()
            self._run_each(self._some_tasks()[:10])
            self._submit(self._some_tasks())
            self._write(f"{self._report}.of-{os.getpid()}")
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _write(self, path: str) -> None:
        part = Path(f"{path}.part")
        part.write_text(json.dumps(self._ends))
        part.rename(path)


def given(result: object) -> object:
    """A result; an exception is raised."""
    if isinstance(result, BaseException):
        raise result
    return result


if __name__ == "__main__":
    sys.exit(Client(*sys.argv[1:]).run())
