"""Mutual TLS: who has a certificate of the CA is let in, from anywhere, and nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rpyc

from distribute_challenge import (
    AccessDenied,
    PoolError,
    PoolExecutor,
    ServerUnavailable,
    TaskTimeout,
    Tls,
    compute_this,
)
from distribute_challenge.tls import VARIABLES, environment
from distribute_challenge.wire.tls import HANDSHAKE_S
from tests.certificates import Certificates
from tests.running import (
    HANG_S,
    ROOT,
    RunningServer,
    connect,
    eventually,
    free_port,
    is_running,
    script,
    tls_options,
)

HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"  # The beginning of a handshake.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[RunningServer]:
    """A server of two workers that listens on all addresses."""
    folder = tmp_path_factory.mktemp("tls")
    # With -v each refusal is in the log, and not only the first one of a minute.
    server = RunningServer(2, "-v", "--host", "0.0.0.0", folder=folder, tls=certificates.server)
    yield server
    server.close()


@pytest.fixture
def server(
    shared: RunningServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> RunningServer:
    """The same, which is the default one of the calls made in this test."""
    use(monkeypatch, f"localhost:{shared.port}", certificates.client)
    return shared


def use(monkeypatch: pytest.MonkeyPatch, address: str, tls: Tls | None) -> None:
    for name, value in {"COMPUTE_SERVER": address, **environment(tls)}.items():
        monkeypatch.setenv(name, value)


@compute_this
def square(x: int) -> int:
    print("squaring", x)  # noqa: T201  It is to be seen.
    return x * x


@compute_this
def length(data: bytes) -> bytes:
    return data + len(data).to_bytes(4, "big")


@compute_this
def below(x: int) -> tuple[int, int]:
    import os

    return square(x).run(), os.getpid()


@compute_this
def sleeps(seconds: float) -> None:
    import time

    time.sleep(seconds)


@compute_this
def says_when_it_runs(path: str) -> None:
    import pathlib
    import time

    pathlib.Path(path).touch()
    time.sleep(1000)


def test_it_listens_on_all_addresses(server: RunningServer):
    assert server.address == f"0.0.0.0:{server.port}"
    assert square(3).run() == 9
    assert compute_this(server=f"127.0.0.1:{server.port}")(len)("two").run() == 3


def test_everything_works(server: RunningServer, capfd: pytest.CaptureFixture[str]):
    assert square(7).run() == 49
    assert square(8).submit().result(HANG_S) == 64
    assert list(square.map(range(50))) == [x * x for x in range(50)]
    printed = re.findall(r"squaring (\d+)\n", capfd.readouterr().out)
    assert sorted(map(int, printed)) == sorted([7, 8, *range(50)])
    large = os.urandom(6_000_000)
    assert length(large).run() == large + len(large).to_bytes(4, "big")
    assert [len(part) for part in length.map([large, b"", large])] == [6_000_004, 4, 6_000_004]
    with PoolExecutor() as pool:
        assert list(pool.map(abs, range(-1000, 0))) == list(range(1000, 0, -1))
    with pytest.raises(ZeroDivisionError):
        compute_this(divmod)(1, 0).run()
    server.await_busy([0, 0])


def test_what_a_function_prints_is_seen_while_it_runs(server: RunningServer, capfd: Any, tmp_path: Path):
    @compute_this
    def prints_and_waits(path: str) -> None:
        import pathlib
        import time

        print("here I am")  # noqa: T201
        while not pathlib.Path(path).exists():
            time.sleep(0.01)

    gate = tmp_path / "gate"
    future = prints_and_waits(str(gate)).submit()
    eventually(lambda: "here I am\n" in capfd.readouterr().out, "it is printed here")
    gate.touch()
    assert future.result(HANG_S) is None


def test_tasks_of_tasks_find_the_pool_and_their_certificates(server: RunningServer):
    pids = server.worker_pids()
    value, pid = below(5).run()
    assert value == 25
    assert pid in pids
    # More of them than there are workers: none waits for another.
    assert [value for value, _ in below.map(range(6), chunksize=1)] == [x * x for x in range(6)]


def test_a_function_that_takes_too_long_or_is_unwanted_is_killed(server: RunningServer, tmp_path: Path):
    with pytest.raises(TaskTimeout):
        sleeps(1000).run(timeout=0.3)
    server.await_busy([0, 0])
    started = tmp_path / "started"
    future = says_when_it_runs(str(started)).submit()
    eventually(started.exists, "it runs")
    future.kill()
    with pytest.raises(CancelledError):
        future.result(HANG_S)
    server.await_busy([0, 0])
    assert square(2).run() == 4


def test_a_worker_that_dies_is_replaced(server: RunningServer):
    pids = server.worker_pids()
    for pid in pids:
        os.kill(pid, 9)
    eventually(lambda: not any(map(is_running, pids)), "they are gone")
    server.await_busy([0, 0])
    assert square(3).run() == 9


def test_the_certificates_can_be_given_in_the_program(
    server: RunningServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
):
    address = f"localhost:{server.port}"
    use(monkeypatch, address, None)
    decorated = compute_this(server=address, tls=certificates.client)(divmod)
    assert decorated(7, 3).run() == (2, 1)
    with PoolExecutor(address, tls=certificates.client) as pool:
        assert pool.submit(pow, 2, 5).result(HANG_S) == 32
    with pytest.raises(TypeError, match="tls is a Tls"):
        compute_this(tls=("cert", "key", "ca"))  # type: ignore[call-overload]


def test_a_private_pool_needs_no_certificates(server: RunningServer):
    def own_certificate() -> str:
        import os

        return os.environ["COMPUTE_TLS_CERT"]

    with PoolExecutor("local://1") as pool:
        # Nor do its functions, where the program has some for another pool.
        assert pool.submit(own_certificate).result(HANG_S) == ""
        assert pool.submit(divmod, 7, 3).result(HANG_S) == (2, 1)


def test_plain_rpyc_connects_with_a_certificate(server: RunningServer, certificates: Certificates):
    scheduler = connect(server.port, tls=certificates.client)
    port = scheduler.root.find_free_worker()
    worker = connect(port, tls=certificates.client)
    assert worker.root.run_code("result = 'x' * 1_000_000") == "x" * 1_000_000
    scheduler.root.free_worker(port)
    scheduler.close()
    worker.close()
    server.await_busy([0, 0])


def connects_with(port: int, tls: Tls, **how: Any) -> bool:
    """Whether plain RPyC gets an answer."""
    try:
        connection = rpyc.ssl_connect("localhost", port, tls.key, tls.cert, tls.ca, **how)
        with connection:
            connection.ping(timeout=HANG_S)
    except (ssl.SSLError, EOFError, ConnectionError):
        return False
    return True


def test_a_certificate_of_another_ca_is_refused_by_the_server_and_by_workers(
    server: RunningServer, certificates: Certificates
):
    for port in (server.port, *server.ports):
        assert not connects_with(port, certificates.stranger)
    address = f"localhost:{server.port}"
    with pytest.raises(AccessDenied, match=r"closed the connection before any answer .* Its log says why"):
        compute_this(server=address, tls=certificates.stranger)(divmod)(7, 3).run()
    with PoolExecutor(address, tls=certificates.stranger) as pool:
        assert isinstance(pool.submit(divmod, 7, 3).exception(HANG_S), AccessDenied)
    log = server.stderr()
    assert "certificate verify failed" in log
    # Once a minute it is a warning.
    assert 1 <= log.count("WARNING refused 127.0.0.1") < log.count("refused 127.0.0.1")
    assert "Traceback" not in log


def test_no_certificate_is_refused(server: RunningServer, certificates: Certificates):
    for port in (server.port, *server.ports):
        context = ssl.create_default_context(cafile=certificates.ca)
        with (
            socket.create_connection(("127.0.0.1", port), HANG_S) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as encrypted,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            encrypted.recv(1)
    assert "peer did not return a certificate" in server.stderr()


def test_a_server_with_a_certificate_of_another_ca_is_not_trusted(
    server: RunningServer, certificates: Certificates
):
    mistaken = replace(certificates.client, ca=certificates.other_ca)
    with pytest.raises(AccessDenied, match=r"does not prove that it is localhost .*other-ca\.pem"):
        compute_this(server=f"localhost:{server.port}", tls=mistaken)(divmod)(7, 3).run()


def test_the_hosts_name_is_checked(server: RunningServer):
    with pytest.raises(AccessDenied, match=r"does not prove that it is 127\.0\.0\.2 .* mismatch"):
        compute_this(server=f"127.0.0.2:{server.port}")(divmod)(7, 3).run()


def test_a_client_without_tls_is_refused(server: RunningServer, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, f"localhost:{server.port}", None)
    with (
        PoolExecutor() as pool,
        pytest.raises(AccessDenied, match="COMPUTE_TLS_CERT, COMPUTE_TLS_KEY, COMPUTE_TLS_CA"),
    ):
        pool.submit(divmod, 7, 3).result(HANG_S)
    with connect(server.port) as plain, pytest.raises((EOFError, ConnectionError)):
        plain.ping(timeout=HANG_S)


def test_a_program_may_set_its_environment_after_a_call_was_refused(
    start_server: Callable[..., RunningServer],
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
):
    """Also when a server that did without was restarted with TLS."""
    function = compute_this(divmod)
    port = str(free_port(2))
    plain = start_server(1, "--port", port)
    use(monkeypatch, f"localhost:{plain.port}", None)
    assert function(7, 3).run() == (2, 1)
    plain.stop()
    start_server(1, "--port", port, tls=certificates.server)
    with pytest.raises((AccessDenied, ServerUnavailable)):
        function(7, 3).run()
    use(monkeypatch, f"localhost:{plain.port}", certificates.client)
    assert function(7, 3).run() == (2, 1)


def test_a_client_with_tls_is_refused_by_a_server_without(
    start_server: Callable[..., RunningServer], certificates: Certificates
):
    server = start_server(1)
    with pytest.raises(
        AccessDenied, match="if it was started with --tls-cert, --tls-key and --tls-ca at all"
    ):
        compute_this(server=server.address, tls=certificates.client)(divmod)(7, 3).run()


def dribble(sock: socket.socket) -> None:
    """Send a handshake, byte by byte, for ever."""
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(HELLO[:1])
            time.sleep(0.1)  # No wait for anything: this is how fast it is.


def test_a_handshake_that_is_not_done_in_5_s_is_dropped_and_holds_up_nobody(server: RunningServer):
    begin = time.monotonic()
    silent, half, slow = (
        socket.create_connection(("127.0.0.1", port), HANG_S)
        for port in (server.port, server.ports[0], server.port)
    )
    half.sendall(HELLO)
    slow.sendall(HELLO[:3] + b"\x3f\xff")  # A record of 16 KiB, which will be all it ever says.
    threading.Thread(target=dribble, args=(slow,), daemon=True).start()
    assert square(3).run() == 9
    admitted = server.connect()
    for sock in (silent, half, slow):
        with sock, contextlib.suppress(ConnectionError):
            while sock.recv(1000):
                pass
    assert HANDSHAKE_S - 0.5 < time.monotonic() - begin < HANDSHAKE_S + 10
    assert f"no TLS handshake within {HANDSHAKE_S:g} s" in server.stderr()
    admitted.ping(timeout=HANG_S)  # Who is let in may be silent for longer.
    admitted.close()


def test_the_example_takes_the_files(server: RunningServer, certificates: Certificates, tmp_path: Path):
    plain = {**os.environ, **environment(None)}
    files = tls_options(certificates.client)
    result = script("challenge.py", "0.1", "--server", f"localhost:{server.port}", *files, env=plain)
    assert (result.returncode, result.stderr) == (0, "")
    result = script("challenge.py", "0.1")  # From the environment.
    assert (result.returncode, result.stderr) == (0, "")
    result = script("challenge.py", "0.1", env=plain)
    assert_is_one_line(result, "closed the connection before any answer")
    result = script("challenge.py", "0.1", env={**plain, VARIABLES[0]: files[1]})
    assert_is_one_line(result, "set COMPUTE_TLS_KEY")


def test_a_worker_by_hand_takes_the_files(certificates: Certificates, tmp_path: Path):
    options = ("--host", "0.0.0.0", *tls_options(certificates.server))
    command = [sys.executable, str(ROOT / "worker.py"), "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(":")[2])
            with connect(port, tls=certificates.client) as worker:
                assert worker.root.run_code("result = 6 * 7") == 42
            assert not connects_with(port, certificates.stranger)
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["server.py", "worker.py"])
def test_what_is_wrong_with_the_files_is_said_in_one_line(
    name: str, certificates: Certificates, tmp_path: Path
):
    tls, junk, missing = certificates.server, tmp_path / "junk.pem", str(tmp_path / "missing.pem")
    junk.write_text("junk")

    def run(*options: str) -> Any:
        return script(name, "1", "--port" if name == "server.py" else "--host", "0", *options, cwd=tmp_path)

    def run_with(**wrong: str) -> Any:
        return run(*tls_options(replace(tls, **wrong)))

    if name == "server.py":
        host = ("--host", "0.0.0.0")
        assert_is_one_line(
            run(*host), "will not listen on 0.0.0.0", "or give --tls-cert, --tls-key and --tls-ca"
        )
        assert_is_one_line(
            run("--allow-any-local-user", *tls_options(tls)), "leave out --allow-any-local-user"
        )
    assert_is_one_line(run("--tls-cert", tls.cert, "--tls-ca", tls.ca), "give all three, or none")
    assert_is_one_line(run_with(key=missing), f"cannot read the TLS file {missing} (No such file")
    assert_is_one_line(run_with(cert=str(junk)), "give the two that were made together")
    assert_is_one_line(run_with(key=certificates.client.key), "give the two that were made together")
    assert_is_one_line(run_with(ca=str(junk)), f"{junk} is not the PEM certificate of a CA")


def assert_is_one_line(result: Any, *words: str) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_what_is_wrong_with_a_programs_files_is_an_error_of_the_pool(
    server: RunningServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
):
    gone = replace(certificates.client, cert=certificates.client.cert + ".gone")
    with pytest.raises(PoolError, match="cannot read the TLS file"):
        compute_this(tls=gone)(divmod)(7, 3).run()
    with PoolExecutor(tls=gone) as pool:
        assert isinstance(pool.submit(divmod, 7, 3).exception(HANG_S), PoolError)
    monkeypatch.delenv(VARIABLES[2])
    with pytest.raises(PoolError, match="set COMPUTE_TLS_CA"):
        PoolExecutor()
