"""Certificates of two CAs that know nothing of each other."""

from __future__ import annotations

from pathlib import Path

import trustme

from distribute_challenge import Tls


class Certificates:
    """What the ends of a connection may show each other. `server` and `client` fit together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ca, other_ca = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", ca.cert_pem)
        self.other_ca = self._write("other-ca.pem", other_ca.cert_pem)
        self.server = self._issue("server", ca, self.ca, "localhost", "127.0.0.1", "::1")
        self.client = self._issue("client", ca, self.ca, "me@example.org")
        self.elsewhere = self._issue("elsewhere", ca, self.ca, "elsewhere.example.org")
        self.stranger = self._issue("stranger", other_ca, self.ca, "localhost", "127.0.0.1")

    def _issue(self, name: str, ca: trustme.CA, others_ca: str, *identities: str) -> Tls:
        made = ca.issue_cert(*identities)
        cert = self._write(f"{name}.pem", made.cert_chain_pems[0])
        return Tls(cert, self._write(f"{name}.key", made.private_key_pem), others_ca)

    def _write(self, name: str, blob: trustme.Blob) -> str:
        path = self._folder / name
        blob.write_to_path(path)
        return str(path)
