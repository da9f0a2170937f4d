"""Values that are sent to each worker once."""

from __future__ import annotations

import contextlib
import csv
import gc
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from distribute_challenge import PoolExecutor, TaskNotSendable, TaskTimeout, compute_this
from tests.certificates import Certificates
from tests.running import RunningServer, eventually

LENGTH = 1_000_000  # of floats: 8 MB


def total(values: Any) -> float:
    return float(np.sum(values))


def look(values: Any) -> tuple[int, bool, int]:
    return id(values), values.flags.writeable, os.getpid()


def total_within(things: Any) -> float:
    return float(np.sum(things["lists"][0])) + float(np.sum(things["tuples"][1]))


class Loud:
    """Says each time that it is loaded."""

    def __reduce__(self) -> Any:
        return _loaded, ()


def _loaded() -> int:
    _loads.append(1)
    return len(_loads)


_loads: list[int] = []


def identity(value: Any) -> Any:
    return value


def test_the_function_of_the_call_that_loads_a_value_is_what_it_is_now(used_server: RunningServer):
    """A value brings the classes and the global names that it had when it was scattered."""
    space: dict[str, Any] = {"__name__": "__main__"}
    text = """
rate = 1
class Model:
    k = 1
    def cost(self): return self.k * rate
def use(model): return model.cost(), Model.k, rate
"""
    exec(compile(text, "<script>", "exec"), space)
    with PoolExecutor(max_workers=1) as pool:
        handle = pool.scatter(space["Model"]())
        space["rate"] = 2
        space["Model"].k = 3
        for _ in range(2):
            assert pool.submit(space["use"], handle).result() == (6, 3, 2)


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def mapped_files(pid: int) -> int:
    """How much of other processes' memory files a process has mapped, in bytes."""
    found = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "memfd:buffers" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            found += end - start
    return found


def test_a_value_can_stand_wherever_an_argument_can(used_server: RunningServer):
    array = np.ones(LENGTH)
    with PoolExecutor() as pool:
        handle = pool.scatter(array)
        assert pool.submit(total, handle).result() == LENGTH
        assert pool.submit(total, values=handle).result() == LENGTH
        within = {"lists": [handle], "tuples": (1, handle)}
        assert pool.submit(total_within, within).result() == 2 * LENGTH
        assert list(pool.map(total, [handle] * 20)) == [LENGTH] * 20
        assert compute_this(lambda: total(handle))().run() == LENGTH


def test_workers_load_it_once_and_share_its_memory(server: RunningServer):
    with PoolExecutor(max_workers=1) as pool:
        handle = pool.scatter(np.ones(LENGTH))
        found = {pool.submit(look, handle).result() for _ in range(10)}
        ((_, is_writable, pid),) = found
        assert not is_writable
        assert 8 * LENGTH <= mapped_files(pid) < 9 * LENGTH
        loud = pool.scatter(Loud())
        assert [pool.submit(identity, loud).result() for _ in range(5)] == [1] * 5


def test_a_value_goes_with_its_handle(server: RunningServer):
    before = descriptors()
    with PoolExecutor(max_workers=1) as pool:
        handle = pool.scatter(np.ones(LENGTH))
        pid = pool.submit(look, handle).result()[2]
        del handle
        gc.collect()
        pool.submit(abs, -1).result()
        assert mapped_files(pid) < 8 * LENGTH
        kept = pool.scatter(np.ones(LENGTH))
        pool.submit(total, kept).result()
    eventually(lambda: mapped_files(pid) < 8 * LENGTH, "an executor takes its values along")
    del kept
    gc.collect()
    assert len(descriptors() - before) <= 4  # Memory files are kept for the next value.


def length_of(value: Any) -> Callable[[], int]:
    return lambda: len(value)


@pytest.mark.parametrize("end", ["handle", "executor"])
def test_what_uses_a_value_of_which_the_handle_has_gone_is_not_kept(
    start_server: Callable[..., RunningServer], end: str
):
    """A text has no buffer that others could map."""
    address = start_server(1).address
    with PoolExecutor(address) as pool, contextlib.ExitStack() as stack:
        worker = psutil.Process(pool.submit(os.getpid).result())
        assert pool.submit(length_of("")).result() == 0  # This module has been imported there.
        before = worker.memory_info().rss
        owner = stack.enter_context(PoolExecutor(address))
        length = length_of(owner.scatter("x" * (96 << 20)))
        assert [owner.submit(length).result() for _ in range(3)] == [96 << 20] * 3
        assert worker.memory_info().rss > before + (64 << 20)
        del length
        gc.collect()
        if end == "executor":
            stack.close()
        else:
            owner.submit(abs, -1).result()

        def is_gone() -> bool:
            pool.submit(abs, -1).result()
            return worker.memory_info().rss < before + (32 << 20)

        eventually(is_gone, "the value is gone")


def test_a_value_is_what_it_was_when_it_was_scattered(used_server: RunningServer):
    with PoolExecutor() as pool:
        values = [1, 2]
        handle = pool.scatter(values)
        values.append(3)
        assert pool.submit(identity, handle).result() == [1, 2]


