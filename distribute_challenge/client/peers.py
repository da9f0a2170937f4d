"""The server and the workers, as a client calls them: one object for each connection."""

from __future__ import annotations

import json
import logging
import pickle
import ssl
import threading
from typing import Any

from distribute_challenge.address import Address
from distribute_challenge.client.printing import Printer
from distribute_challenge.client.shipping import Parcel
from distribute_challenge.errors import AccessDenied, PoolError, ServerUnavailable
from distribute_challenge.tls import VARIABLES, Tls
from distribute_challenge.wire.buffers import Probe, Unreadable, tell_secret
from distribute_challenge.wire.ending import Ending
from distribute_challenge.wire.link import Answer, Link
from distribute_challenge.wire.payload import FAILURE, PROTOCOL, Outcome, Piece, dump_failure

log = logging.getLogger(__name__)


class ServerConnection:
    """The server's calls, on one connection. Those that begin with `ask` give an answer to come."""

    def __init__(self, address: Address, tls: Tls | None = None) -> None:
        self._address = address
        self._tls = tls
        try:
            self.link = Link(address, tls)
        except (EOFError, ssl.SSLError) as error:
            raise self._denied(error) from None
        except OSError as error:
            raise self.unavailable(error) from None
        try:
            method = self.link.method
            self._acquire_worker, self._free_worker = method("acquire_worker"), method("free_worker")
            self._keep_worker, self._recycle_worker = method("keep_worker"), method("recycle_worker")
            self.link.trust()
        except (EOFError, OSError) as error:
            self.link.close()
            if isinstance(error, EOFError) and not self.link.has_heard:
                raise self._denied(error) from None
            raise self.unavailable(error) from None
        except AttributeError:
            self.link.close()
            raise PoolError(f"what listens at {address} is not the server of a pool: check it") from None
        except BaseException:
            self.link.close()
            raise

    def acquire(self) -> int:
        """Wait in line for a worker; its port.

        Raises ServerUnavailable if the server is stopping, EOFError if the connection broke.
        """
        return self.port_in(self.ask_for_worker())

    def ask_for_worker(self) -> Answer:
        """Stand in line for a worker. `port_in` takes the answer."""
        return self.link.ask(self._acquire_worker)

    def port_in(self, answer: Answer) -> int:
        """The port of the worker that was asked for. Raises as `acquire` does."""
        try:
            return int(answer.value)
        except RuntimeError as error:  # The server says that it is stopping.
            raise ServerUnavailable(f"{self._address}: {error.args[0]}") from None

    def find(self, wait_s: float = 0) -> int:
        """The port of a worker that is free now, or within `wait_s` seconds; -1 if there is none.

        Raises as `acquire` does.
        """
        if wait_s:
            return self.port_in(self.link.ask(self._acquire_worker, wait_s))
        try:
            return int(self.link.call(self.link.method("find_free_worker")))
        except RuntimeError as error:
            raise ServerUnavailable(f"{self._address}: {error.args[0]}") from None

    def free(self, port: int, *, finished: int, failed: int) -> None:
        """End the lease. Sent, and not waited for: the answer holds nothing."""
        try:
            self.link.tell(self._free_worker, port, finished, failed)
        except EOFError as error:
            log.debug("worker %d was not freed, since the server has gone: %s", port, error)

    def ask_to_keep(self, port: int, *, finished: int, failed: int) -> Answer:
        """Have tasks of the lease counted; how many clients wait."""
        return self.link.ask(self._keep_worker, port, finished, failed)

    def recycle(self, port: int, reason: str) -> Ending:
        """End the lease and have the worker replaced; how its process ended."""
        try:
            return Ending.from_json(self.ask_to_recycle(port, reason).value)
        except (EOFError, OSError) as error:
            raise self.ended(error) from None

    def ask_to_recycle(self, port: int, reason: str) -> Answer:
        """End the lease and have the worker replaced; as JSON, how its process ended."""
        return self.link.ask(self._recycle_worker, port, reason)

    def status(self) -> dict[str, Any]:
        """The pool's state."""
        status: dict[str, Any] = json.loads(self.link.call(self.link.method("status")))
        return status

    def is_open(self) -> bool:
        """Whether the connection has not ended, as far as known."""
        return not self.link.closed

    def close(self) -> None:
        """End the connection. The server then replaces the workers that it held."""
        self.link.close()

    def unavailable(self, error: BaseException) -> ServerUnavailable:
        """What to tell the user when the server does not answer."""
        return ServerUnavailable(
            f"no server answers at {self._address} ({error}): start one with `python3 server.py 2`, "
            'say where it is with server="HOST:PORT" or the environment\'s COMPUTE_SERVER, or have a private '
            'one with server="local://2"'
        )

    def _denied(self, error: Exception) -> AccessDenied:
        """What to tell the user when one end does not let the other in."""
        if isinstance(error, ssl.SSLCertVerificationError):
            assert self._tls is not None
            return AccessDenied(
                f"what listens at {self._address} does not prove that it is {self._address.host} "
                f"({error.verify_message.rstrip('.')}): use a name that its certificate has, and the CA that "
                f"signed it instead of {self._tls.ca}"
            )
        where = f"tls=Tls(cert, key, ca) or the environment's {', '.join(VARIABLES)}"
        if self._tls is None:
            advice = f"the user who started it, or with TLS whoever has a certificate: give that with {where}"
        else:
            advice = (
                f"whoever has a certificate of its CA, if it was started with --tls-cert, --tls-key and "
                f"--tls-ca at all: check {where}"
            )
        return AccessDenied(
            f"the server at {self._address} closed the connection before any answer ({error}). Its log says "
            f"why (with -v, each time). It lets in only {advice}"
        )

    def ended(self, error: BaseException) -> ServerUnavailable:
        """What to tell the user when the server ends while a function runs."""
        return ServerUnavailable(
            f"the server at {self._address} has ended, and its workers with it ({error})"
        )


