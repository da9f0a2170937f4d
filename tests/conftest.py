"""Fixtures: real servers, each on ports of its own, in a folder of its own, gone when the test is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.certificates import Certificates
from tests.running import RunningServer

# The same examples in every run. To look for others: HYPOTHESIS_PROFILE=explore.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell starts what runs in the background with Ctrl-C ignored, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers: `start_server(2, "--grace", "1")`."""
    servers: list[RunningServer] = []

    def start(workers: int, *options: str, folder: Path = tmp_path, **how: Any) -> RunningServer:
        server = RunningServer(workers, *options, folder=folder, **how)
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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for trying out mutual TLS."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
