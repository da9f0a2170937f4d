"""What a function finds in the environment of its worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge.processors import THREAD_VARIABLES
from tests.running import connect

LOOK = "import os\nresult = tuple(os.environ.get(name, '') for name in {names!r})"


def look(port: int, *names: str) -> list[str]:
    with connect(port) as worker:
        return list(worker.root.run_code(LOOK.format(names=names)))


def test_each_worker_knows_its_number(start_server: Callable[..., Any]):
    server = start_server(3)
    assert [look(port, "COMPUTE_WORKER") for port in server.ports] == [["0"], ["1"], ["2"]]


def test_libraries_of_a_worker_use_its_share_of_the_processors(
    start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    server = start_server(8)
    found = dict(zip(THREAD_VARIABLES, look(server.ports[0], *THREAD_VARIABLES), strict=True))
    share = str(max(1, len(os.sched_getaffinity(0)) // 8))
    assert found == dict.fromkeys(THREAD_VARIABLES, share) | {"MKL_NUM_THREADS": "7"}
    assert server.status()["threads"] == found


def test_the_number_of_threads_can_be_said(start_server: Callable[..., Any], tmp_path: Path):
    server = start_server(1, "--threads", "3")
    assert set(look(server.ports[0], *THREAD_VARIABLES)) == {"3"}
