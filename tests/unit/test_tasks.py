"""Tasks and their futures."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

import pytest

from distribute_challenge.calls.ending import Ending
from distribute_challenge.client.peers.failures import lost
from distribute_challenge.client.tasks.task import TaskFuture
from tests.running import HANG_S


def test_a_future_has_all_that_the_standard_one_has():
    """It sets the fields itself, so a new version of Python may bring others."""
    assert vars(Future()).keys() <= vars(TaskFuture()).keys()
    plain, ours = vars(Future()), vars(TaskFuture())
    assert all(ours[name] == plain[name] for name in plain if name != "_condition")


def test_it_can_be_waited_for_by_several_threads():
    future: TaskFuture[int] = TaskFuture()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(future.result(HANG_S))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert wait([future], 0.05).not_done == {future}
    assert future.set_running_or_notify_cancel()
    future.set_result(5)
    for thread in threads:
        thread.join(HANG_S)
    assert found == [5, 5, 5]
    assert wait([future], HANG_S).done == {future}


@pytest.mark.parametrize("memory_bytes", [None, 0, 3 << 20])
def test_a_loss_tells_the_memory_of_its_worker_if_that_was_measured(memory_bytes: int | None):
    ending = Ending(18812, 99, None, "SIGKILL", [], memory_bytes=memory_bytes)
    assert ("it took 3 MiB" in str(lost("f", ending))) == bool(memory_bytes)
    assert ("MiB" in str(lost("f", ending))) == bool(memory_bytes)
