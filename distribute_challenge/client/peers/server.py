"""The server, as a client calls it: one object for each connection."""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
from typing import Any

from rpyc.utils.authenticators import AuthenticationError

from distribute_challenge.address import Address
from distribute_challenge.calls.ending import Ending
from distribute_challenge.client.peers.failures import ADVICE, Broken, distrusted, lacks_descriptors
from distribute_challenge.errors import AccessDenied, PoolError, ServerUnavailable
from distribute_challenge.tls import VARIABLES
from distribute_challenge.wire.access import Trust
from distribute_challenge.wire.frames import Garbled
from distribute_challenge.wire.link import NO_OTHERS, Answer, Link, Refused
from distribute_challenge.wire.messages import MethodCall

log = logging.getLogger(__name__)

_ACQUIRE, _FIND = MethodCall("acquire_worker"), MethodCall("find_free_worker")
_FREE, _KEEP, _RECYCLE = MethodCall("free_worker"), MethodCall("keep_worker"), MethodCall("recycle_worker")
_STATUS, _INTRODUCE, _LEAVE = MethodCall("status"), MethodCall("introduce"), MethodCall("leave_line")
_STACK = MethodCall("stack")

LOOK_S = 1.0  # How often the server is asked whether a worker that does not answer is alive.
RECYCLED_S = 20.0  # A server that is there has had a worker killed before.
SILENT_S = 5.0  # One whose system has not answered for some time gets no more.


