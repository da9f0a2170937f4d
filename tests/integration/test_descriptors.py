"""Descriptors that run out are called that, at both ends."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from distribute_challenge import PoolError, ServerUnavailable, compute_this
from distribute_challenge.address import Address
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.server.app import OTHER_DESCRIPTORS, WORKERS_DESCRIPTORS
from distribute_challenge.wire.descriptors import KEPT
from tests.running import RunningServer, connect, eventually


@compute_this(prints=False)
def double(x: int) -> int:
    return 2 * x


def limit(server: RunningServer, more: int) -> None:
    """Let the server open so many descriptors more, beside those that it keeps."""
    number = psutil.Process(server.pid).num_fds() + more + KEPT
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (number, number))


def test_a_server_without_descriptors_says_so_to_its_own_users_programs(
    server: RunningServer,
):
    limit(server, 12)
    ends: Counter[str] = Counter()

    def call(x: int) -> None:
        try:
            assert double(x).run() == 2 * x
            ends["ok"] += 1
        except ServerUnavailable as error:
            assert "no descriptors left" in str(error) or "cannot let one more client wait" in str(error)  # noqa: PT017
            ends["refused"] += 1

    with ThreadPoolExecutor(60) as threads:
        list(threads.map(call, range(60)))
    assert ends["ok"]
    assert ends["refused"]
    assert "allow-any-local-user" not in server.stderr()
    assert server.stderr().count("no descriptors left") == 1

    def is_served() -> bool:
        try:
            return bool(double(4).run() == 8)
        except ServerUnavailable:  # It has not yet seen that the others have gone.
            return False

    eventually(is_served, "there are descriptors again")


def test_who_has_a_connection_needs_no_other_one_to_learn_what_the_pool_is(server: RunningServer):
    connections = Connections(Address.parse(server.address))
    facts = connections.facts()
    limit(server, 0)
    with contextlib.ExitStack() as opened:
        with pytest.raises(RuntimeError, match="no descriptors left"):
            connect_again_and_again(server, opened)
        with pytest.raises(ServerUnavailable, match="no descriptors left"):
            Connections(Address.parse(server.address)).facts()
        connections.doubt_facts()  # Another idle connection had ended, say.
        assert connections.facts() == facts
    connections.close()


def test_a_plain_client_is_told_too_and_who_is_connected_notices_nothing(server: RunningServer):
    with server.connect() as before:
        port = before.root.find_free_worker()
        limit(server, 0)
        with contextlib.ExitStack() as opened, pytest.raises(RuntimeError, match="no descriptors left"):
            connect_again_and_again(server, opened)
        with connect(port) as worker:
            assert worker.root.run_code("result = 1") == 1
        before.root.free_worker(port)


def connect_again_and_again(server: RunningServer, opened: contextlib.ExitStack) -> None:
    """The first few may get numbers that others have given back."""
    for _ in range(20):
        opened.enter_context(server.connect()).root.status()


def test_a_server_that_starts_has_descriptors_for_some_clients(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    least = 3 * WORKERS_DESCRIPTORS + OTHER_DESCRIPTORS
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n {least}\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    with pytest.raises(
        AssertionError, match=f"4 workers need more descriptors than the {least} .* at most 3"
    ):
        start_server(4, python=str(limited))
    server = start_server(3, python=str(limited))
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            client = opened.enter_context(server.connect())
            with connect(client.root.acquire_worker()) as worker:
                assert worker.root.run_code("result = 1") == 1


def test_callers_wait_while_there_is_no_descriptor_at_all(start_server: Callable[..., RunningServer]):
    server = start_server(1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, hard))
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(server.status)
        eventually(lambda: "cannot accept connections yet" in server.stderr(), "it is said")
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert answer.result()["busy"] == [0]


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process can open so many more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 100, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in held[-count:]:
            os.close(held.pop())
            del descriptor
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_without_descriptors_says_so(server: RunningServer, count: int):
    """With one it has no connection to the server, with two none to a worker."""
    call = compute_this(double.__wrapped__, server=server.address)(3)
    other = server.address.replace("127.0.0.1", "localhost")
    with descriptors_left(count), pytest.raises(PoolError, match="this program has no descriptors left"):
        compute_this(double.__wrapped__, server=other)(3).run()
    assert call.run() == 6
    server.await_busy([0, 0])
