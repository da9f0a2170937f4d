"""This pool, the peers that cost nothing while they are idle, and what there would be without a pool."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.peer import ALL, Function, Peer
from benchmarks.recording import WORKERS


class Pool(Peer):
    """This pool: the server that COMPUTE_SERVER names, or a private one."""

    title = "this pool"
    package = "distribute_challenge"
    cases = ALL
    chunks = (None,)

    def start(self) -> None:
        self._address = os.environ.get("COMPUTE_SERVER", f"local://{WORKERS}")

    @functools.cache  # noqa: B019  The peer lives as long as its process.
    def _task(self, function: Function) -> Any:
        from distribute_challenge import compute_this

        return compute_this(server=self._address)(function)

    def caller(self, function: Function) -> Function:
        task = self._task(function)
        return lambda *arguments: task(*arguments).run()

    def submit(self, function: Function, count: int) -> None:
        task = self._task(function)
        for future in [task().submit() for _ in range(count)]:
            future.result()

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        for _ in self._task(function).map(items, chunksize=chunk):
            pass

    def stop(self) -> None:
        """It ends with the program."""


class Private(Pool):
    """A private pool, which keeps a worker from one lone call to the next."""

    title = "this pool, private"
    cases = frozenset({"startup", "lone"})

    def start(self) -> None:
        self._address = f"local://{WORKERS}"


class RawRpyc(Peer):
    """The least that RPyC takes: one call on a held method of a stock server in another process."""

    title = "raw RPyC call"
    package = "rpyc"
    cases = frozenset({"startup", "lone"})
    _SERVER = """
import rpyc
from rpyc.utils.server import ThreadedServer

class Service(rpyc.Service):
    def exposed_noop(self):
        return None

server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
print(server.port, flush=True)
server.start()
"""

    def start(self) -> None:
        import rpyc

        command = [sys.executable, "-c", self._SERVER]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        port = int(self._server.stdout.readline())
        while True:
            try:
                self._connection = rpyc.connect("127.0.0.1", port)
                return
            except ConnectionRefusedError:  # It knows its port a moment before it listens there.
                time.sleep(0.001)

    def caller(self, function: Function) -> Function:
        del function  # There is but one.
        noop: Function = self._connection.root.noop
        return noop

    def stop(self) -> None:
        self._connection.close()
        self._server.terminate()
        self._server.wait()


class NaiveRpyc(Peer):
    """The three calls that any RPyC client can make on our server, over connections that are kept."""

    title = "naive RPyC client"
    package = "rpyc"
    cases = frozenset({"lone"})
    _TEXT = "def noop():\n    return None\nresult = noop()"

    def start(self) -> None:
        import rpyc

        self._connect = functools.cache(functools.partial(rpyc.connect, "127.0.0.1"))
        port = int(os.environ["COMPUTE_SERVER"].rpartition(":")[2])
        self._server = self._connect(port)

    def caller(self, function: Function) -> Function:
        del function  # Its text is what travels.
        return self._call

    def _call(self) -> Any:
        port = self._server.root.find_free_worker()
        while port == -1:
            port = self._server.root.find_free_worker()
        result = self._connect(port).root.run_code(self._TEXT)
        self._server.root.free_worker(port)
        return result

    def stop(self) -> None:
        """Its connections end with the program."""


class Direct(Peer):
    """No pool at all: two processes, each of which runs its half in a loop."""

    title = "two plain loops"
    package = "multiprocessing"
    cases = frozenset({"short", "short_submit", "medium"})
    chunks = (None,)

    def start(self) -> None:
        self._ends = []
        for _ in range(WORKERS):
            mine, other = multiprocessing.Pipe()
            multiprocessing.Process(target=_loop, args=(other,), daemon=True).start()
            self._ends.append(mine)

    def caller(self, function: Function) -> Function:
        return lambda: self.submit(function, 1)

    def submit(self, function: Function, count: int) -> None:
        self.map(function, range(count), None)

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        del chunk
        for number, end in enumerate(self._ends):
            end.send((function, items[number::WORKERS]))
        for end in self._ends:
            end.recv()

    def stop(self) -> None:
        """Its processes end with the program."""


def _loop(end: Any) -> None:
    while True:
        function, items = end.recv()
        for item in items:
            function(item)
        end.send(None)


class _Executor(Peer):
    """Executors of `concurrent.futures`."""

    _executor: concurrent.futures.Executor

    def caller(self, function: Function) -> Function:
        submit = self._executor.submit
        return lambda *arguments: submit(function, *arguments).result()

    def submit(self, function: Function, count: int) -> None:
        for future in [self._executor.submit(function) for _ in range(count)]:
            future.result()

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        assert chunk is not None
        for _ in self._executor.map(function, items, chunksize=chunk):
            pass

    def stop(self) -> None:
        self._executor.shutdown()


class ProcessPool(_Executor):
    """The standard library's, with workers that are forked: the rule on Linux up to Python 3.13."""

    title = "ProcessPoolExecutor, fork"
    package = "concurrent"
    cases = ALL
    method = "fork"

    def start(self) -> None:
        context = multiprocessing.get_context(self.method)
        self._executor = concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=context)


class ProcessPoolServer(ProcessPool):
    """The same with workers from a server that forks: the rule from Python 3.14 on."""

    title = "ProcessPoolExecutor, forkserver"
    cases = frozenset({"startup", "lone", "submit", "map"})
    method = "forkserver"


class Pebble(_Executor):
    """A pool that can stop what runs."""

    title = "Pebble"
    package = "pebble"
    cases = frozenset({"startup", "lone", "submit", "map", "short", "short_submit"})

    def start(self) -> None:
        import pebble

        context = multiprocessing.get_context("fork")
        self._pool = pebble.ProcessPool(WORKERS, context=context)
        self._pool.active  # noqa: B018  To ask starts its threads.

    def caller(self, function: Function) -> Function:
        return lambda *arguments: self._pool.schedule(function, arguments).result()

    def submit(self, function: Function, count: int) -> None:
        for future in [self._pool.schedule(function) for _ in range(count)]:
            future.result()

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        for _ in self._pool.map(function, items, chunksize=chunk).result():
            pass

    def stop(self) -> None:
        self._pool.close()
        self._pool.join()


class Joblib(Peer):
    """What scikit-learn uses, with its own workers, which are loky's; each batch as large as it likes."""

    title = "joblib"
    package = "joblib"
    cases = frozenset({"startup", "lone", "map", "short"})
    chunks = (None,)

    def start(self) -> None:
        import joblib

        self._delayed = joblib.delayed
        self._run = joblib.Parallel(WORKERS)
        self._run.__enter__()

    def caller(self, function: Function) -> Function:
        return lambda *arguments: self._run([self._delayed(function)(*arguments)])[0]

    def map(self, function: Function, items: Sequence[Any], chunk: int | None) -> None:
        del chunk
        self._run(self._delayed(function)(item) for item in items)

    def stop(self) -> None:
        self._run.__exit__(None, None, None)


class Loky(_Executor):
    """The executor of joblib and scikit-learn."""

    title = "loky"
    package = "loky"

    def start(self) -> None:
        import loky

        self._executor = loky.get_reusable_executor(WORKERS, timeout=None)
