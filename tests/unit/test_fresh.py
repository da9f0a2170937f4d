"""With --fresh, a worker's process runs functions of one program only, and nobody waits in vain for that."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distribute_challenge.server.fresh import FreshScheduler
from distribute_challenge.server.scheduler import Ticket

UNUSED = 2  # the worker on which nobody runs anything


def pool_of(size: int) -> FreshScheduler[str]:
    """Whose holders are called like `a1`: the first one of the program `a`."""
    pool: FreshScheduler[str] = FreshScheduler(
        size, lambda holder: holder[0], lambda worker: worker != UNUSED
    )
    for worker in range(size):
        pool.up(worker)
    return pool


def test_a_program_gets_its_own_worker_again_rather_than_a_new_one():
    pool = pool_of(3)
    assert [pool.lease("a1"), pool.lease("b1")] == [0, 1]
    pool.free("a1", 0)
    pool.free("b1", 1)
    assert pool.lease("b2") == 1
    assert pool.lease("b3") == 2
    assert pool.lease("a2") == 0


def test_a_worker_comes_up_anew_for_another_program_and_for_nobody_else():
    pool = pool_of(1)
    pool.lease("a1")
    pool.free("a1", 0)
    assert pool.lease("b1") is None
    assert pool.renew(1) == 0
    assert pool.busy == [1]
    ticket = pool.wait("b1")
    assert pool.up(0) is ticket


def test_the_first_in_line_is_not_overtaken_by_the_program_that_had_the_worker():
    pool = pool_of(1)
    pool.lease("a1")
    first, second = pool.wait("b1"), pool.wait("a2")
    assert pool.free("a1", 0) is None
    assert pool.renew() == 0
    assert pool.up(0) is first
    assert pool.free("b1", 0) is None
    assert pool.renew() == 0
    assert pool.up(0) is second


def test_a_worker_that_passes_within_a_program_is_handed_over_at_once():
    pool = pool_of(1)
    pool.lease("a1")
    ticket = pool.wait("a2")
    assert pool.free("a1", 0) is ticket


def test_who_only_asks_again_and_again_has_one_worker_come_up_anew():
    pool = pool_of(2)
    for _ in range(2):
        pool.lease("a1")
    for worker in range(2):
        pool.free("a1", worker)
    assert pool.lease("b1") is None
    assert pool.renew(1) == 0
    assert pool.lease("b1") is None
    assert pool.renew(1) is None
    assert pool.busy == [1, 0]
    pool.up(0)
    assert pool.lease("b1") == 0


def test_no_more_workers_come_up_anew_than_clients_wait():
    pool = pool_of(2)
    pool.lease("a1")
    pool.lease("a2")
    pool.wait("b1")
    pool.free("a1", 0)
    assert pool.renew() == 0
    pool.free("a2", 1)
    assert pool.renew() is None
    assert pool.busy == [1, 0]
    assert pool.lease("a3") == 1


def test_a_worker_that_died_under_a_lease_is_of_its_holders_program():
    pool = pool_of(1)
    pool.lease("a1")
    pool.down(0)
    pool.up(0)
    pool.free("a1", 0)
    assert pool.lease("b1") is None


def test_a_worker_that_was_given_back_unused_is_as_good_as_new():
    pool = pool_of(UNUSED + 1)
    for _ in range(UNUSED + 1):
        pool.lease("a1")
    waiting = pool.wait("b1")
    assert pool.free("a1", 0) is None
    assert pool.free("a1", UNUSED) is waiting


class FreshMachine(RuleBasedStateMachine):
    """Random moves, as the dispatcher makes them, on a pool of three workers."""

    SIZE = 3
    holders = st.sampled_from(["a1", "a2", "b1", "b2", "c1"])
    workers = st.integers(0, SIZE - 1)

    def __init__(self) -> None:
        super().__init__()
        self.pool: FreshScheduler[str] = FreshScheduler(self.SIZE, lambda holder: holder[0], self.has_run)
        self.used_by: list[set[str]] = [set() for _ in range(self.SIZE)]  # each process, since it is up
        self.line: list[Ticket[str]] = []

    def has_run(self, worker: int) -> bool:
        return bool(self.used_by[worker])

    def got(self, ticket: Ticket[str] | None) -> None:
        if ticket is not None:
            assert ticket is self.line.pop(0)

    @rule(holder=holders)
    def lease_or_wait(self, holder: str) -> None:
        if self.pool.lease(holder) is None:
            self.pool.renew(1)
            self.line.append(self.pool.wait(holder))

    @rule(holder=holders)
    def lease_or_not(self, holder: str) -> None:
        if self.pool.lease(holder) is None:
            self.pool.renew(1)

    @rule(worker=workers)
    def run(self, worker: int) -> None:
        holder = self.pool.holder(worker)
        if holder is not None and self.pool.is_up(worker):
            self.used_by[worker].add(holder[0])

    @rule(worker=workers)
    def free(self, worker: int) -> None:
        holder = self.pool.holder(worker)
        if holder is not None:
            ticket = self.pool.free(holder, worker)
            self.pool.renew()
            self.got(ticket)

    @rule(holder=holders)
    def abandon(self, holder: str) -> None:
        self.pool.abandon(holder)

    @rule(worker=workers)
    def down(self, worker: int) -> None:
        self.pool.down(worker)

    @rule(worker=workers)
    def up(self, worker: int) -> None:
        if not self.pool.is_up(worker):
            self.used_by[worker].clear()
            self.got(self.pool.up(worker))

    @invariant()
    def no_process_is_used_by_two_programs(self) -> None:
        assert all(len(programs) <= 1 for programs in self.used_by)

    @invariant()
    def nobody_waits_while_all_workers_are_free(self) -> None:
        """There is always one that is in use, or comes up, and then passes on."""
        assert not self.pool.waiting or 1 in self.pool.busy

    @invariant()
    def who_waits_is_served_once_all_leases_have_ended(self) -> None:
        is_leased = any(self.pool.holder(worker) is not None for worker in range(self.SIZE))
        down = sum(not self.pool.is_up(worker) for worker in range(self.SIZE))
        assert is_leased or down >= min(self.pool.waiting, self.SIZE)


TestFreshMachine = FreshMachine.TestCase
TestFreshMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
