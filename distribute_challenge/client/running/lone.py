"""One call in the caller's own thread: acquire a worker, run the function there, give the worker back.

An exception may arrive between any two steps here: Ctrl-C does. A connection is settled, or closed.
"""

from __future__ import annotations

import contextlib
import logging
import time

from distribute_challenge import errors
from distribute_challenge.calls.ending import Ending
from distribute_challenge.calls.payload import Outcome
from distribute_challenge.client.options import RESTART_S, Options
from distribute_challenge.client.parcels.parcel import Parcel
from distribute_challenge.client.peers.connections import Connections
from distribute_challenge.client.peers.failures import (
    Broken,
    Killed,
    Unusable,
)
from distribute_challenge.client.peers.kept import KeptLease, KeptLeases
from distribute_challenge.client.peers.server import LOOK_S, RECYCLED_S, ServerConnection
from distribute_challenge.client.peers.worker import WorkerConnection
from distribute_challenge.client.running import calling
from distribute_challenge.errors import PoolError, ServerUnavailable
from distribute_challenge.wire.link import Answer

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 10
INTERRUPTED_S = 1.0  # How long Ctrl-C waits for the end of its worker.


class Lease:
    """A server connection that may hold a worker: kept at the end if it is settled, else closed.

    On a private pool that worker may be kept, too, for the next call.
    """

    def __init__(self, connections: Connections, patience_s: float = 0) -> None:
        """A server that has gone, or is stopping, is waited for so long in `take`."""
        self.port = -1
        self._connections = connections
        self._patience_s = patience_s
        self._is_settled = False
        self._server: ServerConnection | None = None
        self._keeping: Answer | None = None
        self._asked_at = self._taken_at = time.monotonic()
        self._finished = self._failed = 0  # that the server does not know of yet
        self._kept: KeptLease | None = None  # that was, or is to be, kept
        self._worker: WorkerConnection | None = None  # the connection that was kept with it

    def close(self) -> None:
        """Keep the connection for another call if it holds no worker, else end it, and so the lease."""
        if self._server is None or self._is_others():
            return
        if self._is_settled:
            self._connections.put_server(self._server)
        else:
            self._server.close()

    def end(self) -> None:
        """End the lease, unless it has ended."""
        if self._server is not None and not self._is_settled and not self._is_others():
            self._server.close()

    def _is_others(self) -> bool:
        """Whether the lease was kept, and is not this one's any more."""
        return self._kept is not None and not self._kept.is_owned_by(self)

    def take(self, wait_s: float | None) -> bool:
        """Get a worker, waiting in line; False if there is none within `wait_s` seconds.

        Raises ServerUnavailable or AccessDenied.
        """
        if self._connections.leases is not None and self._take_kept(self._connections.leases):
            return True
        while (server := self._connections.take_idle_server()) is not None:
            try:
                self.port = self._acquire(server, wait_s)
                break
            except (EOFError, OSError) as error:  # It was restarted, perhaps.
                log.info("an idle connection to the server had ended (%s)", error)
                self._connections.doubt_facts()
                server.close()
        else:
            _, self.port = self._connections.new_server(
                lambda server: self._acquire(server, wait_s), self._patience_s
            )
        self._is_settled = self.port == -1
        return not self._is_settled

    def _take_kept(self, leases: KeptLeases) -> bool:
        for kept in leases.all():
            self._kept, self._server = kept, kept.server  # First: see `_acquire`.
            if kept.claim(self):
                self._worker = self._connections.take_idle_worker(kept.port)
                if self._worker is not None:
                    self.port, self._taken_at = kept.port, kept.taken_at
                    self._finished, self._failed = kept.counts
                    return True
                leases.let_go(kept, self)  # Most likely its worker has died.
        self._server = None
        self._kept = None
        return False

    def _acquire(self, server: ServerConnection, wait_s: float | None) -> int:
        self._server = server  # At once: whatever comes now, `close` has to see to it.
        asked_at = time.monotonic()
        port = server.acquire(wait_s)
        # The first answer of all may have been slow, on a busy machine: time limits would be loose for ever.
        self._connections.distance.note(time.monotonic() - asked_at, is_at_most=True)
        return port

    def run(self, name: str, parcel: Parcel, timeout_s: float | None) -> Outcome:
        """The outcome of one call on the leased worker, which is given back.

        Raises Unusable if it did not take the call, WorkerLost if it died under it, TaskTimeout, Unreachable.
        """
        worker: WorkerConnection | None = None
        try:
            worker = self._worker or self._connections.take_worker(self.port)
            round_trip_s = self._connections.distance.round_trip_s
            outcome = calling.call(worker, name, parcel, timeout_s, self._is_worker_dead, round_trip_s)
        except PoolError:  # There is nothing wrong with the worker.
            self._free()
            raise
        except KeyboardInterrupt:
            if worker is not None:
                with contextlib.suppress(PoolError):  # Closed, it ends its worker all the same.
                    self._recycle(Killed(), INTERRUPTED_S)
            raise
        except Broken as broken:
            ending = self._recycle(broken)
            if broken.ends_task or ending.has_begun(parcel.id):
                raise broken.error(name, ending) from None
            raise broken.unusable(ending) from None
        self._connections.put_worker(self.port, worker)
        finished, failed = outcome.counts()
        self._finished += finished
        self._failed += failed
        if self._connections.leases is None or not self._keep(self._connections.leases):
            self._free()
        return outcome

    def _recycle(self, broken: Broken, limit_s: float = RECYCLED_S) -> Ending:
        """Have the worker replaced. Raises ServerUnavailable."""
        assert self._server is not None
        counts = {"finished": self._finished, "failed": self._failed}
        ending = self._server.recycle(self.port, broken, limit_s, **counts)
        self._is_settled = True
        return ending

    def _keep(self, leases: KeptLeases) -> bool:
        """Leave the lease to the next call, if calls come fast."""
        assert self._server is not None
        counts = self._finished, self._failed
        self._kept = KeptLease(self._server, self.port, self._taken_at, counts, self)
        return leases.put(self._kept)

    def _free(self) -> None:
        assert self._server is not None
        self._server.free(self.port, finished=self._finished, failed=self._failed)
        self._is_settled = True

    def _is_worker_dead(self, now: float) -> bool:
        """Whether the server has said so. It is asked each second, and not waited for."""
        assert self._server is not None
        if self._keeping is None and now - self._asked_at > LOOK_S:
            self._keeping, self._asked_at = self._server.ask_to_keep(self.port, 0, 0), now
        if self._keeping is None:
            return False
        self._server.link.serve_arrived()
        if not self._keeping.is_here:
            return False
        answer, self._keeping = self._keeping, None
        return int(answer.value) < 0


