"""Hugging Face hub on loopback: repositories of models with revisions, also private and gated ones.

It answers as the hub does: `/api/models/<id>[/revision/<revision>]` lists the files of a commit, and
`/<id>/resolve/<revision>/<file>` gives one, with its ETag, its commit and in ranges.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "hf_secretsecretsecret"


@dataclass
class Repository:
    """Repository: `commits` are files by path, `revisions` map names to commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes] | Path, revision: str = "main") -> str:
        """Add a commit, point the revision to it and return its sha."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.revisions[revision] = files, sha
        return sha


@dataclass
class ModelHub:
    """Hub; `faults` are the faults of the next requests for bytes by file: a status, or "truncate"."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    url: str = ""
    asked: list[str] = field(default_factory=list)  # the path of each request
    downloaded: list[str] = field(default_factory=list)  # the file of each request for bytes
    ranges: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@contextmanager
def serving(hub: ModelHub) -> Iterator[ModelHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(hub, self)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _answer(hub: ModelHub, handler: BaseHTTPRequestHandler) -> None:
    path = handler.path.split("?")[0]
    hub.asked.append(path)
    token = handler.headers.get("Authorization", "")
    hub.tokens |= {token} - {""}
    listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    found = listing or file
    repository = hub.repositories.get(found[1]) if found else None
    if found is None or repository is None:
        return _refuse(handler, 401 if not token else 404, "RepoNotFound")
    if repository.private and token != f"Bearer {TOKEN}":
        return _refuse(handler, 401, "RepoNotFound")
    revision = found[2] or "main"
    sha = repository.revisions.get(revision, revision)
    if sha not in repository.commits:
        return _refuse(handler, 404, "RevisionNotFound")
    files = repository.commits[sha]
    if listing:
        siblings = [{"rfilename": name} for name in files]
        return _send(handler, 200, json.dumps({"id": found[1], "sha": sha, "siblings": siblings}).encode(), {})
    if repository.gated and token != f"Bearer {TOKEN}":
        return _refuse(handler, 403, "GatedRepo")
    if file[3] not in files:
        return _refuse(handler, 404, "EntryNotFound")
    _send_file(hub, handler, file[3], files[file[3]], sha)


def _send_file(hub: ModelHub, handler: BaseHTTPRequestHandler, name: str, contents: bytes, sha: str) -> None:
    headers = {"ETag": f'"{hashlib.sha256(contents).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if handler.command == "HEAD":
        return _send(handler, 200, contents, headers)
    hub.downloaded.append(name)
    fault = hub.faults[name].pop(0) if hub.faults.get(name) else None
    if isinstance(fault, int):
        return _send(handler, fault, b"", {})
    status, body = 200, contents
    if span := re.fullmatch(r"bytes=(\d+)-.*", handler.headers.get("Range", "")):
        start = int(span[1])
        hub.ranges.append(span[0])
        headers["Content-Range"] = f"bytes {start}-{len(contents) - 1}/{len(contents)}"
        status, body = 206, contents[start:]
    _send(handler, status, body, headers, cut=fault == "truncate")


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    _send(handler, status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} at {handler.path}"})


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cut: bool = False
) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command == "HEAD":
        return
    handler.wfile.write(body[: len(body) // 2] if cut else body)
    if cut:
        handler.close_connection = True
