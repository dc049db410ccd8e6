"""Which requests the web page answers: those of its own browser page, and files that it made itself."""

import re
from pathlib import Path
from urllib.parse import unquote

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost")
# What gradio's page asks for. Its other routes (proxies, recordings, an editor of code) are closed.
OPEN = re.compile(
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(assets|static|svelte)/.*"
    r"|gradio_api/(info|run/predict|startup-events|heartbeat/\w+|upload|upload_progress|cancel|reset|queue/(join|data|status)))?"
)
FILE = "/gradio_api/file="
# The browser, too, is held to this server: no script, font or picture of others, no frame around the page.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class RequestFilter:
    """Lets in the page's own requests, and none for a file outside `files`."""

    def __init__(self, app: ASGIApp, files: Path):
        self.app, self.files = app, files.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not self.allows(scope["path"]):
            return await PlainTextResponse("not found", 404)(scope, receive, send)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self.app(scope, receive, answer)

    def allows(self, path: str) -> bool:
        """`path` comes without its escapes; gradio may take another layer of them off."""
        if path.startswith(FILE):
            return all(self.is_ours(name) for name in (path[len(FILE) :], unquote(path[len(FILE) :])))
        return OPEN.fullmatch(path) is not None and ".." not in unquote(path)

    def is_ours(self, name: str) -> bool:
        return "\0" not in name and Path(name).is_absolute() and Path(name).resolve().is_relative_to(self.files)


def request_filters(host: str, files: Path) -> list[Middleware]:
    """On a loopback address, the names of other hosts are refused too: a web site may have made its name point here."""
    door = Middleware(RequestFilter, files=files)
    return [door, Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))] if host in LOOPBACK else [door]
