"""How executors end: shut down, dropped, or left to the end of the program."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest

from distribute_challenge import PoolExecutor
from tests.running import HANG_S, RunningServer, eventually

USES = """
import gc, sys
from distribute_challenge import PoolExecutor, compute_this

server, how = sys.argv[1:]
pool = PoolExecutor(server)
assert pool.submit(abs, -1).result() == 1
results = pool.map(abs, range(100))
if how == "results are left":
    next(results)
else:
    assert list(results)[-1] == 99
if how == "shut down":
    pool.shutdown()
elif how == "shut down behind":
    pool.shutdown(wait=False)
elif how == "dropped":
    del pool, results
    gc.collect()
elif how == "run":
    assert compute_this(server=server)(abs)(-2).run() == 2
"""


@pytest.mark.parametrize(
    "how", ["shut down", "shut down behind", "dropped", "left", "results are left", "run"]
)
@pytest.mark.parametrize("where", ["private", "shared"])
def test_an_executor_leaves_nothing_to_warn_of(used_server: RunningServer, where: str, how: str):
    address = "local://1" if where == "private" else used_server.address
    command = [sys.executable, "-X", "dev", "-c", USES, address, how]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


def set_up() -> None:
    os.environ["IS_SET_UP"] = "1"


@pytest.mark.parametrize("options", [{}, {"initializer": set_up}], ids=["plain", "with an initializer"])
def test_an_executor_that_is_dropped_ends_its_server_and_closes_its_connections(
    tmp_path: Path, options: dict[str, Any]
):
    program = psutil.Process()
    children, descriptors = set(program.children()), program.num_fds()
    pool = PoolExecutor("local://1", **options)
    assert pool.submit(abs, -1).result(HANG_S) == 1
    there = weakref.ref(pool)
    del pool

    def is_gone() -> bool:
        gc.collect()
        return there() is None

    eventually(is_gone, "nothing holds it")
    # Less may be left: what an earlier test had left has ended meanwhile.
    eventually(lambda: children.issuperset(program.children()), "not even a zombie is left")
    eventually(lambda: program.num_fds() <= descriptors, "nor a descriptor")
