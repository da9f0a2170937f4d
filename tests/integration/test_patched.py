"""Programs in which another library has replaced what connections and threads are made of."""

from __future__ import annotations

import importlib.util
import queue
import select
import socket
import subprocess
import sys
from typing import Any

import pytest

from distribute_challenge import PoolError, PoolExecutor, compute_this
from tests.running import HANG_S, ROOT

WITH_GEVENT = """
from gevent import monkey
monkey.patch_all({})
from distribute_challenge import PoolError, PoolExecutor, compute_this

@compute_this(server="local://1")
def square(x):
    return x * x

try:
    print(square(3).run(), square(4).submit().result(), list(square.map(range(3))))
except PoolError as error:
    print(error)
"""


def replaced(module: Any, name: str) -> Any:
    original = getattr(module, name)

    class Replacement:
        """Looks like the original, and is none."""

        __module__ = "greenery.parts"
        __slots__ = ("_original",)

        def __init__(self, *args: Any) -> None:
            self._original = original(*args)

    return Replacement


@pytest.mark.parametrize(
    ("module", "name"), [(socket, "socket"), (select, "poll"), (queue, "SimpleQueue")], ids=str
)
def test_it_is_said_at_once_and_what_to_do(module: Any, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, name, replaced(module, name))
    with pytest.raises(PoolError, match=r"greenery has replaced .*: have it leave them alone"):
        PoolExecutor("localhost:1")
    with pytest.raises(PoolError, match="greenery"):
        compute_this(server="localhost:2")(abs)(-1).run()


def test_a_socket_that_is_derived_from_pythons_own_is_none_of_that(monkeypatch: pytest.MonkeyPatch):
    class Counted(socket.socket):
        pass

    monkeypatch.setattr(socket, "socket", Counted)
    PoolExecutor("localhost:1").shutdown()


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize(
    ("left_alone", "expected"),
    [
        ("", "gevent has replaced"),
        ("socket=False, thread=False, select=False, queue=False", "9 16 [0, 1, 4]\n"),
    ],
    ids=["all", "as advised"],
)
def test_gevent(left_alone: str, expected: str):
    command = [sys.executable, "-c", WITH_GEVENT.format(left_alone)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert result.stdout.startswith(expected), result.stderr
