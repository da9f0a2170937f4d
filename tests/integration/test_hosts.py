"""A Dask cluster on several hosts, one of which is cut off for a while. They are network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ROOT, eventually

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="it takes root, and the command `ip` (iproute2), to make network namespaces",
    ),
    pytest.mark.skipif("HOSTS" not in os.environ, reason="it takes minutes: HOSTS=1 make test"),
]

NUMBER = os.getpid() % 10_000
HUB = f"hub{NUMBER}"
HOSTS = {name: f"10.78.0.{number}" for number, name in enumerate(("sched", "one", "two", "client"), start=1)}
NOTICED_S = 12  # What is sent and not answered for so long is lost, to Dask: by default 30 s.
DASK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{NOTICED_S}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": f"{NOTICED_S}s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{NOTICED_S}s",
}
CLIENT = """
import collections, os, sys, time
from distribute_challenge import PoolExecutor, PoolError

def work(number):
    print("began", number, flush=True)
    time.sleep(0.5)
    return number, os.environ["HOST_NAME"]

with PoolExecutor(sys.argv[1], wait=100) as pool:  # All start at once.
    futures = [pool.submit(work, number) for number in range(40)]
    ended = collections.Counter()
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: ended.update([number]))
    hosts = set()
    for future in futures:
        try:
            hosts.add(future.result()[1])
        except PoolError as error:
            print("lost", error, flush=True)
        if len(hosts) == 2:
            print("both work", flush=True)
            hosts.add("told")
    print("all are here", flush=True)
    began = time.monotonic()
    found = set()
    while len(found) < 2 and time.monotonic() - began < 90:
        found |= {host for _, host in pool.map(work, range(4), chunksize=1)}
    print("back", sorted(found), flush=True)
# All callbacks have been called.
print("each ended once:", ended == collections.Counter(range(40)), flush=True)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def network() -> Iterator[None]:
    """Hosts with an address each, on one switch."""
    ip("netns", "add", HUB)
    ip("-n", HUB, "link", "add", "switch", "type", "bridge")
    ip("-n", HUB, "link", "set", "switch", "up")
    for name, address in HOSTS.items():
        host = f"{name}{NUMBER}"
        ip("netns", "add", host)
        ip("-n", HUB, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host)
        ip("-n", HUB, "link", "set", name, "master", "switch", "up")
        ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")
        ip("-n", host, "link", "set", "lo", "up")
    yield
    for name in HOSTS:
        ip("netns", "delete", f"{name}{NUMBER}")
    ip("netns", "delete", HUB)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(host: str, *arguments: str, log: Path) -> subprocess.Popen[str]:
    """A Python program on a host."""
    command = ["ip", "netns", "exec", f"{host}{NUMBER}", sys.executable, *arguments]
    environment = {**os.environ, **DASK, "HOST_NAME": host, "PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, text=True, cwd=log.parent)


@pytest.mark.timeout(300)
def test_a_host_that_is_cut_off_in_mid_run_costs_no_task_its_end(
    network: None, processes: list[subprocess.Popen[str]], tmp_path: Path
):
    url = f"tcp://{HOSTS['sched']}:8786"
    address = ["--host", HOSTS["sched"], "--port", "8786", "--no-dashboard"]
    log = tmp_path / "dask.log"
    processes.append(start("sched", "-m", "distributed.cli.dask_scheduler", *address, log=log))

    def start_worker(host: str) -> None:
        place = ["--host", HOSTS[host], "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
        processes.append(start(host, "-m", "distributed.cli.dask_worker", url, *place, log=log))

    start_worker("one")
    start_worker("two")
    (tmp_path / "client.py").write_text(CLIENT)
    told = tmp_path / "told"
    server = f"dask://{HOSTS['sched']}"
    client = start("client", str(tmp_path / "client.py"), server, log=told)
    processes.append(client)
    try:
        eventually(lambda: "both work" in told.read_text(), "both hosts work", 120)
        ip("-n", HUB, "link", "set", "two", "down")
        eventually(lambda: "all are here" in told.read_text(), "all tasks have ended", 120)
        ip("-n", HUB, "link", "set", "two", "up")
        start_worker("two")  # The other one has ended, or will, as it has lost its scheduler.
        assert client.wait(150) == 0
    except BaseException:
        print(told.read_text(), log.read_text()[-5000:])
        raise
    assert "each ended once: True" in told.read_text()
    assert "back ['one', 'two']" in told.read_text()