class WorkerConnection:
    """A worker's calls, on one connection. Making it raises OSError or EOFError if the worker has gone."""

    def __init__(self, address: Address, tls: Tls | None = None, *, may_share: bool = False) -> None:
        self.address = address
        self._tls = tls
        self.prepared: set[bytes] = set()  # the executors whose initializer has run there
        self._lock = threading.Lock()  # guards `_reader`, which a thread sets
        self._reader: OutputReader | None = None
        self._is_opening = False
        self._sent: dict[
            bytes, set[str]
        ] = {}  # for each scope, the digests of the modules that have gone there
        self.link = Link(address, tls)
        try:
            self._run_code = self.link.method("run_code")
            self._can_share = may_share and self._can_share_memory()
            self.link.trust()
            self.link.wait_in_ticks()
        except BaseException:
            self.link.close()
            raise

    def start(self, parcel: Parcel) -> Answer:
        """Send a call; the outcome, as bytes, is to come.

        That is a RuntimeError if the worker runs a function for another connection. EOFError if it died.
        """
        return self.link.ask(
            self._run_code, parcel.source, parcel.pack(self._sent, can_share=self._can_share)
        )

    def outcome(self, parcel: Parcel, answer: Answer) -> Outcome:
        """What became of a call: waits for it. Raises what the worker said, EOFError or ValueError."""
        try:
            outcome = Outcome.unpack(answer.value)
        except Unreadable as error:
            if error.is_gone:  # The worker has died since, and its files with it.
                raise EOFError(str(error)) from None
            self._let_go(parcel)
            lost = PoolError(f"the function returned, but its result cannot be taken in here: {error}")
            content = dump_failure(lost, str(lost), lambda file, _: pickle.Pickler(file, PROTOCOL))
            return Outcome(FAILURE, content, 0.0, 0, ())
        if outcome.buffers and self._can_share:
            self._let_go(parcel)  # They are open here now.
        return outcome

    def _let_go(self, parcel: Parcel) -> None:
        try:
            self.link.tell(self._release, parcel.id)
        except EOFError as error:  # What is here is here.
            log.debug("the worker at %s has died after its answer: %s", self.address, error)

    def _can_share_memory(self) -> bool:
        """Whether we can open files of the worker's, and it files of ours: it may be elsewhere."""
        try:
            probe = Probe()
            self._release = self.link.method("release")
            secret, theirs = self.link.call(self.link.method("share"), probe.description)
        except (OSError, AttributeError, RuntimeError):
            return False
        their_secret = tell_secret(theirs)
        return secret == probe.secret and their_secret is not None

    def show_output(self, call_id: bytes, printer: Printer) -> None:
        """Print what the running call has printed, as far as it is here, and ask for more. Does not wait."""
        if self._reader is None:
            if not self._is_opening:
                self._is_opening = True
                try:
                    threading.Thread(target=self._open_reader, name="output reader", daemon=True).start()
                except RuntimeError as error:  # A program that is ending starts no threads, in some versions.
                    log.debug("output will come with the result: %s", error)
            return
        try:
            printer.write(*self._reader.take())
            self._reader.ask(printer.seen, call_id)
        except EOFError as error:  # The worker has died: the call itself will tell.
            log.debug("no more output: %s", error)

    def is_idle(self) -> bool:
        """Whether the connection is open and nothing is under way on it."""
        return self.link.is_quiet()

    def close(self) -> None:
        """End the connection, also while the worker is busy."""
        self.link.close()
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
            reader = OutputReader(self.address, self._tls)
        except (EOFError, OSError, PoolError) as error:
            log.debug("cannot read the output of the worker at %s yet: %s", self.address, error)
            self._is_opening = False
            return
        with self._lock:
            if not self.link.closed and self._is_opening:  # It may have become idle meanwhile.
                self._reader = reader
                return
        reader.close()


class OutputReader:
    """A second connection to a worker, for what the function that runs there prints."""

    def __init__(self, address: Address, tls: Tls | None = None) -> None:
        self.link = Link(address, tls)
        try:
            self._read_output = self.link.method("read_output")
            self.link.trust()
        except BaseException:
            self.link.close()
            raise
        self._answer: Answer | None = None

    def ask(self, seen: int, call_id: bytes) -> None:
        """Ask for what a call has printed after the first `seen` bytes. EOFError if the worker has gone."""
        if self._answer is None:
            self._answer = self.link.ask(self._read_output, seen, call_id)

    def take(self) -> tuple[int, tuple[Piece, ...]]:
        """What has arrived: its first byte's number, and the pieces."""
        self.link.serve_arrived()
        if self._answer is None or not self._answer.is_here:
            return 0, ()
        answer, self._answer = self._answer, None
        offset, pieces = answer.value
        return offset, pieces

    def close(self) -> None:
        """End the connection."""
        self.link.close()
