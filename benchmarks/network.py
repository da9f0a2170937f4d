"""Two machines on a slow, lossy or cut network: what calls of each kind see, and when.

    sudo python benchmarks/network.py [speed] [loss] [cut]

The machines are two network namespaces (see `machines.py`). It needs root, the command `ip` and /dev/net/tun,
and takes five minutes:

    speed   40 functions of 0.1 s on 4 workers, and lone calls, at several round trips
    loss    programs that come and go at 200 ms, 2 % of the packets lost: every result, and no worker killed
    cut     the network down for 90 s under each kind of call at each stage: how it ended, and when
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cable import TUN
from benchmarks.machines import PORT, SERVER, machines
from distribute_challenge.tls import VARIABLES

DOWN_S = 90
KINDS, STAGES = ("run", "submit", "map"), ("sending", "in line", "running", "returning")

SPEED = """
import sys, time
from distribute_challenge import PoolExecutor, compute_this

def takes(x):
    time.sleep(0.1)
    return x

def timed(what):
    begin = time.monotonic()
    what()
    return f"{time.monotonic() - begin:.2f}"

one = compute_this(abs)
runs = [timed(lambda: one(1).run()) for _ in range(3)]
ways = {
    "submit": lambda pool: [f.result() for f in [pool.submit(takes, x) for x in range(40)]],
    "map": lambda pool: list(pool.map(takes, range(40))),
}
cold = []
for name, way in ways.items():
    with PoolExecutor() as pool:
        cold.append(timed(lambda: way(pool)))
with PoolExecutor() as pool:
    ways["map"](pool)
    print(*cold, *[timed(lambda: way(pool)) for way in ways.values()], runs[0], min(runs[1:]))
"""

LOSS = """
import time
from distribute_challenge import PoolExecutor, compute_this
pool = PoolExecutor()
for _ in range(4):
    assert [f.result() for f in [pool.submit(pow, x, 2) for x in range(3)]] == [0, 1, 4]
    time.sleep(0.3)
assert list(pool.map(abs, range(200))) == list(range(200))
assert compute_this(abs)(-1).run() == 1
print("right")
"""

CUT = """
import json, os, sys, time
from distribute_challenge import PoolExecutor, compute_this

kind, stage, marks = sys.argv[1:]
large = bytes(64 << 20)

def waits(mark, _, is_large):
    while mark and not os.path.exists(mark):
        time.sleep(0.05)
    return bytes(64 << 20) if is_large else None

call = {
    "sending": ("", large, False),
    "in line": ("", b"", False),
    "running": (marks + "/never", b"", False),
    "returning": (marks + "/sending", b"", True),
}[stage]
one = compute_this(abs)
one(-1).run()
print("ready", flush=True)
sys.stdin.readline()
pool = PoolExecutor(max_workers=1, prints=False)
try:
    if kind == "run":
        compute_this(prints=False)(waits)(*call).run()
    elif kind == "submit":
        pool.submit(waits, *call).result()
    else:
        list(pool.map(waits, *[[value] for value in call]))
    end = "its result"
except Exception as error:
    end = type(error).__name__
print(json.dumps([end, time.time()]), flush=True)
sys.stdin.readline()
try:
    one(-1).run()
    print("runs")
except Exception as error:
    print(type(error).__name__)
"""

WATCH = """
import json, os, ssl, sys, time, rpyc
cert, key, ca = (os.environ[name] for name in sys.argv[3:])
server = rpyc.ssl_connect(sys.argv[1], int(sys.argv[2]), key, cert, ca, cert_reqs=ssl.CERT_REQUIRED)
while True:
    status = json.loads(server.root.status())
    print(time.time(), sum(status["busy"]), status["waiting"], flush=True)
    time.sleep(0.5)
