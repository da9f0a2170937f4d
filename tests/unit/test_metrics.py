"""The counts for Prometheus, read by the parser of its own client."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

client = pytest.importorskip("prometheus_client", reason="the extra [metrics] is not installed")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402  It needs that.

from distribute_challenge.record.flight_reader import Begun, Ended  # noqa: E402
from distribute_challenge.record.metrics import MAX_FUNCTIONS, Metrics  # noqa: E402
from distribute_challenge.record.profile import Clock  # noqa: E402
from distribute_challenge.record.tasks import TIMEOUT, CutOff, TaskRows  # noqa: E402
from tests.running import ROOT  # noqa: E402

STATUS = {
    "workers": [
        {"port": 18812, "state": "leased", "memory": 4096},
        {"port": 18813, "state": "starting", "memory": None},
    ],
    "waiting": 2,
    "tasks": 7,
    "lost": {"timeout": 1, "SIGSEGV": 3},
}
NAMES = {
    "compute_workers": {"state"},
    "compute_tasks_total": {"function", "status"},
    "compute_task_duration_seconds_bucket": {"le"},
    "compute_task_duration_seconds_sum": set(),
    "compute_task_duration_seconds_count": set(),
    "compute_task_wait_seconds_bucket": {"le"},
    "compute_task_wait_seconds_sum": set(),
    "compute_task_wait_seconds_count": set(),
    "compute_clients_waiting": set(),
    "compute_tasks_waiting": set(),
    "compute_worker_cpu_seconds_total": {"worker"},
    "compute_worker_memory_bytes": {"worker"},
    "compute_workers_lost_total": {"reason"},
}


def metrics() -> Metrics:
    return Metrics(lambda: STATUS, lambda: [1.5, 0.25])


def samples(of: Metrics) -> list[Any]:
    registry = client.CollectorRegistry()
    registry.register(of)
    text = client.generate_latest(registry).decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(of: Metrics, name: str, **labels: str) -> float:
    [found] = [sample.value for sample in samples(of) if sample.name == name and sample.labels == labels]
    return float(found)


def test_the_names_and_labels_are_those_that_are_documented():
    pool = metrics()
    pool.add("func", "done", 1, 0.5, 0.1)
    assert {sample.name: set(sample.labels) for sample in samples(pool)} == NAMES


def test_the_state_of_the_pool_is_that_of_the_moment():
    pool = metrics()
    assert [value(pool, "compute_workers", state=state) for state in ("free", "leased", "starting")] == [
        0,
        1,
        1,
    ]
    assert value(pool, "compute_clients_waiting") == 2
    assert value(pool, "compute_tasks_waiting") == 7
    assert value(pool, "compute_worker_cpu_seconds_total", worker="18812") == 1.5
    assert value(pool, "compute_worker_memory_bytes", worker="18812") == 4096
    assert value(pool, "compute_workers_lost_total", reason="SIGSEGV") == 3
    assert not [
        sample for sample in samples(pool) if sample.labels == {"worker": "18813"} and "memory" in sample.name
    ]


def test_functions_that_went_together_count_each():
    pool = metrics()
    pool.add("func", "done", 1000, 2.0, 0.5)
    pool.add("func", "failed", 1, 30.0, None)
    assert value(pool, "compute_tasks_total", function="func", status="done") == 1000
    assert value(pool, "compute_tasks_total", function="func", status="failed") == 1
    assert value(pool, "compute_task_duration_seconds_count") == 1001
    assert value(pool, "compute_task_duration_seconds_sum") == pytest.approx(32)
    assert value(pool, "compute_task_duration_seconds_bucket", le="0.001") == 0
    assert value(pool, "compute_task_duration_seconds_bucket", le="0.003") == 1000
    assert value(pool, "compute_task_duration_seconds_bucket", le="30.0") == 1001
    assert value(pool, "compute_task_wait_seconds_count") == 1000


def test_longer_than_the_longest_bound_is_counted_too():
    pool = metrics()
    pool.add("func", "done", 1, 1e6, 1e6)
    assert value(pool, "compute_task_duration_seconds_bucket", le="3600.0") == 0
    assert value(pool, "compute_task_duration_seconds_bucket", le="+Inf") == 1


def test_after_fifty_functions_all_others_are_one():
    pool = metrics()
    for number in range(MAX_FUNCTIONS + 20):
        pool.add(f"func{number}", "done", 1, 0.1, None)
    pool.add("func0", "done", 1, 0.1, None)
    functions = {
        sample.labels["function"] for sample in samples(pool) if sample.name == "compute_tasks_total"
    }
    assert functions == {f"func{number}" for number in range(50)} | {"other"}
    assert value(pool, "compute_tasks_total", function="other", status="done") == 20
    assert value(pool, "compute_tasks_total", function="func0", status="done") == 2


@pytest.mark.parametrize("name", ['quoted"', "back\\slash", "two\nlines", "日本", "{}"])
def test_a_function_may_have_any_name(name: str):
    pool = metrics()
    pool.add(name, "done", 1, 0.1, None)
    assert value(pool, "compute_tasks_total", function=name, status="done") == 1


def test_each_row_of_the_tasks_file_is_counted():
    """What returned and what raised of a chunk, and what was cut off."""
    rows, pool = TaskRows([18812], Clock()), metrics()
    rows.on_row = pool.add
    begun = Begun(5.0, math.nan, 100, b"12345678", "func", "challenge.py:7")
    rows.ended(0, Ended(begun, 100, 9.0, 4.0, 14, 3, 1, False, "ValueError: no"), None)
    rows.cut_off(0, begun, 7.5, CutOff(TIMEOUT, "TaskTimeout: too long"), None)
    told = {
        status: value(pool, "compute_tasks_total", function="func", status=status)
        for status in ("done", "failed", "timeout")
    }
    assert told == {"done": 3, "failed": 1, "timeout": 1}
    assert value(pool, "compute_task_duration_seconds_sum") == pytest.approx(6.5)
    assert value(pool, "compute_task_wait_seconds_count") == 0


def test_the_board_asks_for_what_there_is():
    board = json.loads((ROOT / "docs" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"\bcompute_\w+", text)}
    assert asked <= set(NAMES)
    # Each metric is on it, a histogram by its buckets.
    assert {name for name in NAMES if not name.endswith(("_sum", "_count"))} <= asked
    for text in expressions:
        for name, labels in re.findall(r"(compute_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", labels)) <= {"instance", *NAMES[name]}, text
        assert text.count("(") == text.count(")"), text
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)
