"""What it means that a worker does not do its work."""

from __future__ import annotations

import errno

import pytest

from distribute_challenge import AccessDenied
from distribute_challenge.address import Address
from distribute_challenge.client.peers.failures import Broken, Unreachable, why_no_worker

WORKER = Address("127.0.0.1", 18812)


@pytest.mark.parametrize(
    "error",
    [
        EOFError("closed"),
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
        OSError(errno.ETIMEDOUT, "timed out"),
    ],
)
def test_a_worker_that_does_not_answer_is_to_be_replaced(error: Exception):
    reason = why_no_worker(error, WORKER)
    assert isinstance(reason, Broken)
    assert not reason.ends_task  # It has begun nothing for us, and another one may.


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "127.0.0.1:18812"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "127.0.0.1:18812"),
    ],
)
def test_a_worker_that_this_program_cannot_reach_is_left_alone(error: OSError, advice: str):
    reason = why_no_worker(error, WORKER)
    assert isinstance(reason, Unreachable)
    assert advice in str(reason)


def test_a_worker_of_somebody_else_is_not_used():
    denied = AccessDenied("it belongs to somebody else")
    assert why_no_worker(denied, WORKER) is denied
