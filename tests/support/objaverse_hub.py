"""HTTP server on loopback with the layout of Objaverse on Hugging Face, and with configurable faults.

As there, a file's own address answers with a redirect that says its sha256 (X-Linked-Etag), and the bytes come from
elsewhere, with an ETag and in ranges.
"""

import gzip
import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATASET = "/datasets/allenai/objaverse/resolve/main/"
CDN = "/cdn/"


@dataclass
class Hub:
    """Contents and faults of the server.

    Attributes:
        files: Contents by path in the dataset.
        faults: Faults of the next requests by path: a status, (status, Retry-After), "truncate", "stall", "wrong",
            "trickle", or None.
        requested: Path, Range and If-Range of each request for bytes.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    ranges: bool = True
    etags: bool = True
    sha256: bool = True
    delay: float = 0.0
    url: str = ""
    requested: list[tuple[str, str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add_objects(self, glbs: dict[str, bytes], notes: dict[str, dict], categories: dict[str, list[str]]) -> None:
        """Add objects (contents and annotation by uid), two per folder, and the catalogue files that list them."""
        uids = list(glbs)
        folders = {uid: f"000-{i // 2:03d}" for i, uid in enumerate(uids)}
        paths = {uid: f"glbs/{folder}/{uid}.glb" for uid, folder in folders.items()}
        self.files |= {paths[uid]: contents for uid, contents in glbs.items()}
        self.files["object-paths.json.gz"] = packed(paths)
        self.files["lvis-annotations.json.gz"] = packed(categories)
        for folder in set(folders.values()):
            self.files[f"metadata/{folder}.json.gz"] = packed({u: notes[u] for u in uids if folders[u] == folder})

    def requests(self, path: str) -> list[tuple[str, str]]:
        """Return Range and If-Range of each request for `path`."""
        return [(span, condition) for requested, span, condition in self.requested if requested == path]


def packed(value: object) -> bytes:
    return gzip.compress(json.dumps(value).encode(), mtime=0)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(hub, self)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _answer(hub: Hub, handler: BaseHTTPRequestHandler) -> None:
    path = handler.path.removeprefix(DATASET).removeprefix(CDN)
    contents = hub.files.get(path)
    if contents is None:
        return _send(handler, 404, b"not here")
    digest = hashlib.sha256(contents).hexdigest()
    if handler.path.startswith(DATASET):
        linked = {"X-Linked-Etag": f'"{digest}"'} if hub.sha256 else {}
        return _send(handler, 302, b"there", {"Location": CDN + path, **linked})

    span, condition = handler.headers.get("Range", ""), handler.headers.get("If-Range", "")
    hub.requested.append((path, span, condition))
    hub.times.append(time.monotonic())
    fault = hub.faults[path].pop(0) if hub.faults[path] else None
    time.sleep(hub.delay)
    if isinstance(fault, int):
        return _send(handler, fault, b"no")
    if isinstance(fault, tuple):
        return _send(handler, fault[0], b"no", {"Retry-After": fault[1]})
    etag = f'"{digest[:8]}"'
    headers = {"ETag": etag} if hub.etags else {}
    body, status = contents, 200
    if (found := re.fullmatch(r"bytes=(\d+)-", span)) and hub.ranges and condition in ("", etag):
        start = int(found[1])
        if start >= len(contents):
            return _send(handler, 416, b"", {"Content-Range": f"bytes */{len(contents)}"})
        body, status = contents[start:], 206
        headers["Content-Range"] = f"bytes {start}-{len(contents) - 1}/{len(contents)}"
    if fault == "wrong":
        body = bytes([body[0] ^ 1]) + body[1:]
    _send(handler, status, body, headers, fault)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    fault: object = None,
) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    if fault == "trickle":
        for i in range(len(body)):
            handler.wfile.write(body[i : i + 1])
            time.sleep(0.05)
    elif fault in ("truncate", "stall"):
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        time.sleep(2 if fault == "stall" else 0)
        handler.close_connection = True
    else:
        handler.wfile.write(body)
