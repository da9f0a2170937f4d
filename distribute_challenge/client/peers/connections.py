"""The connections of this program to one pool: made when first needed, kept for the next call.

As many are kept while idle as the pool has workers, and at least `MAX_IDLE`, of each kind: an executor that
has used all workers needs no new ones for what comes next. One takes 50 kB and a descriptor of the server.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from distribute_challenge.address import Address, is_loopback
from distribute_challenge.calls import regions
from distribute_challenge.calls.payload import MAX_BYTES, NO_PROGRAM
from distribute_challenge.calls.program import current
from distribute_challenge.client.local import STOP_S, PrivateServer
from distribute_challenge.client.peers.distance import Distance
from distribute_challenge.client.peers.failures import why_no_worker
from distribute_challenge.client.peers.inside import is_inside
from distribute_challenge.client.peers.kept import KeptLeases
from distribute_challenge.client.peers.server import ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection
from distribute_challenge.errors import AccessDenied, PoolError, ServerUnavailable
from distribute_challenge.wire.access import Trust
from distribute_challenge.wire.link import NO_OTHERS

MAX_IDLE = 8
RETRY_S = 0.1
ASK_AGAIN_S = 1.0  # To ask a server that has gone may take as long as to connect.
TUNNEL_S = 0.05  # A round trip that long on one machine leads out of it, or waits for a processor.

T = TypeVar("T")


class Facts(NamedTuple):
    """The facts that a client has to know about a pool."""

    python: str  # the workers' version, as `3.12`
    workers: int
    max_tasks: int | None  # after which a worker is replaced
    max_frame: int = MAX_BYTES  # bytes of the largest call that workers take
    is_fresh: bool = False  # whether each program gets new workers
    ports: tuple[int, ...] = ()  # the workers'


class Connections:
    """The idle connections to one pool. Safe to use from any thread."""

    def __init__(
        self,
        address: Address,
        trust: Trust = NO_OTHERS,
        program: bytes = NO_PROGRAM,
        private: PrivateServer | None = None,
    ) -> None:
        """`program` is that of an executor with an initializer; else they belong to this one.

        A `private` server is where it says, which may be elsewhere when another one had to be started.
        """
        self.address = address
        self._private = private
        self.leases = None if private is None else KeptLeases(self.put_server)
        self._program = program
        self.are_inside = is_inside(address)
        # Memory, with the workers, if they are on this machine.
        self.may_share = trust.tls is None and is_loopback(address)
        self.distance = Distance()
        self._trust = trust
        self._host: str | None = None  # the address on which the server answered: its workers have it, too
        self._lock = threading.Lock()  # guards all that follows
        self._servers: list[ServerConnection] = []
        self._workers: dict[int, WorkerConnection] = {}  # by port, longest idle first
        self._facts: Facts | None = None
        self._are_stale = False  # Another server may be there by now,
        self._ask_again_at = 0.0  # which is found out not before this time.
        self._is_closed = False

    def facts(self, wait_s: float = 0) -> Facts:
        """The facts about the pool. Raises ServerUnavailable.

        A server that is not there is waited for, at most `wait_s` seconds. If it was there before, that is
        for those who need it: nobody waits here.
        """
        known = self._facts
        if known is not None and (not self._are_stale or time.monotonic() < self._ask_again_at):
            return known
        self._are_stale = False  # First: a doubt that comes meanwhile is about what is learnt now.
        try:
            server, facts = self._learn_over_idle() or self.new_server(self._learn, 0 if known else wait_s)
        except BaseException as error:
            self._are_stale = True
            if known is None or not isinstance(error, ServerUnavailable | AccessDenied):
                raise
            self._ask_again_at = time.monotonic() + ASK_AGAIN_S
            return known
        self._facts = facts
        self.put_server(server)
        return facts

    def _learn_over_idle(self) -> tuple[ServerConnection, Facts] | None:
        """The server may have no descriptor left for one more connection."""
        while (server := self.take_idle_server()) is not None:
            try:
                return server, self._learn(server)
            except BaseException as error:
                server.close()
                if not isinstance(error, EOFError | OSError):
                    raise
        return None

    def _learn(self, server: ServerConnection) -> Facts:
        began_at = time.monotonic()
        status = server.status()
        self.distance.note(time.monotonic() - began_at)
        python = ".".join(status["python"].split(".")[:2])
        limit = status.get("max_frame", MAX_BYTES)
        ports = tuple(worker["port"] for worker in status["workers"])
        facts = Facts(python, len(ports), status.get("max_tasks"), limit, status.get("fresh", False), ports)
        self._introduce(server, facts)
        return facts

    @property
    def ports(self) -> tuple[int, ...]:
        """The workers' ports, as far as known, if workers are kept from one program to the next."""
        facts = self._facts
        return () if facts is None or facts.is_fresh else facts.ports

    @property
    def has_answered(self) -> bool:
        """Whether the facts are known: the server has let this program in."""
        return self._facts is not None and not self._are_stale

    @property
    def _max_idle(self) -> int:
        return MAX_IDLE if self._facts is None else max(MAX_IDLE, self._facts.workers)

    def doubt_facts(self) -> None:
        """Another server may be there by now."""
        self._are_stale = True

    def take_idle_server(self) -> ServerConnection | None:
        """A server connection that was used before, and may have ended since."""
        with self._lock:
            return self._servers.pop() if self._servers else None

    def new_server(
        self, first: Callable[[ServerConnection], T], wait_s: float = 0
    ) -> tuple[ServerConnection, T]:
        """A new server connection, tried for `wait_s` seconds, and the answer to the first call over it.

        That is waited for, since only an answer shows that the server lets us in. Raises ServerUnavailable,
        AccessDenied, and what `first` raises.
        """
        deadline = time.monotonic() + wait_s
        was_denied = False
        while True:
            try:
                server, answer = self._connect(first)
            except AccessDenied:
                if was_denied:
                    raise
                was_denied = True  # A server that ends looks the same, but only once.
            except ServerUnavailable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_S)  # Nothing tells when a server comes up.
            else:
                self._host = server.link.host
                return server, answer

    def _connect(self, first: Callable[[ServerConnection], T]) -> tuple[ServerConnection, T]:
        server = self._open()
        try:
            self._introduce(server, self._facts)
            return server, first(server)
        except BaseException as error:
            server.close()
            if isinstance(error, EOFError | OSError) and not isinstance(error, PoolError):
                raise server.failed(error) from None
            raise

    def _open(self) -> ServerConnection:
        private = self._private
        if private is None:
            return ServerConnection(self.address, self._trust)
        self.address = private.address()
        try:
            return ServerConnection(self.address, self._trust)
        except ServerUnavailable as error:
            # One that refuses is about to end, or was just ending. Against all else waiting does not help.
            number = getattr(error.__context__, "errno", None)
            if number not in (errno.ECONNREFUSED, errno.ENOTCONN) or not private.has_ended(STOP_S):
                raise
        self.address = private.address()
        return ServerConnection(self.address, self._trust)

    def _introduce(self, server: ServerConnection, facts: Facts | None) -> None:
        """Say to which program a connection belongs, where that counts."""
        if facts is not None and facts.is_fresh:
            server.introduce(current.id if self._program == NO_PROGRAM else self._program)

    def put_server(self, server: ServerConnection) -> None:
        """Keep a server connection for another call."""
        _wait_again(server)
        with self._lock:
            if not (server.link.closed or self._is_closed) and len(self._servers) < self._max_idle:
                self._servers.append(server)
                return
        server.close()

    def take_idle_worker(self, port: int) -> WorkerConnection | None:
        """The idle connection to the worker leased on `port`, if there is one and it is still good."""
        with self._lock:
            worker = self._workers.pop(port, None)
        if worker is None or worker.link.is_quiet():
            return worker
        worker.close()  # Its process has been replaced since.
        return None

    def has_idle_worker(self, port: int) -> bool:
        """Whether there is an idle connection to the worker on `port`."""
        with self._lock:
            return port in self._workers

    def take_worker(self, port: int) -> WorkerConnection:
        """A connection to the worker leased on `port`. Raises as `new_worker` does."""
        return self.take_idle_worker(port) or self.new_worker(port)

    def new_worker(self, port: int) -> WorkerConnection:
        """A new connection to the worker on `port`, which is leased, or may be before long.

        Raises Broken, Unreachable or AccessDenied; PoolError if the files for TLS cannot be used.
        """
        address = Address(self.address.host, port)
        limit = MAX_BYTES if self._facts is None else self._facts.max_frame
        try:
            is_near = self.distance.round_trip_s < TUNNEL_S
            return WorkerConnection(
                address, self._trust, self._host, may_share=self.may_share, is_near=is_near, max_frame=limit
            )
        except (EOFError, OSError) as error:
            raise why_no_worker(error, address) from None

    def put_worker(self, port: int, worker: WorkerConnection) -> None:
        """Keep a worker connection for another call, in place of the one that has been idle longest."""
        _wait_again(worker)
        with self._lock:
            surplus = [self._workers.pop(port, None)]
            self._workers[port] = worker
            if len(self._workers) > self._max_idle or self._is_closed:
                surplus.append(self._workers.pop(next(iter(self._workers))))
        for connection in surplus:
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """Close what is idle, now and later, and give back the memory that was kept for large values."""
        regions.let_go()
        if self.leases is not None:
            self.leases.close()
        with self._lock:
            self._is_closed = True
            idle: list[ServerConnection | WorkerConnection] = [*self._servers, *self._workers.values()]
            self._servers.clear()
            self._workers.clear()
        for connection in idle:
            connection.close()


def _wait_again(connection: ServerConnection | WorkerConnection) -> None:
    """Have the next caller find a connection that waits when it sends; one whose peer has gone is closed."""
    try:
        connection.link.wait_again()
    except EOFError:
        connection.close()
