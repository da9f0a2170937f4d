"""Clients, workers and servers that are killed: nothing is lost to the others, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
import rpyc

from distribute_challenge import PoolExecutor, ServerUnavailable, TaskNotSendable, WorkerLost, compute_this
from tests.running import HANG_S, ROOT, RunningServer, connect, eventually, is_running

WAITING_CLIENT = "import rpyc, sys; rpyc.connect('127.0.0.1', int(sys.argv[1])).root.acquire_worker()"
HOLDING_CLIENT = """
import rpyc, sys
server = rpyc.connect('127.0.0.1', int(sys.argv[1]))  # Who has no name may be closed.
worker = rpyc.connect('127.0.0.1', server.root.acquire_worker())
worker.root.run_code("time.sleep(600)")
"""


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload]


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.wait(HANG_S)


@compute_this
def square(x):
    return x * x


def test_a_waiting_client_that_is_killed_is_skipped(server: RunningServer):
    with server.connect() as holder, server.connect() as patient:
        ports = [holder.root.find_free_worker() for _ in range(2)]
        doomed = python(WAITING_CLIENT, server.port, stderr=subprocess.DEVNULL)
        server.await_waiting(1)
        answer = rpyc.async_(patient.root.acquire_worker)()
        server.await_waiting(2)
        end(doomed)
        pids = server.worker_pids()
        holder.root.free_worker(ports[0])
        answer.wait()
        assert answer.value == ports[0]
        assert server.status()["waiting"] == 0
        assert (
            server.worker_pids() == pids
        )  # The dead one was never handed a worker, so none was killed for it.
        patient.root.free_worker(ports[0])


def test_a_waiting_client_that_is_killed_leaves_the_line_at_once(server: RunningServer):
    with server.connect() as holder:
        for _ in range(2):
            holder.root.find_free_worker()
        doomed = [python(WAITING_CLIENT, server.port, stderr=subprocess.DEVNULL) for _ in range(3)]
        server.await_waiting(3)
        for process in doomed:
            end(process)
        server.await_waiting(0)


def test_the_worker_of_a_killed_client_is_killed_and_free_again_within_two_seconds(server: RunningServer):
    before = server.worker_pids()
    client = python(HOLDING_CLIENT, server.port)
    server.await_busy([1, 0])
    end(client)
    server.await_busy([0, 0], within_s=2)
    after = server.worker_pids()
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert not is_running(before[0])
    server.await_events("start", "acquire", "lost", "replaced")


def test_a_killed_worker_is_replaced_also_when_its_function_left_children(
    server: RunningServer, tmp_path: Path
):
    """One child in the worker's group, which dies with it; one in a session of its own, which may live on."""
    pids = tmp_path / "pids"
    source = f"""
import os, subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
grouped = subprocess.Popen(sleep)
forked = os.fork()
if forked == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
with open({str(pids)!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{grouped.pid}} {{forked}} ")
time.sleep(600)
"""
    client = python(
        HOLDING_CLIENT.replace('"time.sleep(600)"', "sys.argv[2]"),
        server.port,
        source,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 3, "the function runs")
    worker, grouped, forked = map(int, pids.read_text().split())
    try:
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.worker_pids()[0] != worker, "it is replaced", within_s=1)
        server.await_busy([0, 0], within_s=2)  # Its client has seen the end of the connection, and ended too.
        eventually(lambda: not is_running(grouped), "the child in its group dies")
    finally:
        os.kill(forked, signal.SIGKILL)
        end(client)


def test_no_worker_outlives_a_killed_server(start_server: Callable[..., RunningServer]):
    server = start_server(4)
    with server.connect() as client, connect(client.root.find_free_worker()) as worker:
        # Also one that runs a function which never lets go of the interpreter.
        rpyc.async_(worker.root.run_code)("import re\nre.match('(a+)+$', 'a' * 64 + 'b')")
        pids = server.worker_pids()
        everyone = [
            *pids,
            *(child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)),
        ]
        assert len(everyone) == 4
        server.await_events("start", "acquire")
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_running, everyone)), "all workers are gone", within_s=2)
    server.await_events("start", "acquire")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_leaves_nothing(start_server: Callable[..., RunningServer], number: int):
    server = start_server(2)
    pids = server.worker_pids()
    assert server.stop(number) == 0
    assert not any(map(is_running, pids))
    server.await_events("start", "stop")
    assert server.stderr() == ""


