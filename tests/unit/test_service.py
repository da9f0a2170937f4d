"""What the server tells of a worker that was replaced, and what a worker does where memory is short."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest

from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import FAILURE, MAX_BYTES, Call, Outcome
from distribute_challenge.calls.replies import failure
from distribute_challenge.client.parcels.parcel import Sent
from distribute_challenge.client.parcels.shipping import Shipment
from distribute_challenge.record.profile import Usage
from distribute_challenge.server.service import SchedulerService
from distribute_challenge.worker import service as worker_service
from distribute_challenge.worker.service import Worker

BEFORE, LOST, NEXT, NEVER = b"before..", b"lost....", b"next....", b"never..."


def test_what_all_workers_of_a_lease_have_begun_is_told():
    """Its client may have run something on each: nothing may run again as if it had never begun."""
    ending = Ending(18812, 99, None, "SIGKILL", [], last_calls=[LOST.hex()])
    process = Mock(port=18812, **{"ending.return_value": ending, "flight.functions": 5})
    others = [
        Mock(port=18812, **{"last_call.return_value": call.hex(), "flight.functions": 1})
        for call in (BEFORE, NEXT)
    ]
    pool = Mock()
    pool.worker.return_value = 0
    pool.supervisor.process.return_value = None
    pool.sampler.latest = [Usage(1.0, 4096)]
    pool.dispatcher.recycle.return_value = (process, others, 4)
    pool.clients = None
    service = SchedulerService(cast(Any, pool))
    with Path("/dev/null").open() as connection:
        service.on_connect(connection)
        told = Ending.from_json(service.exposed_recycle_worker(18812, "it does not answer"))
        service.on_disconnect(connection)
    assert [told.has_begun(call) for call in (BEFORE, LOST, NEXT, NEVER)] == [True, True, True, False]
    assert told.memory_bytes == 4096
    pool.dispatcher.count.assert_called_once_with(0, 3)  # What they began, and nobody has told of.


def test_the_stack_is_looked_at_before_it_is_asked_whether_the_call_runs():
    """It takes its time, in which the call may end and the next one begin: that is not to be stopped."""
    running = [True]
    process = Mock(**{"has_ended_call": lambda _: not running[0], "flight.running.return_value": []})
    process.stack.side_effect = lambda: running.clear() or running.append(False) or []
    pool = Mock()
    pool.worker.return_value = 0
    pool.supervisor.process.return_value = process
    service = SchedulerService(cast(Any, pool))
    service._caller = Mock()
    assert service.exposed_recycle_worker(18812, "too long", "timeout", LOST) == ""
    pool.dispatcher.recycle.assert_not_called()


@pytest.mark.parametrize("where", ["unpack_buffers", "Parts"])
def test_a_call_for_which_there_is_no_memory_fails_and_costs_no_worker(
    monkeypatch: pytest.MonkeyPatch, where: str
):
    parcel = Shipment(np.ones).parcel((1 << 20,), {})
    call, section = Call.unpack(parcel.pack(Sent(), can_share=False, limit=MAX_BYTES))
    worker = Worker(Mock(), Mock(**{"end.return_value": (0, ())}))
    monkeypatch.setattr(worker_service, where, Mock(side_effect=MemoryError("there is none")))
    packed, region = worker.run(parcel.source, call, section, set())
    assert region is None
    with pytest.raises(MemoryError, match="there is none"):
        Outcome.unpack(packed).load()


def test_what_is_missing_on_a_worker_is_said_once():
    """Though the function that called another one lets the error through."""
    error: Any = ModuleNotFoundError("No module named 'nonesuch'")
    for _ in range(3):
        with pytest.raises(ModuleNotFoundError) as caught:
            Outcome(FAILURE, failure(error)).load()
        error = caught.value
    assert str(error).count("on the worker") == 1
