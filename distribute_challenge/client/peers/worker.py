"""A worker, as a client calls it: one object for each connection."""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading

from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge.address import Address
from distribute_challenge.calls import payload
from distribute_challenge.calls.buffers import Probe, Unreadable, tell_secret
from distribute_challenge.calls.payload import FAILURE, MAX_BYTES, Outcome, Piece, dump_failure
from distribute_challenge.client.parcels.parcel import Parcel, Sent
from distribute_challenge.client.peers.failures import Busy, Dead, Misunderstood, distrusted
from distribute_challenge.client.peers.printing import Printer
from distribute_challenge.errors import PoolError, TaskNotSendable
from distribute_challenge.values import PROTOCOL
from distribute_challenge.wire.access import Trust
from distribute_challenge.wire.link import NO_OTHERS, Answer, Link
from distribute_challenge.wire.messages import MethodCall

log = logging.getLogger(__name__)

# How long the last output of a function that is to be killed is waited for: a worker on a busy machine has
# answered before, and one whose function lets nothing else of Python run does not answer at all.
LAST_OUTPUT_S = 1.0
LAST_TICK_S = 0.005  # How often it is looked for.
_AROUND_BYTES = 1 << 10  # what RPyC adds to a call in a frame
_PROBE_S = 1.0  # A worker on this machine has answered before, even if the machine is busy.

_RUN_CODE, _READ_OUTPUT = MethodCall("run_code"), MethodCall("read_output")
_SHARE, _RELEASE = MethodCall("share"), MethodCall("release")