def test_running_functions_have_their_time_of_grace(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server = start_server(1, "--grace", "30")
    running = tmp_path / "running"
    source = f"import pathlib\npathlib.Path({str(running)!r}).touch()\ntime.sleep(0.5)\nresult = 'done'"
    with server.connect() as client, connect(port := client.root.find_free_worker()) as worker:
        answer = rpyc.async_(worker.root.run_code)(source)
        eventually(running.exists, "the function runs")
        server.process.terminate()
        assert answer.value == "done"
        client.root.free_worker(port)
        assert server.process.wait(HANG_S) == 0


def test_a_server_that_stops_begins_nothing_more(start_server: Callable[..., RunningServer], tmp_path: Path):
    """Who has many tasks keeps its workers while there is work, but not for the whole time of grace."""
    server = start_server(2, "--grace", "60")
    began = tmp_path / "began"
    with PoolExecutor(server.address) as pool:
        futures = [pool.submit(begins_and_waits, str(began), number) for number in range(100)]
        eventually(lambda: began.exists() and began.read_text().count("\n") > 4, "some have run")
        server.process.terminate()
        assert server.process.wait(HANG_S) == 0
        ends = [future.exception(HANG_S) for future in futures]
    assert {type(end) for end in ends} == {type(None), ServerUnavailable}
    # Each function that has begun has ended, and most have never begun.
    assert began.read_text().count("\n") == ends.count(None) < 30


def begins_and_waits(path, number):
    import pathlib
    import time

    with pathlib.Path(path).open("a") as file:
        file.write(f"{number}\n")
    time.sleep(0.15)


@pytest.mark.parametrize("signals", [1, 2])
def test_grace_ends_after_its_time_or_with_a_second_signal(
    start_server: Callable[..., RunningServer], signals: int
):
    server = start_server(1, "--grace", "0.5" if signals == 1 else "600")
    with server.connect() as client:
        client.root.find_free_worker()
        pids = server.worker_pids()
        answer = rpyc.async_(connect(server.ports[0]).root.run_code)("time.sleep(600)")
        server.process.terminate()
        if signals == 2:
            with server.connect() as late:
                eventually(lambda: is_refused(late), "the first signal is acted on")
            server.process.terminate()
        assert server.process.wait(HANG_S) == 0
        assert not any(map(is_running, pids))
        with pytest.raises(EOFError):
            answer.value  # noqa: B018  Raises.


def is_refused(client: rpyc.Connection) -> bool:
    try:
        client.root.find_free_worker()
    except RuntimeError as error:
        return "stopping" in str(error)
    return False


def test_a_worker_killed_in_its_holders_hands_tells_the_holder_how_it_ended(server: RunningServer):
    import json

    with server.connect() as client:
        port = client.root.find_free_worker()
        pid = server.worker_pids()[0]
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: server.worker_pids()[0] != pid, "it is replaced")
        eventually(lambda: server.status()["workers"][0]["state"] == "leased", "its successor answers")
        ending = json.loads(client.root.recycle_worker(port, "it died"))
        assert (ending["port"], ending["pid"], ending["signal"]) == (port, pid, "SIGTERM")
        with pytest.raises(ValueError, match="does not hold"):
            client.root.free_worker(port)
    server.await_busy([0, 0])
    assert server.status()["lost"] == {"SIGTERM": 1}  # Its successor, which nobody has used, is no loss.


def test_two_hundred_clients_on_four_workers_are_served_right_and_in_order(
    start_server: Callable[..., RunningServer],
):
    """The server's log says who leased which worker; a client is known by its port."""
    server = start_server(4, "-v")
    results: dict[int, int] = {}
    came: list[str] = []

    def be_served(number: int, client: rpyc.Connection) -> None:
        port = client.root.acquire_worker()
        with connect(port) as worker:
            results[number] = worker.root.run_code(f"time.sleep(0.01)\nresult = {number} ** 2")
        client.root.free_worker(port)
        client.close()

    with server.connect() as holder:
        ports = [holder.root.find_free_worker() for _ in range(4)]
        threads = []
        for number in range(200):
            client = server.connect()
            came.append(f"127.0.0.1:{client._channel.stream.sock.getsockname()[1]}")
            threads.append(threading.Thread(target=be_served, args=(number, client)))
            threads[-1].start()
            server.await_waiting(number + 1)
        for port in ports:
            holder.root.free_worker(port)
        for thread in threads:
            thread.join(HANG_S)
    assert results == {number: number**2 for number in range(200)}
    leases = re.findall(r"(127\.0\.0\.1:\d+) leases worker", server.stderr())
    assert [name for name in leases if name in came] == came
    assert server.idle_status()["finished"] == 204


