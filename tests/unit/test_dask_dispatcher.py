"""What becomes of the tasks of an executor on a cluster, with a cluster that is made up here."""

from __future__ import annotations

import io
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, CancelledError, wait
from typing import Any, cast

import pytest

from distribute_challenge import ServerUnavailable, WorkerLost
from distribute_challenge.address import Address
from distribute_challenge.calls.payload import VALUE, Outcome
from distribute_challenge.client.dask.connection import Connection
from distribute_challenge.client.dask.dispatcher import Dispatcher
from distribute_challenge.client.dask.freight import ERROR, OUTCOME
from distribute_challenge.client.options import Options
from distribute_challenge.client.parcels.durations import Pace
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.client.tasks.task import Task
from tests.running import HANG_S, eventually


class Cluster:
    """A cluster whose tasks end when they are told to."""

    limit = None

    def __init__(self) -> None:
        self.sent: list[Task] = []
        self.tell: dict[Task, Callable[[Any, BaseException | None], None]] = {}
        self.before: Callable[[], object] = lambda: None  # called when it is asked how many workers it has
        self.client: Any = self

    def workers(self, _age_s: float) -> int:
        self.before()
        return 1

    def submit(self, task: Task) -> Task:
        self.sent.append(task)
        return task

    def watch(self, task: Task, tell: Callable[[Any, BaseException | None], None]) -> None:
        self.tell[task] = tell

    def ask_workers(self, *_: Any) -> dict[str, Any]:
        return {}

    def cancel(self, tasks: list[Task], **_: Any) -> None:
        for task in tasks:
            self.tell[task](None, WorkerLost("it was cancelled"))

    def has_lost_value(self, *_: Any) -> bool:
        return False

    def explained(self, _name: str, error: BaseException) -> BaseException:
        return error


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def dispatcher(cluster: Cluster) -> Dispatcher:
    return Dispatcher(cast(Any, cluster))


def task(retries: int = 0) -> Task:
    return Task("f", Shipment(len).parcel(("x",), {}), Pace(), Options(retries=retries))


RETURNS = OUTCOME, Outcome(VALUE, pickle.dumps(1)).pack(())
FAILS = ERROR, pickle.dumps(WorkerLost("no more"))


@pytest.mark.parametrize(
    ("end", "is_told"),
    [
        pytest.param(RETURNS, True, id="told, then it returns"),
        pytest.param(RETURNS, False, id="with what it returns"),
        pytest.param(FAILS, True, id="told, then it fails"),
        pytest.param(FAILS, False, id="with its error"),
        pytest.param(None, True, id="told, then it is killed"),
    ],
)
def test_what_a_task_prints_is_shown_before_its_end(
    dispatcher: Dispatcher,
    cluster: Cluster,
    end: tuple[str, bytes] | None,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("distribute_challenge.client.dask.dispatcher.SHOWN_S", HANG_S)
    monkeypatch.setattr("distribute_challenge.client.dask.dispatcher.MOST_SHOWN_S", HANG_S)
    one, has_ended = task(), threading.Event()
    order: list[str] = []

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            has_ended.wait(0.1)  # It takes some time: the end comes first if nobody waits for this one.
            order.append(text)
            return len(text)

    def note_end(_: Any) -> None:
        order.append("its end")
        has_ended.set()

    monkeypatch.setattr("sys.stdout", Terminal())
    one.future.add_done_callback(note_end)
    dispatcher.add(one)
    eventually(lambda: one in cluster.tell, "it is with Dask")
    output = (1, b"printed\n")
    if is_told:
        dispatcher.connection.show(*output)
    report = end and (*end, [] if is_told else [output])
    cluster.tell[one](report, WorkerLost("it was killed") if report is None else None)
    assert has_ended.wait(HANG_S)
    assert order == ["printed\n", "its end"]
    dispatcher.close(cancel=False)
    dispatcher.join()


def test_whoever_waits_for_tasks_that_never_run_learns_of_their_end(dispatcher: Dispatcher, cluster: Cluster):
    tasks = [task() for _ in range(200)]
    for one in tasks:
        dispatcher.add(one)
    eventually(lambda: cluster.tell, "one is with Dask")
    dispatcher.kill_all()
    done, others = wait([one.future for one in tasks], HANG_S, ALL_COMPLETED)
    assert not others
    assert all(future.cancelled() for future in done)
    dispatcher.close(cancel=True)
    dispatcher.join()


def test_nothing_moves_to_dask_while_all_is_stopped(dispatcher: Dispatcher, cluster: Cluster):
    """As one task ends, the next one goes from those that wait to those that are there."""
    waiting: list[int] = []

    class WithDask(dict[Task, Any]):
        def __iter__(self) -> Iterator[Task]:
            waiting.append(len(dispatcher._waiting))
            return super().__iter__()

    tasks = [task() for _ in range(300)]
    for one in tasks:
        dispatcher.add(one)
    eventually(lambda: cluster.tell, "one is with Dask")
    dispatcher._with_dask = WithDask(dispatcher._with_dask)
    dispatcher.kill_all()
    assert waiting == [0]
    assert not wait([one.future for one in tasks], HANG_S).not_done
    dispatcher.close(cancel=True)
    dispatcher.join()


@pytest.mark.parametrize("how", ["kill_all", "close", "kill"])
def test_a_task_that_waits_to_be_run_again_is_stopped_with_the_others(
    dispatcher: Dispatcher, cluster: Cluster, how: str
):
    one = task(retries=1)
    is_lost, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        if cluster.sent:
            is_lost.set()
            go_on.wait(HANG_S)

    cluster.before = hold
    dispatcher.add(one)
    eventually(lambda: one in cluster.tell, "it is with Dask")
    cluster.tell[one](None, WorkerLost("no more"))
    assert is_lost.wait(HANG_S)
    if how == "kill":
        dispatcher.kill(one)
    elif how == "close":
        dispatcher.close(cancel=True)
    else:
        dispatcher.kill_all()
    go_on.set()
    with pytest.raises(CancelledError):
        one.future.result(HANG_S)
    assert cluster.sent == [one]
    dispatcher.close(cancel=False)
    dispatcher.join()


def test_where_no_thread_can_be_started_that_is_said_and_the_next_task_runs(
    dispatcher: Dispatcher, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            dispatcher.add(task())
    dispatcher.join()
    one = task()
    dispatcher.add(one)
    eventually(lambda: one in cluster.tell, "it is with Dask")
    assert cluster.sent == [one]
    cluster.tell[one](None, WorkerLost("no more"))
    dispatcher.close(cancel=True)
    dispatcher.join()


def test_an_executor_that_waits_for_its_scheduler_can_be_ended():
    with socket.socket() as taken:  # Nobody listens there.
        taken.bind(("127.0.0.1", 0))
        is_asked = threading.Event()

        def place() -> Address:
            is_asked.set()
            return Address(*taken.getsockname())

        connection = Connection(place, None, None, None)
        errors: list[BaseException] = []

        def connect() -> None:
            try:
                connection.connect(3)
            except ServerUnavailable as error:
                errors.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        assert is_asked.wait(HANG_S)
        connection.forget(b"program")
        connection.close()
        assert thread.is_alive()
        thread.join(HANG_S)
        assert len(errors) == 1


def test_who_has_lost_a_cluster_of_its_own_starts_no_other_one_to_say_so():
    places = iter([Address("127.0.0.1", 1)])
    connection = Connection(lambda: next(places), None, None, None)
    with pytest.raises(ServerUnavailable):
        connection.connect(0)
    assert "127.0.0.1:1 has gone" in str(connection.explained("f", OSError("closed")))