class ServerConnection:
    """The server's calls, on one connection. Those that begin with `ask` give an answer to come.

    Making it raises ServerUnavailable or AccessDenied; but that the server does not let us in may show only
    when an answer is waited for: `failed` tells.
    """

    def __init__(self, address: Address, trust: Trust = NO_OTHERS) -> None:
        self._address = address
        self._tls = trust.tls
        try:
            self.link = Link(address, trust)
            self.link.end_if_not_taken()
        except AuthenticationError as error:
            raise distrusted(address, error) from None
        except (EOFError, ssl.SSLError) as error:
            raise self._denied(error) from None
        except OSError as error:
            raise self.unavailable(error) from None

    def acquire(self, wait_s: float | None = None) -> int:
        """The port of a worker, waited for in line; -1 if there is none within `wait_s` seconds.

        Raises ServerUnavailable if the server is stopping, EOFError if the connection broke.
        """
        if wait_s is None:
            return self.port_in(self.link.ask(_ACQUIRE))
        return self.port_in(self.link.ask(_ACQUIRE, wait_s)) if wait_s > 0 else self.find()

    def find(self) -> int:
        """The port of a worker that is free now, or -1. Raises as `acquire` does, and TimeoutError."""
        answer = self.link.ask(_FIND)
        self.link.wait(answer)
        return self.port_in(answer)

    def hear(self) -> None:
        """Wait until the server has answered at all. EOFError if it does not let us in; TimeoutError."""
        self.link.hear()

    def ask_for_worker(self, tasks: int, executor: bytes) -> Answer:
        """Stand in line for a worker, for so many tasks of an executor. `port_in` takes the answer."""
        return self._ask(_ACQUIRE, None, tasks, executor)

    def ask_for_free_worker(self) -> Answer:
        """Ask for a worker that is free now. `port_in` takes the answer, which is -1 if there is none."""
        return self._ask(_FIND)

    def leave_line(self) -> None:
        """Have the server answer at once whoever stands in line here: with -1, unless it has a worker."""
        self.link.tell(_LEAVE)
        with contextlib.suppress(EOFError):
            self.link.flush()

    def port_in(self, answer: Answer) -> int:
        """The port of the worker that was asked for. Raises as `acquire` does."""
        try:
            return int(answer.value)
        except RuntimeError as error:  # The server says that it is stopping.
            raise ServerUnavailable(f"{self._address}: {error.args[0]}") from None

    def introduce(self, program: bytes) -> None:
        """Say to which program this connection belongs. EOFError if it has ended."""
        self.link.tell(_INTRODUCE, program)

    def free(self, port: int, *, finished: int, failed: int) -> None:
        """End the lease. Sent, and not waited for: the answer holds nothing."""
        try:
            self.link.tell(_FREE, port, finished, failed)
        except EOFError as error:
            log.debug("worker %d was not freed, since the server has gone: %s", port, error)

    def settle(self) -> None:
        """Wait until the server has done all that it was told here. EOFError or TimeoutError."""
        self.link.call(_LEAVE)

    def ask_to_keep(
        self, port: int, finished: int, failed: int, tasks: int = 0, executor: bytes = b""
    ) -> Answer:
        """Have tasks of the lease counted, and tell that so many more wait here; how many clients wait.

        -1: the worker has died. The kernel hides that from us while another process has its sockets.
        """
        return self._ask(_KEEP, port, finished, failed, tasks, executor)

    def recycle(
        self, port: int, broken: Broken, limit_s: float = RECYCLED_S, *, finished: int = 0, failed: int = 0
    ) -> Ending:
        """End the lease and have the worker replaced; how its process ended. Raises ServerUnavailable."""
        if self.link.is_silent():  # Cut off most likely, as what the worker is to be replaced for.
            limit_s = min(limit_s, SILENT_S)
        try:
            if finished or failed:
                self.ask_to_keep(port, finished, failed)
            answer = self.ask_to_recycle(port, broken)
            self.link.wait(answer, limit_s)
            return Ending.from_json(answer.value)
        except (EOFError, OSError) as error:
            raise self.ended(error) from None

    def ask_to_recycle(self, port: int, broken: Broken, call: bytes = b"") -> Answer:
        """End the lease and have the worker replaced; as JSON, how its process ended.

        With the id of a `call`, only if that has not ended; else the answer is empty.
        """
        return self._ask(_RECYCLE, port, str(broken), broken.status, call)

    def _ask(self, method: MethodCall, *args: Any) -> Answer:
        """Send a call, as far as it goes without waiting. That the server has gone, its answer will tell."""
        answer = self.link.ask(method, *args)
        with contextlib.suppress(EOFError):
            self.link.flush()
        return answer

    def status(self) -> dict[str, Any]:
        """The pool's state. Raises ServerUnavailable if this is not the server of a pool."""
        try:
            status: dict[str, Any] = json.loads(self.link.call(_STATUS))
        except (KeyError, AttributeError):
            why = "it knows no `status`; if it is a worker, its server has another port"
            raise ServerUnavailable(self._no_server(why)) from None
        return status

    def stack(self, port: int) -> str:
        """The stack of the function that a worker runs; empty if none runs.

        Raises ValueError for a port of no worker, RuntimeError if the worker does not say.
        """
        return str(self.link.call(_STACK, port))

    def close(self) -> None:
        """End the connection. The server then replaces the workers that it held."""
        self.link.close()

    def failed(self, error: Exception) -> PoolError:
        """The error when a server connection that is new has ended, or does not answer."""
        if isinstance(error, Refused):
            return ServerUnavailable(f"the server at {self._address} has refused the connection: {error}")
        if isinstance(error, Garbled):
            return ServerUnavailable(self._no_server(error))
        if isinstance(error, EOFError) and not self.link.has_heard:
            return self._denied(error)
        return self.unavailable(error)

    def _no_server(self, why: object) -> str:
        return (
            f"what listens at {self._address} is not the server of a pool ({why}): check the address (that "
            "of a Dask cluster begins with dask://)"
        )

    def unavailable(self, error: BaseException) -> ServerUnavailable:
        """The error when the server does not answer."""
        if lacks_descriptors(error):
            return ServerUnavailable(f"cannot connect to the server at {self._address}: {ADVICE}")
        return ServerUnavailable(
            f"no server answers at {self._address} ({error}): start one with `compute server 2` (in a clone, "
            "`python3 server.py 2`), or say where it is: in the environment's COMPUTE_SERVER, with "
            'server="HOST:PORT" in a program or --server HOST:PORT after a command. A program can also have '
            'one of its own with server="local://2"'
        )

    def _denied(self, error: Exception) -> AccessDenied:
        """The error when one end does not let the other in."""
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
            f"why (with -v, each time). It lets in only {advice}. If that is no server of a pool at all, the "
            "address is another one"
        )

    def ended(self, error: BaseException) -> ServerUnavailable:
        """The error when the connection to the server ends while a function runs."""
        return ServerUnavailable(
            f"the server at {self._address} has ended, and its workers with it, or it cannot be reached any "
            f"more ({error}): see whether it still runs, and run again what had no result"
        )
