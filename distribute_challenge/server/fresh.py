"""Workers that are new to each program: `server.py --fresh`.

A process runs functions of one program only. Where a worker is to pass to another one it goes down first, and
comes up as a new process. As `scheduler.py`, this is pure: it says which worker goes down, and kills nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from distribute_challenge.server.scheduler import Holder, Scheduler, Ticket


class FreshScheduler(Scheduler[Holder]):
    """A scheduler that knows to which program each holder belongs: `program` tells. `has_run` tells whether a
    worker's process has run anything.

    A worker may be free while somebody waits: if it was used by another program, and as many workers as there
    are clients in line are coming up anew for them.

    >>> pool = FreshScheduler(2, program=lambda holder: holder[0], has_run=lambda worker: True)
    >>> pool.up(0), pool.up(1)
    (None, None)
    >>> pool.lease("p1"), pool.lease("p2"), pool.free("p1", 0), pool.free("p2", 1)
    (0, 1, None, None)
    >>> pool.lease("q"), pool.renew(1)
    (None, 0)
    >>> place = pool.wait("q")
    >>> pool.lease("p3"), pool.up(0) is place
    (1, True)
    """

    def __init__(
        self, size: int, program: Callable[[Holder], Hashable], has_run: Callable[[int], bool]
    ) -> None:
        super().__init__(size)
        self._program = program
        self._has_run = has_run
        self._users: list[Hashable] = [None] * size  # the program that each worker's process is of
        self._renewed: set[int] = set()  # workers that are down to come up anew

    def lease(self, holder: Holder) -> int | None:
        """Lease the first free worker that is of the holder's program, else the first that is of none.

        None if there is neither.
        """
        free = [worker for worker in range(self.size) if not self.busy[worker]]
        for user in (self._program(holder), None):
            for worker in free:
                if self._users[worker] == user:
                    self._give(worker, holder)
                    return worker
        return None

    def renew(self, more: int = 0) -> int | None:
        """A free worker to come up anew for those in line, and so many more: it is down now.

        None if there is no free one, or enough are coming up already.
        """
        if len(self._renewed) >= self.waiting - self.passed_over + more or 0 not in self.busy:
            return None
        worker = self.busy.index(0)
        self._renewed.add(worker)
        self.down(worker)
        return worker

    def up(self, worker: int) -> Ticket[Holder] | None:
        """The worker's (new) process answers: it has run nothing yet."""
        self._renewed.discard(worker)
        holder = self._holder[worker]  # It may have died under a lease.
        self._users[worker] = None if holder is None else self._program(holder)
        return super().up(worker)

    def _give(self, worker: int, holder: Holder) -> None:
        self._users[worker] = self._program(holder)
        super()._give(worker, holder)

    def _take_back(self, worker: int) -> None:
        if not self._has_run(worker):  # Executors may find, when it is their turn, that they have done all.
            self._users[worker] = None
        super()._take_back(worker)

    def _offer(self, worker: int) -> Ticket[Holder] | None:
        """Pass a worker to the first in line if it may run its functions, or else mark it free."""
        first = self.first_in_line()
        is_idle = self._holder[worker] is None and self._is_up[worker]
        if first is None or not is_idle or self._users[worker] in (None, self._program(first.holder)):
            return super()._offer(worker)
        self._set_free(worker)
        return None
