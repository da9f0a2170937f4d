"""The certificates of mutual TLS: three files, and where a program learns of them. Streams are in `wire`."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distribute_challenge.errors import PoolError

if TYPE_CHECKING:
    import ssl

VARIABLES = ("COMPUTE_TLS_CERT", "COMPUTE_TLS_KEY", "COMPUTE_TLS_CA")


@dataclass(frozen=True)
class Tls:
    """PEM files: this end's certificate, its private key, and the CA that has signed the other end's.

    >>> Tls("/etc/pool/me.pem", "/etc/pool/me.key", "/etc/pool/ca.pem").ca
    '/etc/pool/ca.pem'
    """

    cert: str
    key: str
    ca: str

    def __post_init__(self) -> None:
        for name, path in self.__dict__.items():
            # Absolute, since functions and programs change their directory.
            object.__setattr__(self, name, str(Path(path).absolute()))

    @classmethod
    def choose(cls, given: Tls | None = None) -> Tls | None:
        """Those given, else those of the environment, else None: no TLS. Raises PoolError."""
        paths = [os.environ.get(name) for name in VARIABLES]
        if given is not None or not any(paths):
            return given
        missing = [name for name, path in zip(VARIABLES, paths, strict=True) if not path]
        if missing:
            raise PoolError(
                f"of {', '.join(VARIABLES)} the environment has to have all or none: set {missing[0]}"
            )
        return cls(*map(str, paths))

    def client_context(self) -> ssl.SSLContext:
        """How a client proves who it is, and checks its server. Raises PoolError, which names the file."""
        import ssl  # Late: most programs have no use for it.

        for path in (self.cert, self.key, self.ca):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise PoolError(
                    f"cannot read the TLS file {path} ({error.strerror}): give the PEM files of "
                    "a certificate, its key, and the CA"
                ) from None
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        except ssl.SSLError as error:
            raise PoolError(f"{self.ca} is not the PEM certificate of a CA ({error}): give one") from None
        try:
            context.load_cert_chain(self.cert, self.key, password="")  # Else it would ask for one here.
        except (ssl.SSLError, ValueError) as error:
            raise PoolError(
                f"{self.cert} and {self.key} are not a PEM certificate and its key without a pass phrase "
                f"({error}): give the two that were made together"
            ) from None
        return context


def environment(tls: Tls | None) -> dict[str, str]:
    """The variables from which a program learns that it has to use these, or none."""
    return dict(zip(VARIABLES, ("", "", "") if tls is None else astuple(tls), strict=True))