def test_over_tls_it_travels_once_for_each_connection(start_server: Any, certificates: Certificates):
    tls = certificates.client
    server = start_server(1, tls=certificates.server)
    with PoolExecutor(f"localhost:{server.port}", tls=tls) as pool:
        handle = pool.scatter(np.ones(LENGTH))
        assert [pool.submit(total, handle).result() for _ in range(3)] == [LENGTH] * 3
        assert not pool.submit(look, handle).result()[1]
    server.stop()
    with (server.folder / "profiling" / "tasks_1.csv").open(newline="") as file:
        sent = [int(row["Sent"]) for row in csv.DictReader(file)]
    assert sum(sent) < 2 * 8 * LENGTH


def test_a_time_limit_holds_while_a_value_is_sent_to_a_worker_that_takes_nothing(
    start_server: Any, certificates: Certificates
):
    server = start_server(1, tls=certificates.server)
    where = {"server": f"localhost:{server.port}", "tls": certificates.client}
    limited = compute_this(timeout=1, **where)(total)
    with PoolExecutor(**where) as pool:
        handle = pool.scatter(np.ones(20 * LENGTH))
        os.kill(compute_this(**where)(os.getpid)().run(), signal.SIGSTOP)
        with pytest.raises(TaskTimeout):
            limited(handle).run()
        assert compute_this(**where)(total)([1.0]).run() == 1


@compute_this
def total_of_totals(handle: Any) -> float:
    """Its tasks run in place, or on the other worker."""
    return sum(float(compute_this(total)(handle).run()) for _ in range(2))


def test_a_function_on_the_pool_can_pass_it_on(used_server: RunningServer):
    with PoolExecutor() as pool:
        handle = pool.scatter(np.ones(LENGTH))
        assert [future.result() for future in [pool.submit(total_of_totals, handle) for _ in range(4)]] == [
            2 * LENGTH
        ] * 4


def scatters(length: int) -> tuple[float, int]:
    with PoolExecutor() as pool:
        return float(compute_this(total)(pool.scatter(np.ones(length))).run()), os.getpid()


def test_a_value_that_a_function_has_scattered_goes_with_it(start_server: Callable[..., RunningServer]):
    """On the only worker there is its tasks run in place."""
    with PoolExecutor(start_server(1).address) as pool:
        for _ in range(3):
            result, pid = pool.submit(scatters, LENGTH).result()
            assert result == LENGTH
        pool.submit(abs, -1).result()
        assert mapped_files(pid) < 2 * 8 * LENGTH  # One is kept, for the next value.


def test_what_cannot_be_sent_cannot_be_scattered(used_server: RunningServer):
    with PoolExecutor() as pool:
        with pytest.raises(TaskNotSendable, match="open file"), Path(__file__).open() as file:
            pool.scatter(file)
        with pytest.raises(TaskNotSendable, match=r"a generator cannot be scattered .*inside the functions"):
            pool.scatter(x for x in [1])
        handle = pool.scatter(1)
        with pytest.raises(TaskNotSendable, match="another one"):
            pool.scatter([handle])
        with pytest.raises(TypeError, match="nowhere else"):
            pickle.dumps(handle)


def test_a_call_that_is_too_large_has_taken_no_value_along(start_server: Callable[..., RunningServer]):
    server = start_server(1, "--max-frame", "1M")
    with PoolExecutor(server.address) as pool:
        first, second = pool.scatter(np.ones(LENGTH)), pool.scatter(np.ones(LENGTH))
        pid = pool.submit(look, first).result()[2]
        del first
        gc.collect()
        with pytest.raises(TaskNotSendable, match="a larger --max-frame"):
            pool.submit(identity, [second, list(map(float, range(200_000)))]).result()
        assert pool.submit(total, second).result() == LENGTH
        assert mapped_files(pid) < 2 * 8 * LENGTH  # What the refused call was to say of the first is said.


@pytest.mark.parametrize("way", ["alone", "beside others", "closed over"])
def test_a_value_brings_the_modules_that_it_needs(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    (tmp_path / "shapes.py").write_text("class Square:\n    def area(self): return self.side ** 2\n")
    with monkeypatch.context() as path:  # Workers would look there themselves.
        path.syspath_prepend(str(tmp_path))
        square = importlib.import_module("shapes").Square()
    square.side = 3
    with PoolExecutor() as pool:
        handle = pool.scatter([square])
        if way == "alone":
            area = pool.submit(lambda squares: squares[0].area(), handle)
        elif way == "beside others":
            area = pool.submit(lambda squares, _: squares[0].area(), handle, Path())
        else:
            area = pool.submit(lambda: handle[0].area())
        assert area.result() == 9
    del sys.modules["shapes"]


def prepare() -> None:
    """An executor with an initializer has modules of its own."""


def test_a_value_has_the_classes_of_whoever_uses_it(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "circles.py").write_text(
        "class Circle:\n    pass\n\ndef is_circle(x): return isinstance(x, Circle)\n"
    )
    with monkeypatch.context() as path:  # Workers would look there themselves.
        path.syspath_prepend(str(tmp_path))
        circles = importlib.import_module("circles")
    with PoolExecutor(max_workers=1, initializer=prepare) as first, PoolExecutor(max_workers=1) as second:
        handle = first.scatter(circles.Circle())
        for pool in (first, second, first, second):
            assert pool.submit(circles.is_circle, handle).result()
    del sys.modules["circles"]
