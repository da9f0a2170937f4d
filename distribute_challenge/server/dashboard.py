"""The live page of a server: a process of its own, which only reads the files of the record.

It can neither slow nor stop the pool. It ends with its server, which has the pipe that it listens to.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
import subprocess
import sys
import threading
from pathlib import Path

from distribute_challenge import cli
from distribute_challenge.address import Address, page_url
from distribute_challenge.tls import Tls

log = logging.getLogger(__name__)

_MAIN = str(Path(__file__).parents[1] / "pictures" / "live" / "__main__.py")
TOKEN_BYTES = 24
STOP_S = 5.0


class Dashboard:
    """The page at an address. Making it ends the script if it cannot be had there, or not at all.

    That comes first: the record that `show` names may only be begun by a server that starts.
    """

    def __init__(self, place: Address, tls: Tls | None) -> None:
        with cli.extra("live"):
            if importlib.util.find_spec("bokeh") is None:  # To import it takes long.
                raise ModuleNotFoundError(name="bokeh")
        self._listener = cli.listen_for_page(place, "--dashboard-address", with_tls=tls is not None)
        address = Address(*self._listener.getsockname()[:2])
        if tls is not None:
            address = address.as_named(place.host)
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self.url = page_url(address, self._token, with_tls=tls is not None)
        self._command = [
            *(sys.executable, _MAIN, "--address", str(address)),
            *("--listener", str(self._listener.fileno())),
            *(() if tls is None else ("--tls-cert", tls.cert, "--tls-key", tls.key, "--tls-ca", tls.ca)),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._is_stopping = False

    def show(self, profile: Path | None) -> None:
        """Say which record it shows. Ends the script if that is none."""
        if profile is None:
            cli.fail("the live page shows what is recorded, and nothing is: give another --profile")
        self._command.append(str(profile.absolute()))

    def start(self) -> int:
        """Start the process; its number, 0 if there is none.

        It is told the token in private: everybody sees command lines.
        """
        try:
            self._process = subprocess.Popen(
                self._command,
                pass_fds=(self._listener.fileno(),),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server.
                text=True,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{self._token}\n")
            self._process.stdin.flush()
        except OSError as error:
            log.error("cannot start the live page (%s); the pool works without it", error)
        finally:
            self._listener.close()
        if self._process is None:
            return 0
        threading.Thread(target=self._watch, args=(self._process,), name="live page", daemon=True).start()
        return self._process.pid

    def stop(self) -> None:
        """End it, and wait for that."""
        self._is_stopping = True
        self._listener.close()
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=STOP_S)  # That closes its standard input.
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self, process: subprocess.Popen[str]) -> None:
        code = process.wait()
        if not self._is_stopping:
            log.error("the live page has ended (exit code %d); the pool works on without it", code)