class WorkerConnection:
    """A worker's calls, on one connection. Making it raises OSError or EOFError if nothing listens there."""

    def __init__(
        self,
        address: Address,
        trust: Trust = NO_OTHERS,
        host: str | None = None,
        *,
        may_share: bool = False,
        is_near: bool = True,
        max_frame: int = MAX_BYTES,
    ) -> None:
        self.address = address
        self._max_call = min(max_frame - _AROUND_BYTES, MAX_BYTES)
        self._trust = trust
        self.prepared: set[bytes] = set()  # the executors whose initializer has run there, or went there
        self._lock = threading.Lock()  # guards `_reader`, which a thread sets
        self._reader: OutputReader | None = None
        self._is_opening = False
        self._sent = Sent()
        try:
            self.link = Link(address, trust, host)
        except AuthenticationError as error:
            raise distrusted(address, error) from None
        self._can_share = False
        self._probe: Probe | None = None
        self._probing: Answer | None = None
        try:
            if may_share:
                self._probe_memory(_PROBE_S if is_near else 0)
            self.link.wait_in_ticks()
        except BaseException:
            self.link.close()
            raise

    def start(self, parcel: Parcel) -> Answer:
        """Send a call; the outcome, as bytes, is to come.

        That is a RuntimeError if the worker runs a function for another connection. EOFError if it died;
        TaskNotSendable, and nothing was sent, if it is more than the worker takes at once.
        """
        if self._probing is not None and self._probing.is_here:
            self._learn_of_memory(self._probing)
        try:
            call = parcel.pack(self._sent, can_share=self._can_share, limit=self._max_call)
        except OverflowError as error:
            raise TaskNotSendable(f"a call cannot be sent to a worker: {error}") from error
        return self.link.ask(_RUN_CODE, parcel.source, call)

    def outcome(self, name: str, parcel: Parcel, answer: Answer) -> Outcome:
        """The outcome of a call whose answer is here. Raises Broken if the answer is none."""
        try:
            outcome = Outcome.unpack(answer.value)
        except Unreadable as error:
            if error.is_gone:  # The worker has died since, and its files with it.
                raise Dead(name) from None
            self._let_go(parcel)
            lost = PoolError(f"the function returned, but its result cannot be taken in here: {error}")
            content = dump_failure(lost, str(lost), lambda file, _: pickle.Pickler(file, PROTOCOL))
            return Outcome(FAILURE, content, 0.0, 0, ())
        except EOFError:
            raise Dead(name) from None
        except Exception as error:
            raise Busy if payload.is_busy(error) else Misunderstood(error) from None
        if outcome.buffers and self._can_share:
            self._let_go(parcel)  # They are open here now.
        return outcome

    def _let_go(self, parcel: Parcel) -> None:
        try:
            self.link.tell(_RELEASE, parcel.id)
        except EOFError as error:  # What is here is here.
            log.debug("the worker at %s has died after its answer: %s", self.address, error)

    def _probe_memory(self, limit_s: float) -> None:
        """Ask whether we can open files of the worker's, and it files of ours: it may be elsewhere.

        Over a tunnel it says no, which is not worth a round trip. And a worker may be stuck.
        """
        try:
            self._probe = Probe()
        except (OSError, AttributeError) as error:
            log.debug("no memory can be shared here: %s", error)
            return
        self._probing = self.link.ask(_SHARE, self._probe.description)
        with contextlib.suppress(TimeoutError):
            self.link.wait(self._probing, limit_s)
            self._learn_of_memory(self._probing)

    def _learn_of_memory(self, answer: Answer) -> None:
        assert self._probe is not None
        self._probing = None
        try:
            secret, theirs = answer.value
        except Exception as error:
            log.debug("the worker at %s shares no memory: %s", self.address, error)
            return
        self._can_share = secret == self._probe.secret and tell_secret(theirs) is not None
        self._probe = None

    def show_output(self, call_id: bytes, printer: Printer, *, is_last: bool = False) -> bool:
        """Print what the running call has printed, as far as it is here, and ask for more. Does not wait.

        With `is_last`, as the call is to be killed, a line without an end is asked for, too; whether that
        answer has come, or none will.
        """
        if self._reader is None:
            if not self._is_opening:
                self._is_opening = True
                try:
                    threading.Thread(target=self._open_reader, name="output reader", daemon=True).start()
                except RuntimeError as error:  # A program that is ending starts no threads, in some versions.
                    log.debug("output will come with the result: %s", error)
            return False
        try:
            printer.write(*self._reader.take(call_id))
            if self._reader.is_at_end:
                return True
            self._reader.ask(printer.seen, call_id, is_last=is_last)
        except EOFError as error:  # The worker has died: the call itself will tell.
            log.debug("no more output: %s", error)
            return True
        return False

    def close(self) -> None:
        """End the connection, also while the worker is busy."""
        self.link.close()
        self._probe = self._probing = None  # An answer that never came refers to itself, and keeps the file.
        self.close_reader()

    def close_reader(self) -> None:
        """End the second connection, if there is one."""
        with self._lock:
            reader, self._reader = self._reader, None
            self._is_opening = False
        if reader is not None:
            reader.close()

    def _open_reader(self) -> None:
        # In a thread of its own: a function that holds the interpreter's lock lets nobody connect.
        try:
            reader = OutputReader(self.address, self._trust, self.link.host)
        except (EOFError, OSError, PoolError, AuthenticationError) as error:
            log.debug("cannot read the output of the worker at %s yet: %s", self.address, error)
            self._is_opening = False
            return
        with self._lock:
            # It may have become idle meanwhile, and busy again: then there may be another one.
            if not self.link.closed and self._is_opening and self._reader is None:
                self._reader = reader
                return
        reader.close()


class OutputReader:
    """A second connection to a worker, for what the function that runs there prints."""

    def __init__(self, address: Address, trust: Trust = NO_OTHERS, host: str | None = None) -> None:
        self.link = Link(address, trust, host)
        self._answer: Answer | None = None
        self._asked_for = b""  # the call
        self._is_last = False
        self.is_at_end = False  # The answer to the last question has been taken.

    def ask(self, seen: int, call_id: bytes, *, is_last: bool) -> None:
        """Ask for what a call has printed after the first `seen` bytes. EOFError if the worker has gone."""
        if self._answer is None:
            self._answer = self.link.ask(_READ_OUTPUT, seen, call_id, is_last)
            self._asked_for, self._is_last, self.is_at_end = call_id, is_last, False

    def take(self, call_id: bytes) -> tuple[int, tuple[Piece, ...]]:
        """The output of a call that has arrived: its first byte's number, and the pieces.

        What a call before has printed has come with its outcome.
        """
        self.link.serve_arrived()
        self.is_at_end &= self._asked_for == call_id
        if self._answer is None or not self._answer.is_here:
            return 0, ()
        answer, self._answer = self._answer, None
        offset, pieces = answer.value
        if self._asked_for != call_id:
            return 0, ()
        self.is_at_end = self._is_last
        return offset, pieces

    def close(self) -> None:
        """End the connection."""
        self.link.close()
