"""Fixtures: real servers, each on ports of its own, in a folder of its own, gone when the test is."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

from distribute_challenge import compute_this
from distribute_challenge.client.parcels import durations, shipping
from tests.certificates import Certificates
from tests.clusters import RunningCluster
from tests.running import RunningServer

# The same examples in every run. To look for others: HYPOTHESIS_PROFILE=explore.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell starts what runs in the background with Ctrl-C ignored, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What all tests import stays: nothing is gained by looking through it at each collection of garbage."""
    gc.freeze()


_has_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Take note of tests that fail."""
    report: Any = yield
    item.stash[_has_failed] = item.stash.get(_has_failed, False) or report.failed
    return report


@pytest.fixture
def has_failed(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether the test has failed: what it used may be broken, and is ended."""
    return lambda: request.node.stash.get(_has_failed, False)


@pytest.fixture(autouse=True)
def no_process_is_left_of_a_failed_test(has_failed: Callable[[], bool]) -> Iterator[None]:
    """A test that fails may not come to the line that ends what it has started."""
    before = {child.pid for child in psutil.Process().children()}
    yield
    if has_failed():
        for child in psutil.Process().children():
            if child.pid not in before:
                for process in (*child.children(recursive=True), child):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


@pytest.fixture(autouse=True)
def every_function_is_new() -> None:
    """How long one took in another test decides how many calls of it are sent ahead."""
    durations._paces.clear()
    shipping._shipments.clear()  # They have theirs.


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
def kept_servers() -> Iterator[dict[int, RunningServer]]:
    """At most one of so many workers, which the next test may use."""
    servers: dict[int, RunningServer] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def use_server(
    kept_servers: dict[int, RunningServer],
    tmp_path_factory: pytest.TempPathFactory,
    has_failed: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[int], RunningServer]]:
    """Use a server of so many workers, for tests that ask it nothing: other tests may have used it before.

    It is the default one of the calls made in this test.
    """
    used: list[RunningServer] = []

    def use(workers: int) -> RunningServer:
        server = kept_servers.pop(workers, None)
        if server is None or server.process.poll() is not None:
            server = RunningServer(workers, folder=tmp_path_factory.mktemp("server"))
        used.append(server)
        monkeypatch.setenv("COMPUTE_SERVER", server.address)
        return server

    yield use
    for server in used:
        if has_failed():
            server.close()
        else:
            server.await_busy([0] * server.workers)
            if (other := kept_servers.pop(server.workers, None)) is not None:
                other.close()
            kept_servers[server.workers] = server


@pytest.fixture
def used_server(use_server: Callable[[int], RunningServer]) -> RunningServer:
    """As `server`, for tests that ask it nothing: other tests may have used it before."""
    return use_server(2)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for trying out mutual TLS."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A Dask cluster of two workers, which tests leave as they find it."""
    running = RunningCluster(2, "--no-nanny", folder=tmp_path_factory.mktemp("cluster"))
    yield running
    compute_this(server=running.address)(len).executor().shutdown()
    running.close()
