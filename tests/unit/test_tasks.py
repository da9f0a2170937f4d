"""Tasks and their futures."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

import pytest

from distribute_challenge import WorkerLost
from distribute_challenge.calls.ending import Ending
from distribute_challenge.client.options import RESTART_S, Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.peers.failures import lost
from distribute_challenge.client.tasks.task import Task, TaskFuture
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


@pytest.mark.parametrize(("wait_s", "patience_s"), [(0, RESTART_S), (60, 60)])
def test_a_task_that_is_to_run_again_waits_for_the_next_server(wait_s: float, patience_s: float):
    parcel = Shipment(len).parcel(((),), {})
    task = Task("len", parcel, Pace(), Options(retries=1, wait_s=wait_s), 1)
    assert task.patience_s == patience_s  # Not having begun, it has no less patience than one that has.
    assert task.is_run_again(WorkerLost("its worker died"))
    assert (task.patience_s, task.future.done()) == (patience_s, False)
    assert not task.is_run_again(WorkerLost("its worker died"))
    assert isinstance(task.future.exception(0), WorkerLost)
