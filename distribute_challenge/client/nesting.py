"""Tasks of tasks: calls that a function makes, on a worker, to the pool which that worker belongs to.

If they waited in line while their caller holds a worker, a pool could be full of callers that wait for each
other. So they never wait: they take a worker that is free, and if there is none they run in place.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable

from distribute_challenge.address import INSIDE_VARIABLE, Address
from distribute_challenge.client import direct
from distribute_challenge.client.connections import Connections
from distribute_challenge.client.losses import Unusable
from distribute_challenge.client.options import Options
from distribute_challenge.client.shipping import Parcel
from distribute_challenge.client.tasks import Task
from distribute_challenge.wire.payload import Outcome
from distribute_challenge.wire.running import Runner

log = logging.getLogger(__name__)

_in_place = Runner()


def is_inside(address: Address) -> bool:
    """Whether this program runs on a worker of the server at `address`, or below one."""
    inside = os.environ.get(INSIDE_VARIABLE)
    if not inside:
        return False
    own = Address.parse(inside)
    return own.port == address.port and (own.host == address.host or _are_here(own.host, address.host))


@functools.lru_cache(maxsize=64)
def _are_here(*hosts: str) -> bool:
    """Whether all these are names of this machine: an address of another one cannot be bound."""
    for host in hosts:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as sock:
                sock.bind(address)
        except (OSError, UnicodeError) as error:
            log.debug("%s is not this machine: %s", host, error)
            return False
    return True


def run(connections: Connections, name: str, parcel: Parcel, options: Options) -> Outcome:
    """The outcome of a call: on a worker that is free, else here."""
    lease = direct.find_lease(connections)
    return _run_here(parcel) if lease is None else _run_there(lease, name, parcel, options)


def run_task(connections: Connections, task: Task, prepare: Callable[[], Task] | None) -> None:
    """Run a task: in a thread, on a worker that is free, else here and now.

    With `prepare` always here: it makes the task that has to run first in each process.
    """
    if not task.begin():
        return
    try:
        if prepare is not None:
            _run_here(prepare().parcel).load()
        lease = direct.find_lease(connections) if prepare is None else None
    except BaseException as error:
        task.fail(error)
        return
    if lease is None:
        task.complete(_run_here(task.parcel))
        return

    def run() -> None:
        try:
            outcome = _run_there(lease, task.name, task.parcel, task.options)
        except BaseException as error:
            task.fail(error)
        else:
            task.complete(outcome)

    threading.Thread(target=run, name=f"nested {task.name}", daemon=True).start()


def _run_there(lease: direct.Lease, name: str, parcel: Parcel, options: Options) -> Outcome:
    with lease:
        try:
            return lease.run(name, parcel, options.timeout_s)
        except Unusable as reason:
            log.info("%s", reason)
    return _run_here(parcel)


def _run_here(parcel: Parcel) -> Outcome:
    return Outcome(*_in_place.run(parcel.source, parcel.call), 0, ())
