"""How executors end: shut down, dropped, or left to the end of the program."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest

from distribute_challenge import PoolExecutor
from tests.running import HANG_S, ROOT, RunningServer, eventually

USES = """
import gc, sys
from distribute_challenge import PoolExecutor, compute_this

server, how = sys.argv[1:]
pool = PoolExecutor(server)
if how == "not used":
    sys.exit()
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
    "how", ["not used", "shut down", "shut down behind", "dropped", "left", "results are left", "run"]
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


GOES_ON = """
import time
from distribute_challenge import PoolExecutor

with PoolExecutor("local://1") as pool:
    try:
        print(pool.submit(abs, -3).result(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        for _ in range(3):  # It would take its time to stop.
            pool.submit(time.sleep, 0.3).result()
        print(pool.submit(abs, -4).result(), flush=True)
"""


def test_a_private_server_lives_on_after_a_ctrl_c_that_its_program_handles():
    """At a terminal, all processes of the program's group get it."""
    command, environment = [sys.executable, "-c", GOES_ON], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "3\n"
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout.read() == "4\n"
    assert program.returncode == 0


FORKS = """
import os, psutil, sys
from distribute_challenge import PoolExecutor, compute_this

how, parent = sys.argv[1], os.getpid()
pool, length = PoolExecutor("local://1"), compute_this(server="local://1")(len)
assert pool.submit(abs, -2).result() == length("ab").run() == 2
is_ready, has_gone = os.pipe(), os.pipe()
if os.fork() != 0:
    os.close(has_gone[0]), os.close(is_ready[1])
    os.read(is_ready[0], 1)
    if how == "its servers are killed":
        assert os.wait()[1] == 0
        assert pool.submit(abs, -5).result() == length("abcde").run() == 5
    sys.exit()
os.close(has_gone[1]), os.close(is_ready[0])
assert pool.submit(abs, -3).result() == length("abc").run() == 3
os.close(is_ready[1])
if how == "its servers are killed":
    for server in psutil.Process(parent).children():
        if server.pid != os.getpid():
            server.kill()
else:
    os.read(has_gone[0], 1)
for _ in range(2):
    assert pool.submit(abs, -4).result() == length("abcd").run() == next(pool.map(abs, [-4])) == 4
print(len(psutil.Process().children()), flush=True)
pool.shutdown()
"""


@pytest.mark.parametrize("how", ["its parent ends", "its servers are killed"])
def test_a_forked_child_gets_servers_of_its_own_when_those_of_its_parent_are_gone(how: str):
    command, environment = [sys.executable, "-c", FORKS, how], {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert program.stdout == "2\n", program.stderr
