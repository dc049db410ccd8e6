"""Reject requests to the web page that do not come from the page itself or ask for other files of the machine."""

import re
from pathlib import Path
from urllib.parse import unquote

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]  # in the address of a page
# The routes that gradio's page uses. All others (proxies, recordings, a code editor) are rejected.
ALLOWED_PATHS = re.compile(
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.*"
    r"|gradio_api/(info|run/predict|startup-events|heartbeat/\w+|upload|upload_progress|cancel|reset|queue/(join|data|status)))?"
)
FILE_ROUTE = "/gradio_api/file="
# The browser loads no script, font or picture from other servers, and shows the page in no frame.
SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class RequestFilter:
    """ASGI middleware that answers 404 to all requests but the page's own, and to requests for files outside `files`.

    Attributes:
        app: The application.
        files: The folder of uploaded and sampled files.
    """

    def __init__(self, app: ASGIApp, files: Path):
        self.app, self.files = app, files.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with `SECURITY_HEADERS`."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not self.allows(scope["path"]):
            return await PlainTextResponse("not found", 404)(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def allows(self, path: str) -> bool:
        """Return whether the request for an unquoted path is allowed; gradio may unquote the path once more."""
        if path.startswith(FILE_ROUTE):
            name = path[len(FILE_ROUTE) :]
            return self._is_own_file(name) and self._is_own_file(unquote(name))
        return ALLOWED_PATHS.fullmatch(path) is not None and ".." not in unquote(path)

    def _is_own_file(self, name: str) -> bool:
        return "\0" not in name and Path(name).is_absolute() and Path(name).resolve().is_relative_to(self.files)


def request_filters(host: str, files: Path) -> list[Middleware]:
    """Return the middleware of a server on `host`.

    On a loopback address, requests for other host names are rejected: a web site may let its own name resolve to this
    address (DNS rebinding).
    """
    filters = [Middleware(RequestFilter, files=files)]
    if host in LOOPBACK:
        filters.append(Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES))
    return filters