def test_a_function_may_take_longer_than_rpyc_waits(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """It gives up after 30 seconds, unless told otherwise: 0.2 here, in all processes."""
    setting = 'rpyc.core.protocol.DEFAULT_CONFIG["sync_request_timeout"] = 0.2'
    (tmp_path / "sitecustomize.py").write_text(f"import rpyc\n{setting}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(rpyc.core.protocol.DEFAULT_CONFIG, "sync_request_timeout", 0.2)
    server = start_server(1)

    def sleeps(seconds):
        time.sleep(seconds)
        return seconds

    with PoolExecutor(server.address) as pool:
        assert compute_this(server=server.address)(sleeps)(1).run() == 1
        assert pool.submit(sleeps, 1).result(HANG_S) == 1


def test_workers_killed_at_random_lose_only_what_ran_on_them(start_server: Callable[..., RunningServer]):
    server = start_server(2)
    on_server = compute_this(server=server.address)(time.sleep)
    is_over = threading.Event()

    def kill_now_and_then() -> None:
        while not is_over.wait(0.1):
            for worker in server.status()["workers"]:
                if worker["state"] == "leased" and is_running(worker["pid"]):
                    os.kill(worker["pid"], signal.SIGKILL)
                    break

    def call(_: int) -> str:
        try:
            assert on_server(0.02).run() is None
        except WorkerLost:
            return "lost"
        return "done"

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as threads:
        ends = list(threads.map(call, range(300)))
    is_over.set()
    killer.join(HANG_S)
    status = server.idle_status()
    assert status["finished"] == ends.count("done") > ends.count("lost") > 0
    # Also a worker that died in the hands of a client, before it got the function, counts as a failure.
    assert status["failed"] >= ends.count("lost")


def test_a_program_that_ends_with_calls_made_leaves_no_lease_behind(server: RunningServer):
    """Twenty short programs: their workers are freed, not lost, though each ends right after its free."""
    pids = server.worker_pids()
    for _ in range(5):
        programs = [
            subprocess.Popen(
                [sys.executable, str(ROOT / "challenge.py"), "0", "--server", server.address],
                stdout=subprocess.DEVNULL,
            )
            for _ in range(4)
        ]
        assert [program.wait(HANG_S) for program in programs] == [0, 0, 0, 0]
    assert server.idle_status()["finished"] == 20
    assert server.worker_pids() == pids


def test_a_forked_child_makes_connections_of_its_own(server: RunningServer):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from distribute_challenge import compute_this

@compute_this
def square(x):
    return x * x

assert square(2).run() == 4
child = os.fork()
if child == 0:
    assert square(3).run() == 9
    sys.exit(7)
assert square(4).run() == 16
_, status = os.waitpid(child, 0)
assert square(5).run() == 25
sys.exit(os.waitstatus_to_exitcode(status))
"""
    program = python(code, env={**os.environ, "COMPUTE_SERVER": server.address})
    # Typed into `-c`, the function has no text: it travels by value.
    assert program.wait(HANG_S) == 7
    assert server.idle_status()["finished"] == 4


def leaves_a_thread_that_interrupts():
    import _thread
    import threading
    import time

    def later():
        _thread.interrupt_main()
        time.sleep(1000)

    threading.Timer(0.2, later).start()  # No daemon: it would keep the process alive.


def test_a_worker_whose_main_thread_has_ended_is_replaced(server: RunningServer):
    pids = server.worker_pids()
    with PoolExecutor(server.address, max_workers=1) as pool:
        pool.submit(leaves_a_thread_that_interrupts).result(HANG_S)

        def is_replaced() -> bool:
            error = pool.submit(pow, 2, 3).exception(HANG_S)  # The interrupt waits for something to come.
            assert error is None or isinstance(error, WorkerLost)
            return server.worker_pids()[0] != pids[0]

        eventually(is_replaced, "it is replaced")
        assert pool.submit(pow, 2, 3).result(HANG_S) == 8


def forks_at_three(x, path):
    import os

    mark = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(mark, f"{x}\n".encode())
    if x == 3 and os.fork() == 0:
        return -1
    return x


def test_a_child_that_a_function_of_a_chunk_forks_does_not_run_the_rest_of_it(
    server: RunningServer, tmp_path: Path
):
    marks = tmp_path / "marks"
    with PoolExecutor(server.address) as pool:
        assert list(pool.map(forks_at_three, range(8), [str(marks)] * 8, chunksize=8)) == list(range(8))
    assert sorted(marks.read_text().split()) == list("01234567")


def test_what_child_processes_of_the_next_function_find_is_as_it_was(server: RunningServer):
    def changes_what_children_find():
        import os

        os.putenv("LEFT", "yes")
        os.unsetenv("PATH")

    def children_find():
        import subprocess
        import sys

        code = "import os; print(sorted(os.environ))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    with PoolExecutor(server.address, max_workers=1) as pool:
        before = pool.submit(children_find).result(HANG_S)
        pool.submit(changes_what_children_find).result(HANG_S)
        assert pool.submit(children_find).result(HANG_S) == before


def test_what_a_thread_prints_that_has_outlived_its_function_is_nobodys(
    start_server: Callable[..., RunningServer], capfd: pytest.CaptureFixture[str]
):
    server = start_server(1)

    @compute_this(server=server.address)
    def leaves_a_thread() -> None:
        import itertools
        import threading
        import time

        def go_on() -> None:
            for number in itertools.count():
                print("from the thread", number, flush=True)  # noqa: T201
                time.sleep(0.001)

        threading.Thread(target=go_on, daemon=True).start()
        time.sleep(0.05)

    @compute_this(server=server.address)
    def prints() -> None:
        import threading
        import time

        print("from the function")  # noqa: T201
        own = threading.Thread(target=print, args=("from its own thread",))
        own.start()
        own.join()
        time.sleep(0.2)

    leaves_a_thread().run()
    assert "from the thread" in capfd.readouterr().out
    for call in (prints().run, lambda: prints().submit().result(HANG_S)):
        call()
        assert capfd.readouterr().out == "from the function\nfrom its own thread\n"


def test_a_worker_that_cannot_be_replaced_for_a_while_costs_the_others_nothing(
    start_server: Callable[..., RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As while a package is being upgraded."""
    (tmp_path / "site").mkdir()
    site = tmp_path / "site" / "sitecustomize.py"
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    server = start_server(2)
    with PoolExecutor(server.address) as pool:
        running = pool.submit(time.sleep, HANG_S)
        eventually(lambda: sum(server.status()["busy"]) == 1, "it runs")
        site.write_text(
            "import sys\nif any('--owner' in word for word in sys.orig_argv): sys.exit('not now')\n"
        )
        idle = next(worker for worker in server.status()["workers"] if worker["state"] == "free")
        server.template().kill()  # From now on, workers are executed.
        os.kill(idle["pid"], signal.SIGKILL)
        eventually(lambda: any("problem" in worker for worker in server.status()["workers"]), "it is told")
        assert "not now" in server.stderr()
        site.write_text("")
        eventually(lambda: sum(server.status()["busy"]) == 1, "it is replaced")
        assert not running.done()
        assert running.kill()  # type: ignore[attr-defined]
    server.await_busy([0, 0])
    status = server.status()
    assert all("problem" not in worker for worker in status["workers"])
    # One that was killed while it was idle, and one for its function: none that has never been up.
    assert sum(status["lost"].values()) == 2


def test_what_a_worker_has_done_counts_although_it_dies_then(start_server: Callable[..., RunningServer]):
    server = start_server(1)
    with PoolExecutor(server.address) as pool:
        for round_ in range(1, 4):
            done = [pool.submit(abs, -number) for number in range(10)]
            dies = pool.submit(os._exit, 1)
            assert [future.result(HANG_S) for future in done] == list(range(10))
            assert isinstance(dies.exception(HANG_S), WorkerLost)
            status = server.idle_status()
            assert (status["finished"], status["failed"]) == (10 * round_, round_)


def test_a_call_larger_than_workers_take_costs_none_of_them(start_server: Callable[..., RunningServer]):
    server = start_server(2, "--max-frame", "1M")
    pids = server.worker_pids()
    numbers = list(map(float, range(200_000)))
    size = compute_this(server=server.address)(len)
    with PoolExecutor(server.address) as pool:
        for call in (size(numbers).run, size(numbers).submit().result, pool.submit(len, numbers).result):
            with pytest.raises(TaskNotSendable, match="a larger --max-frame"):
                call()
        with pytest.raises(TaskNotSendable):
            list(pool.map(len, [numbers, [1]]))
        assert list(pool.map(len, [[1], [1, 2]])) == [1, 2]
    with PoolExecutor(server.address, initializer=len, initargs=(numbers,)) as pool:
        for _ in range(2):
            with pytest.raises(BrokenProcessPool, match=r"initializer failed.*a larger --max-frame"):
                pool.submit(len, [1]).result(HANG_S)
    assert server.worker_pids() == pids


def holds_its_workers_sockets(path):
    """A program that it starts has them all, which no hook of Python's notices, and leaves the group."""
    for opened in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # The one of the folder is closed already.
            os.set_inheritable(int(opened.name), True)
    program = subprocess.Popen(["sleep", str(HANG_S)], close_fds=False, start_new_session=True)
    Path(path).write_text(str(program.pid))


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_client_learns_of_a_death_that_the_kernel_hides(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
):
    server = start_server(1)
    monkeypatch.setenv("COMPUTE_SERVER", server.address)
    held, begun = tmp_path / "held", tmp_path / "begun"
    with PoolExecutor(server.address) as pool, ThreadPoolExecutor(1) as threads:

        def waits():
            holds_its_workers_sockets(held)
            begun.touch()
            time.sleep(HANG_S)

        future = threads.submit(compute_this(waits)().run) if how == "run" else pool.submit(waits)
        eventually(lambda: begun.exists() and held.exists() and held.read_text(), "it has forked")
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        try:
            with pytest.raises(WorkerLost, match="SIGKILL"):
                future.result(HANG_S / 2)
            assert is_running(int(held.read_text()))
        finally:
            os.kill(int(held.read_text()), signal.SIGKILL)
    assert compute_this(abs)(-7).run() == 7


def test_why_workers_were_lost_is_told_by_what_ended_them(start_server: Callable[..., RunningServer]):
    """As the system does for lack of memory. Their clients ask for others at the same moment."""
    server = start_server(2)

    def kills_itself():
        os.kill(os.getpid(), signal.SIGKILL)

    with PoolExecutor(server.address) as pool:
        for future in [pool.submit(kills_itself) for _ in range(20)]:
            assert isinstance(future.exception(HANG_S), WorkerLost)
    eventually(lambda: server.status()["lost"] == {"SIGKILL": 20}, "all are counted")


STOPS_ITSELF = """
import os, signal, time
from distribute_challenge import PoolExecutor

def func(path):
    time.sleep(1)
    open(path, "w").close()
    return "done"

with PoolExecutor() as pool:
    future = pool.submit(func, os.environ["ENDED"])
    while not future.running():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSTOP)
    print(future.exception() or future.result())
"""


def has_unread(pid: int, port: int) -> bool:
    """Whether something from that port has come to a process, and was not read."""
    own = {
        it.laddr.port for it in psutil.Process(pid).net_connections() if it.raddr and it.raddr.port == port
    }
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, _, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) in own and int(queues.partition(":")[2], 16):
            return True
    return False


def test_a_result_that_is_there_when_the_server_has_gone_counts(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    server, ended = start_server(1), tmp_path / "ended"
    (port,) = server.ports
    variables = {**os.environ, "COMPUTE_SERVER": server.address, "PYTHONPATH": str(ROOT), "ENDED": str(ended)}
    command = [sys.executable, "-c", STOPS_ITSELF]
    client = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)
    (pid,) = server.worker_pids()
    eventually(ended.exists, "the function has ended")
    eventually(lambda: psutil.Process(client.pid).status() == psutil.STATUS_STOPPED, "its client is stopped")
    eventually(lambda: has_unread(client.pid, port), "its result is there")
    server.process.kill()
    eventually(lambda: not is_running(pid), "the worker has gone")
    client.send_signal(signal.SIGCONT)
    assert client.communicate(timeout=HANG_S)[0] == "done\n"
