"""Fixtures: real servers, each on ports of its own, in a folder of its own, gone when the test is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import RunningServer


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers: `start_server(2, "--grace", "1")`."""
    servers: list[RunningServer] = []

    def start(
        workers: int, *options: str, folder: Path = tmp_path, python: str = sys.executable
    ) -> RunningServer:
        server = RunningServer(workers, *options, folder=folder, python=python)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """A server of two workers, which is the default one of the calls made in this test."""
    running = start_server(2)
    monkeypatch.setenv("COMPUTE_SERVER", running.address)
    return running
