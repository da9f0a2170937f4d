"""The scheduler's promises, as sentences and against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from distribute_challenge.server.scheduler import Scheduler, Ticket


def pool_of(size: int) -> Scheduler[str]:
    pool: Scheduler[str] = Scheduler(size)
    for worker in range(size):
        pool.up(worker)
    return pool


def state(pool: Scheduler[str]) -> tuple[object, ...]:
    holders = [pool.holder(worker) for worker in range(pool.size)]
    return list(pool.busy), holders, pool.finished, pool.failed, pool.waiting, pool.leases


def test_the_first_free_worker_is_leased_first():
    pool = pool_of(3)
    assert [pool.lease("ann") for _ in range(4)] == [0, 1, 2, None]
    pool.free("ann", 1)
    pool.free("ann", 0)
    assert [pool.lease("bob"), pool.lease("bob")] == [0, 1]


def test_a_freed_worker_goes_to_the_client_that_waited_longest():
    pool = pool_of(1)
    pool.lease("ann")
    bob, eve = pool.wait("bob"), pool.wait("eve")
    assert pool.free("ann", 0) is bob
    assert (bob.worker, eve.worker) == (0, None)
    assert pool.free("bob", 0) is eve


def test_a_newcomer_cannot_overtake_those_who_wait():
    pool = pool_of(1)
    pool.lease("ann")
    pool.wait("bob")
    pool.free("ann", 0)
    assert pool.lease("newcomer") is None
    assert pool.holder(0) == "bob"


def test_who_left_the_line_is_passed_over():
    pool = pool_of(1)
    pool.lease("ann")
    gone, bob = pool.wait("gone"), pool.wait("bob")
    for _ in range(2):  # The second time it is not in there any more.
        pool.leave(gone)
    assert pool.free("ann", 0) is bob


@pytest.mark.parametrize("worker", [-1, 0, 1, 2, 3])
def test_who_does_not_hold_a_worker_cannot_end_or_extend_its_lease(worker: int):
    pool = pool_of(3)
    pool.lease("ann")
    pool.lease("ann")
    pool.free("ann", 1)
    before = state(pool)
    for move in (pool.free, pool.keep, pool.retire):
        with pytest.raises(ValueError, match="does not hold"):
            move("bob", worker)
        assert state(pool) == before


def test_a_worker_is_freed_only_once():
    pool = pool_of(1)
    pool.lease("ann")
    pool.free("ann", 0)
    before = state(pool)
    with pytest.raises(ValueError, match="does not hold"):
        pool.free("ann", 0)
    assert state(pool) == before


@pytest.mark.parametrize("counts", [(-1, 0), (0, -1)])
def test_negative_counts_change_nothing(counts: tuple[int, int]):
    pool = pool_of(1)
    pool.lease("ann")
    before = state(pool)
    for move in (pool.free, pool.keep):
        with pytest.raises(ValueError, match="negative"):
            move("ann", 0, *counts)
        assert state(pool) == before


def test_a_lease_outlives_its_workers_process():
    pool = pool_of(1)
    pool.lease("ann")
    pool.down(0)
    assert pool.up(0) is None
    assert (pool.holder(0), pool.busy) == ("ann", [1])
    pool.free("ann", 0)
    assert pool.busy == [0]


def test_a_freed_worker_that_is_down_is_handed_out_when_it_is_up_again():
    pool = pool_of(1)
    pool.lease("ann")
    bob = pool.wait("bob")
    pool.down(0)
    assert pool.free("ann", 0) is None
    assert pool.busy == [1]
    assert pool.up(0) is bob


def test_a_recycled_worker_counts_as_failed_and_is_down():
    pool = pool_of(1)
    pool.lease("ann")
    pool.retire("ann", 0, 0, 1)
    assert (pool.failed, pool.finished, pool.busy, pool.holder(0)) == (1, 0, [1], None)
    assert pool.lease("bob") is None


def test_a_holder_that_has_gone_loses_all_it_held():
    pool = pool_of(3)
    pool.lease("ann")
    pool.lease("bob")
    pool.lease("ann")
    assert pool.abandon("ann") == [0, 2]
    assert pool.abandon("ann") == []
    assert (pool.busy, pool.leases) == ([1, 1, 1], 1)


def test_a_free_worker_that_dies_is_not_handed_out():
    pool = pool_of(2)
    pool.down(0)
    assert pool.lease("ann") == 1
    assert pool.lease("ann") is None
    pool.up(0)
    assert pool.lease("ann") == 0


def test_who_is_passed_over_keeps_its_place():
    pool = pool_of(1)
    pool.lease("ann")
    bob, eve, joe = (pool.wait(name) for name in ("bob", "eve", "joe"))
    pool.pass_over(bob)
    assert pool.free("ann", 0) is eve
    assert not pool.come_back(bob)
    assert pool.free("eve", 0) is bob
    assert pool.line() == [joe]


def test_a_worker_that_only_those_wait_for_who_are_passed_over_is_free():
    pool = pool_of(1)
    pool.lease("ann")
    place = pool.wait("bob")
    pool.pass_over(place)
    assert pool.free("ann", 0) is None
    assert (pool.busy, pool.waiting, pool.passed_over) == ([0], 1, 1)
    assert pool.come_back(place)
    assert (place.worker, pool.busy, pool.waiting, pool.passed_over) == (0, [1], 0, 0)


class Naive:
    """The rules again, as plainly as they can be put: lists, and a search for everything."""

    def __init__(self, size: int) -> None:
        self.up = [False] * size
        self.holder: list[str | None] = [None] * size
        self.line: list[tuple[Ticket[str], str]] = []
        self.passed_over: set[Ticket[str]] = set()
        self.finished = self.failed = 0

    def settle(self) -> None:
        """Hand free workers to those who wait."""
        for worker in range(len(self.up)):
            present = self.present()
            if self.up[worker] and self.holder[worker] is None and present:
                self.holder[worker] = present[0][1]
                self.line.remove(present[0])

    def present(self) -> list[tuple[Ticket[str], str]]:
        return [entry for entry in self.line if entry[0] not in self.passed_over]

    def free_workers(self) -> list[int]:
        return [worker for worker, up in enumerate(self.up) if up and self.holder[worker] is None]


class SchedulerMachine(RuleBasedStateMachine):
    """Random moves, legal and illegal, on a pool of four workers and on the naive model."""

    SIZE = 4
    holders = st.sampled_from(["ann", "bob", "eve", "joe"])
    workers = st.integers(-1, SIZE)
    counts = st.integers(-1, 3)
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.pool: Scheduler[str] = Scheduler(self.SIZE)
        self.naive = Naive(self.SIZE)
        self.counted = (0, 0)

    @rule(target=tickets, holder=holders)
    def lease_or_wait(self, holder: str) -> Ticket[str]:
        free = self.naive.free_workers()
        worker = self.pool.lease(holder)
        assert worker == (free[0] if free else None)
        if worker is None:
            ticket = self.pool.wait(holder)
            self.naive.line.append((ticket, holder))
            return ticket
        self.naive.holder[worker] = holder
        return Ticket(holder)  # One that is not in line.

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: Ticket[str]) -> None:
        self.naive.line = [entry for entry in self.naive.line if entry[0] is not ticket]
        self.pool.leave(ticket)

    @rule(ticket=tickets)
    def pass_over(self, ticket: Ticket[str]) -> None:
        if any(ticket is other for other, _ in self.naive.line):
            self.pool.pass_over(ticket)
            self.naive.passed_over.add(ticket)

    @rule(ticket=tickets)
    def come_back(self, ticket: Ticket[str]) -> None:
        if any(ticket is other for other, _ in self.naive.line):
            free = self.naive.free_workers()
            has_one = ticket in self.naive.passed_over and bool(free)
            self.naive.passed_over.discard(ticket)
            assert self.pool.come_back(ticket) == has_one
            assert ticket.worker == (free[0] if has_one else None)

    @rule(holder=holders, worker=workers, finished=counts, failed=counts)
    def free(self, holder: str, worker: int, finished: int, failed: int) -> None:
        if self.refuses(holder, worker, finished, failed):
            with pytest.raises(ValueError, match=r"hold|negative"):
                self.pool.free(holder, worker, finished, failed)
            return
        present = self.naive.present()
        first = present[0][0] if present and self.naive.up[worker] else None
        self.naive.holder[worker] = None
        self.naive.finished += finished
        self.naive.failed += failed
        ticket = self.pool.free(holder, worker, finished, failed)
        assert ticket is first
        assert ticket is None or ticket.worker == worker

    @rule(holder=holders, worker=workers, finished=counts, failed=counts)
    def keep(self, holder: str, worker: int, finished: int, failed: int) -> None:
        if self.refuses(holder, worker, finished, failed):
            with pytest.raises(ValueError, match=r"hold|negative"):
                self.pool.keep(holder, worker, finished, failed)
            return
        self.pool.keep(holder, worker, finished, failed)
        self.naive.finished += finished
        self.naive.failed += failed

    @rule(holder=holders, worker=workers)
    def recycle(self, holder: str, worker: int) -> None:
        if self.refuses(holder, worker, 0, 0):
            with pytest.raises(ValueError, match="hold"):
                self.pool.retire(holder, worker, 0, 1)
            return
        self.pool.retire(holder, worker, 0, 1)
        self.naive.holder[worker] = None
        self.naive.up[worker] = False
        self.naive.failed += 1

    @rule(holder=holders)
    def abandon(self, holder: str) -> None:
        held = [worker for worker in range(self.SIZE) if self.naive.holder[worker] == holder]
        assert self.pool.abandon(holder) == held
        for worker in held:
            self.naive.holder[worker] = None
            self.naive.up[worker] = False

    @rule(worker=st.integers(0, SIZE - 1))
    def down(self, worker: int) -> None:
        self.pool.down(worker)
        self.naive.up[worker] = False

    @precondition(lambda self: not all(self.naive.up))
    @rule(worker=st.integers(0, SIZE - 1))
    def up(self, worker: int) -> None:
        self.pool.up(worker)
        self.naive.up[worker] = True

    def refuses(self, holder: str, worker: int, finished: int, failed: int) -> bool:
        is_holder = 0 <= worker < self.SIZE and self.naive.holder[worker] == holder
        return not is_holder or finished < 0 or failed < 0

    @invariant()
    def agrees_with_the_naive_model(self) -> None:
        self.naive.settle()
        assert [self.pool.holder(worker) for worker in range(self.SIZE)] == self.naive.holder
        assert [self.pool.is_up(worker) for worker in range(self.SIZE)] == self.naive.up
        assert self.pool.line() == [ticket for ticket, _ in self.naive.line]
        assert (self.pool.finished, self.pool.failed) == (self.naive.finished, self.naive.failed)

    @invariant()
    def no_worker_has_two_leases(self) -> None:
        held = [worker for holder in ("ann", "bob", "eve", "joe") for worker in self.pool.held_by(holder)]
        assert len(held) == len(set(held)) == self.pool.leases

    @invariant()
    def no_worker_is_free_while_someone_waits_who_is_not_passed_over(self) -> None:
        assert self.pool.waiting - self.pool.passed_over == len(self.naive.present())
        assert not (self.naive.present() and 0 in self.pool.busy)

    @invariant()
    def busy_means_cannot_be_handed_out(self) -> None:
        free = self.naive.free_workers()
        assert self.pool.busy == [0 if worker in free else 1 for worker in range(self.SIZE)]

    @invariant()
    def counts_only_grow(self) -> None:
        assert self.pool.finished >= self.counted[0]
        assert self.pool.failed >= self.counted[1]
        self.counted = (self.pool.finished, self.pool.failed)


TestAgainstNaiveModel = SchedulerMachine.TestCase
TestAgainstNaiveModel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_the_tasks_of_an_executor_are_those_that_were_told_last_on_any_of_its_connections():
    pool: Scheduler[str] = Scheduler(1)
    pool.up(0)
    pool.tell("one", 5, b"executor")
    assert pool.lease("one") == 0
    assert pool.tasks == 4
    pool.tell("two", 4, b"executor")
    place = pool.wait("two")
    pool.tell("other", 2)
    pool.wait("other")
    assert pool.tasks == 6
    pool.tell("one", 3, b"executor")
    assert pool.tasks == 5
    assert pool.free("one", 0) is place
    assert pool.tasks == 4  # One of them went to the worker that was handed on.
    pool.free("two", 0)
    assert pool.tasks == 1
    pool.abandon("other")
    assert pool.tasks == 0
    pool.tell("late", 3)
    pool.hush("late")
    assert pool.tasks == 0


def test_who_has_a_worker_may_say_only_then_for_which_executor_it_speaks():
    """As one does that has only asked for a free worker."""
    pool: Scheduler[str] = Scheduler(3)
    for worker in range(3):
        pool.up(worker)
    for holder in ("one", "two"):
        pool.lease(holder)
        pool.tell(holder, 5, b"executor")
    assert pool.tasks == 5
    pool.tell("two", 2)  # From now on for itself.
    assert pool.tasks == 7
    pool.tell("one", 3, b"another")
    assert pool.tasks == 5
    pool.free("one", 0)
    assert pool.tasks == 2
    pool.free("two", 1)
    pool.lease("late")
    pool.tell("late", 4, b"executor")
    assert pool.tasks == 4
    pool.abandon("late")
    assert pool.tasks == 0
