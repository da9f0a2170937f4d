"""Which client holds which worker, and which is next.

This file owns the busy list, the line of waiting clients, the leases and the counts. It is pure: no
lock, no clock, no socket, no process. Every change is a method; an illegal one raises `ValueError` and
changes nothing. A *holder* is whoever may own a lease (in the server: one client connection) and a
*ticket* one place in the line; both are told apart by identity and nothing else about them is known.

A worker is *free* when nobody holds it and its process is up. Free workers and waiting clients never
exist at the same time: each change that would make both hands the worker over before it returns. Who is
passed over keeps its place, and does not count as waiting until it comes back.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Ticket(Generic[Holder]):
    """One place in the line: who took it, and the worker that was handed over when its turn came."""

    __slots__ = ("holder", "is_passed_over", "worker")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.worker: int | None = None
        self.is_passed_over = False


class Scheduler(Generic[Holder]):
    """The state of a pool of `size` workers, numbered from 0, all of them down at first.

    Every move costs O(log size), and one step for each client that is passed over; leaving the line O(1).

    >>> pool = Scheduler(2)
    >>> pool.up(0), pool.up(1)
    (None, None)
    >>> pool.lease("ann"), pool.lease("bob"), pool.lease("eve")
    (0, 1, None)
    >>> place = pool.wait("eve")
    >>> pool.free("ann", 0) is place, place.worker
    (True, 0)
    >>> pool.busy, pool.finished
    ([1, 1], 1)
    """

    def __init__(self, size: int) -> None:
        self.busy = [1] * size
        self.finished = 0
        self.failed = 0
        self.leases = 0
        self._holder: list[Holder | None] = [None] * size
        self._is_up = [False] * size
        self._held: dict[int, set[int]] = {}  # id(holder) -> the workers it holds
        self._line: OrderedDict[Ticket[Holder], None] = OrderedDict()
        self.passed_over = 0  # of those in line
        self.tasks = 0  # that wait, of all holders
        self._executors: dict[int, bytes] = {}  # id(holder) -> for whom it speaks, if not for itself alone
        self._tasks: dict[int | bytes, int] = {}  # executor, or id(holder) -> how many of them are its
        self._uses: Counter[int | bytes] = Counter()  # likewise -> leases and places in line
        # Lowest number first. A worker that stops being free stays in the heap until it surfaces, so
        # that no move has to search; `_in_heap` keeps it from being there twice.
        self._heap: list[int] = []
        self._in_heap = [False] * size

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self.busy)

    @property
    def waiting(self) -> int:
        """How many clients are in line."""
        return len(self._line)

    def holder(self, worker: int) -> Holder | None:
        """The holder of `worker`, or None."""
        return self._holder[worker]

    def is_up(self, worker: int) -> bool:
        """Whether the worker's process answers."""
        return self._is_up[worker]

    def states(self) -> list[str]:
        """What each worker is: starting (down), leased or free."""
        return [
            "starting" if not is_up else "leased" if holder is not None else "free"
            for is_up, holder in zip(self._is_up, self._holder, strict=True)
        ]

    def held_by(self, holder: Holder) -> list[int]:
        """The workers that `holder` holds, lowest number first."""
        return sorted(self._held.get(id(holder), ()))

    def first_in_line(self) -> Ticket[Holder] | None:
        """The ticket that has waited longest, of those that are not passed over, or None."""
        return next((ticket for ticket in self._line if not ticket.is_passed_over), None)

    def is_in_line(self, ticket: Ticket[Holder]) -> bool:
        """Whether a ticket is in line (still)."""
        return ticket in self._line

    def line(self) -> list[Ticket[Holder]]:
        """The tickets in line, longest wait first."""
        return list(self._line)

    def tell(self, holder: Holder, tasks: int, executor: bytes = b"") -> None:
        """`holder` has so many tasks that wait. One of them goes to each worker that it gets.

        All holders that speak for an executor have the same ones: what was told last holds, until the last of
        them has neither a worker nor a place in line. This one has no place in line now.
        """
        who = executor or id(holder)
        if who != self._who(holder):
            leases = len(self._held.get(id(holder), ()))
            self._unuse(holder, leases)
            self._executors.pop(id(holder), None)
            if executor:
                self._executors[id(holder)] = executor
            self._uses[who] += leases
        self._set_tasks(who, tasks)

    def hush(self, holder: Holder) -> None:
        """A holder has told in vain."""
        self._unuse(holder, 0)

    def count(self, finished: int, failed: int) -> None:
        """Count functions."""
        self.finished += finished
        self.failed += failed

    # Taking a worker

    def lease(self, holder: Holder) -> int | None:
        """Lease the lowest-numbered free worker to `holder`; None if there is none."""
        while self._heap:
            worker = heapq.heappop(self._heap)
            self._in_heap[worker] = False
            if not self.busy[worker]:
                self._give(worker, holder)
                return worker
        return None

    def wait(self, holder: Holder) -> Ticket[Holder]:
        """Join the end of the line. Only for a holder that `lease` has just answered with None."""
        ticket = Ticket(holder)
        self._line[ticket] = None
        self._uses[self._who(holder)] += 1
        return ticket

    def leave(self, ticket: Ticket[Holder]) -> None:
        """Leave the line, if the ticket is in it (still)."""
        if ticket in self._line:
            self._take_out(ticket)

    def pass_over(self, ticket: Ticket[Holder]) -> None:
        """Hand nothing to a ticket in line, which keeps its place, until it comes back."""
        self.passed_over += not ticket.is_passed_over
        ticket.is_passed_over = True

    def come_back(self, ticket: Ticket[Holder]) -> bool:
        """The opposite of `pass_over`; whether there was a free worker for it, which it has got."""
        self.passed_over -= ticket.is_passed_over
        ticket.is_passed_over = False
        ticket.worker = self.lease(ticket.holder)
        if ticket.worker is not None:
            self._take_out(ticket)
        return ticket.worker is not None

    def renew(self, more: int = 0) -> int | None:
        """A free worker that has to come up anew for those in line, and so many more: it is down now.

        Here there is none.
        """
        del more
        return None

    # Using and returning it

    def keep(self, holder: Holder, worker: int, finished: int = 0, failed: int = 0) -> None:
        """Count tasks of a lease that goes on."""
        if finished < 0 or failed < 0:
            raise ValueError(f"counts cannot be negative: finished={finished}, failed={failed}")
        if not 0 <= worker < self.size or self._holder[worker] is not holder:
            raise ValueError(
                "this connection does not hold that worker: free a lease once, on the connection that took it"
            )
        self.count(finished, failed)

    def free(self, holder: Holder, worker: int, finished: int = 1, failed: int = 0) -> Ticket[Holder] | None:
        """End a lease. Returns the ticket that got the worker, if somebody waited."""
        self.keep(holder, worker, finished, failed)
        self._take_back(worker)
        return self._offer(worker)

    def retire(self, holder: Holder, worker: int, finished: int = 1, failed: int = 0) -> None:
        """End a lease whose worker shall not be used again: it is down now."""
        self.keep(holder, worker, finished, failed)
        self._take_back(worker)
        self.down(worker)

    def abandon(self, holder: Holder) -> list[int]:
        """End every lease of a holder that has gone. Those workers are down now; returns them."""
        workers = self.held_by(holder)
        for worker in workers:
            self._take_back(worker)
            self.down(worker)
        self._executors.pop(id(holder), None)
        return workers

    # The workers' processes

    def down(self, worker: int) -> None:
        """The worker's process has ended, or is about to. A lease on it goes on."""
        self._is_up[worker] = False
        self.busy[worker] = 1

    def up(self, worker: int) -> Ticket[Holder] | None:
        """The worker's (new) process answers. Returns the ticket that got it, if one did."""
        self._is_up[worker] = True
        return self._offer(worker)

    # What the moves are made of

    def _take_out(self, ticket: Ticket[Holder]) -> None:
        del self._line[ticket]
        self.passed_over -= ticket.is_passed_over
        ticket.is_passed_over = False  # Who has no place in line cannot come back to it.
        self._unuse(ticket.holder, 1)

    def _give(self, worker: int, holder: Holder) -> None:
        self._holder[worker] = holder
        self._held.setdefault(id(holder), set()).add(worker)
        self.leases += 1
        self.busy[worker] = 1
        who = self._who(holder)
        self._uses[who] += 1
        if tasks := self._tasks.get(who):
            self._set_tasks(who, tasks - 1)

    def _take_back(self, worker: int) -> None:
        holder = self._holder[worker]
        assert holder is not None
        self._holder[worker] = None
        held = self._held[id(holder)]
        held.discard(worker)
        self.leases -= 1
        if not held:
            del self._held[id(holder)]
        self._unuse(holder, 1)

    def _who(self, holder: Holder) -> int | bytes:
        return self._executors.get(id(holder), id(holder))

    def _set_tasks(self, who: int | bytes, tasks: int) -> None:
        self.tasks += tasks - self._tasks.pop(who, 0)
        if tasks:
            self._tasks[who] = tasks

    def _unuse(self, holder: Holder, uses: int) -> None:
        """A lease or a place in line is over. Without any there is nobody whose tasks could wait."""
        who = self._who(holder)
        self._uses[who] -= uses
        if not self._uses[who]:
            del self._uses[who]
            self._set_tasks(who, 0)

    def _offer(self, worker: int) -> Ticket[Holder] | None:
        """Pass a worker to the first in line if it can be handed out, or else mark it free."""
        if self._holder[worker] is not None or not self._is_up[worker]:
            return None
        if (ticket := self.first_in_line()) is None:
            self._set_free(worker)
        else:
            ticket.worker = worker
            self._give(worker, ticket.holder)
            self._take_out(ticket)
        return ticket

    def _set_free(self, worker: int) -> None:
        self.busy[worker] = 0
        if not self._in_heap[worker]:
            self._in_heap[worker] = True
            heapq.heappush(self._heap, worker)