"""


def output(program: subprocess.Popen[str]) -> str:
    """What a program prints, once it has ended."""
    return program.communicate()[0].strip()


def row(*cells: object) -> None:
    """A row of a table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def speed() -> None:
    """How long functions take, at several round trips."""
    row(
        "round trip",
        "first `submit`",
        "first `map`",
        "later `submit`",
        "later `map`",
        "first `run`",
        "later `run`",
    )
    row("---:", *["---:"] * 6)
    with machines(4) as both:
        for delay_s in (0, 0.025, 0.05, 0.1):
            both.set("delay", delay_s)
            row(
                f"{2000 * delay_s:.0f} ms", *(f"{seconds} s" for seconds in output(both.start(SPEED)).split())
            )


def loss() -> None:
    """Programs that come and go, at 200 ms there and back, while packets get lost."""
    with machines(4) as both:
        both.set("delay", 0.1)
        both.set("loss", 0.02)
        ends = [output(both.start(LOSS)) for _ in range(12)]
        time.sleep(5)  # Until what the last one has said is there.
        events = both.events()
        print(f"{ends.count('right')} of {len(ends)} programs had every result")
        print(f"workers leased: {events['acquire']}, killed: {events['lost']}")


def cut() -> None:
    """The network down for 90 s, under calls of each kind at each stage."""
    cells = [(kind, stage) for stage in STAGES for kind in KINDS]
    workers = sum(stage != "in line" for _, stage in cells)
    with machines(workers) as both:
        both.set("delay", 0.02)
        watch = both.start(WATCH, SERVER, PORT, *VARIABLES, at=both.near)
        clients = {cell: both.start(CUT, *cell, both.folder) for cell in cells}
        for client in clients.values():
            line_of(client)
        both.set("rate", 2e6)

        def go(*stages: str) -> None:
            for (_, stage), client in clients.items():
                if stage in stages:
                    tell(client)

        go("running", "returning")
        until(watch, lambda busy, _: busy == 6)
        (both.folder / "sending").touch()
        go("sending")
        until(watch, lambda busy, _: busy == workers)
        go("in line")
        until(watch, lambda _, waiting: waiting == len(KINDS))
        both.set("cut")
        down = time.time()
        freed = until(watch, lambda busy, waiting: busy == waiting == 0)
        time.sleep(max(down + DOWN_S - time.time(), 0))
        both.set("mend")
        both.set("rate", 1e9)
        row("call", "while it is", "ended after", "as", "another call, when the network is there")
        row("---", "---", "---:", "---", "---")
        for (kind, stage), client in clients.items():
            end, ended = json.loads(line_of(client))
            tell(client)
            row(f"`{kind}`", stage, f"{ended - down:.0f} s", f"`{end}`", output(client))
        print(
            f"\nAll workers were free, and nobody in line, {freed - down:.0f} s after the network went down"
        )
        watch.terminate()
        watch.wait()


def line_of(program: subprocess.Popen[str]) -> str:
    """The next line that a program prints."""
    assert program.stdout is not None
    return program.stdout.readline()


def tell(program: subprocess.Popen[str]) -> None:
    """Have a program go on."""
    assert program.stdin is not None
    program.stdin.write("go\n")
    program.stdin.flush()


def until(watch: subprocess.Popen[str], condition: Callable[[int, int], bool]) -> float:
    """When the number of busy workers, and that of clients in line, were first so."""
    while True:
        at, busy, waiting = line_of(watch).split()
        if condition(int(busy), int(waiting)):
            return float(at)


def main() -> None:
    """What the arguments name, or all of it."""
    lacks = None
    if os.geteuid() != 0:
        lacks = "root: start it with sudo"
    elif shutil.which("ip") is None:
        lacks = "the command `ip`: install iproute2"
    elif not Path(TUN).exists():
        lacks = f"{TUN}: load the kernel's module `tun`"
    known = {"speed": speed, "loss": loss, "cut": cut}
    if lacks is None and not set(sys.argv[1:]) <= known.keys():
        lacks = f"names of cases: {', '.join(known)}"
    if lacks is not None:
        sys.stderr.write(f"network.py: it needs {lacks}\n")
        sys.exit(2)
    for name in sys.argv[1:] or known:
        print(f"\n{name}: {known[name].__doc__}\n")
        known[name]()


if __name__ == "__main__":
    main()