def run(
    connections: Connections,
    name: str,
    parcel: Parcel,
    options: Options,
    *,
    wait_s: float | None = None,
    wait_again_s: float | None = None,
    lease: Lease | None = None,
) -> Outcome | None:
    """The outcome of one call, on a worker that is leased already or waited for; None if there was none.

    It waits at most `wait_s` seconds in line, and to make good a loss `wait_again_s`; by default for ever.
    `name` is the function's, for messages. Raises ServerUnavailable; WorkerLost if the worker died under the
    function; TaskTimeout; PoolError if workers cannot be reached.
    """
    retries, patience_s = options.retries, options.wait_s
    loss: Exception | None = None
    for _ in range(MAX_ATTEMPTS + retries):
        held = lease or Lease(connections, patience_s)
        lease = None
        try:
            if held.port == -1 and not held.take(wait_s if loss is None else wait_again_s):
                if loss is not None:
                    raise loss
                return None
            return held.run(name, parcel, options.timeout_s)
        except Unusable as reason:
            log.info("%s", reason)
        except (ServerUnavailable, errors.WorkerLost) as error:
            if error is loss or not retries or held.port == -1:
                raise
            retries, patience_s = retries - 1, max(patience_s, RESTART_S)
            loss = error
            log.info("%s is run again: %s", name, loss)
        finally:
            try:
                held.close()
            except BaseException:  # Ctrl-C came only now.
                held.end()
                raise
    raise PoolError(f"{MAX_ATTEMPTS} workers one after another did not take {name}: see the server's log")
