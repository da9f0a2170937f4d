"""What the server tells of a worker that was replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

from distribute_challenge.calls.ending import Ending
from distribute_challenge.record.profile import Usage
from distribute_challenge.server.service import SchedulerService

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
