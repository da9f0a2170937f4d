"""Who may see the page, and Bokeh's server around it.

Whoever has the token gets in: it has to be in the URL of the page and of its socket. A socket is opened only
by a page of this host, with the session that the page was given, which is signed.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Collection
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from distribute_challenge.address import Address, page_url
from distribute_challenge.tls import Tls

REFUSED = "this page is for those who have its token: open the URL that the server printed"
LOCAL = ("127.0.0.1", "localhost", "[::1]")
OTHER_HOST = "this page is for browsers of this machine: open the URL that the server printed"


class Token(AuthProvider):
    """Lets in who has the token; with `hosts` only by these names, since any other may lead here, too."""

    get_user = login_url = login_handler = logout_url = logout_handler = None

    def __init__(self, token: str, hosts: Collection[str] | None) -> None:
        self._token = token.encode()
        self._hosts = hosts
        super().__init__()

    @property
    def get_user_async(self) -> Callable[[Any], Any]:
        """Who somebody is, by their request. Raises HTTPError for whoever has no token."""
        return self._user

    @property
    def get_login_url(self) -> Callable[[Any], str]:
        """Nobody is sent there, since whoever has no token is refused."""
        return lambda _request: "/"

    async def _user(self, handler: Any) -> str:
        given = handler.get_query_argument("token", "")
        if not hmac.compare_digest(given.encode(), self._token):
            raise HTTPError(403, reason=REFUSED)
        # With TLS it is the certificate that tells.
        if self._hosts is not None and handler.request.host_name not in self._hosts:
            raise HTTPError(403, reason=OTHER_HOST)
        headers = handler.request.headers
        is_socket = headers.get("Upgrade", "").lower() == "websocket"
        if is_socket and not headers.get("Sec-WebSocket-Protocol", "").startswith("bokeh,"):
            raise HTTPError(400, reason="only the page opens its socket")  # Bokeh would log the URL.
        return "whoever has the token"


class Site:
    """A page at `address`, on a listening socket: `show` fills a document for each browser."""

    def __init__(
        self,
        listener: socket.socket,
        address: Address,
        tls: Tls | None,
        token: str,
        show: Callable[[Document], None],
    ) -> None:
        self.url = page_url(address, token, with_tls=tls is not None)
        hosts = {*LOCAL, str(address).rpartition(":")[0]} | (set() if tls is None else {socket.getfqdn()})
        # The environment could let in others.
        os.environ.pop("BOKEH_ALLOW_WS_ORIGIN", None)
        application = BokehTornado(
            {"/": Application(FunctionHandler(show))},
            extra_websocket_origins=[f"{host}:{address.port}" for host in hosts],
            auth_provider=Token(token, hosts if tls is None else None),
            secret_key=secrets.token_bytes(32),
            sign_sessions=True,
            include_headers=[],
            include_cookies=[],
            unused_session_lifetime_milliseconds=5000,
            check_unused_sessions_milliseconds=2000,
        )
        http = HTTPServer(application, ssl_options=None if tls is None else _context(tls))
        http.add_sockets([listener])
        self.loop = IOLoop.current()
        self._server = BaseServer(self.loop, application, http)

    def serve(self) -> None:
        """Serve until the loop is stopped."""
        self._server.start()
        self.loop.start()
        self._server.stop(wait=False)


def _context(tls: Tls) -> ssl.SSLContext:
    """Encryption with the server's certificate. Browsers have none: they have the token."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert, tls.key, password="")
    return context
