"""One file over HTTP: streamed aside, continued where it broke off, tried again, checked, moved into place."""

import fcntl
import functools
import hashlib
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from io import BufferedRandom
from itertools import count
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from rendering.failure import RenderFailure

TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT = 60.0  # seconds, unless the server asks for more
BLOCK = 1 << 16


@dataclass(frozen=True)
class Transport:
    """How hard a file is tried for. The n-th wait is drawn from [0, backoff · 2ⁿ] (full jitter)."""

    retries: int = 6
    backoff: float = 1.0  # seconds
    timeout: float = 30.0  # seconds without a byte
    deadline: float = 900.0  # seconds for the file, all attempts and waits together
    max_bytes: int = 2 * 10**9


def download(url: str, path: Path, transport: Transport = Transport()) -> int:
    """Bring `url` to `path`; returns the bytes of the file, or 0 when somebody else has brought it meanwhile.

    `<path>.part` holds what there is so far. A killed download is continued from it, one that is given up removes it.
    Threads and processes that want the same file wait for the one that is at it. The size is checked against what
    the server announces, the sha256 where Hugging Face says it (X-Linked-Etag).

    Raises:
        RenderFailure: `download`, and why it cannot be had.
        OSError: `path` cannot be written.
    """
    until = time.monotonic() + transport.deadline
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    with _locked(aside, until) as file:
        if path.exists():
            aside.unlink()
            return 0
        part = _Part(file)
        try:
            _persist(url, part, transport, until)
        except RenderFailure:
            aside.unlink()
            raise
        size = file.seek(0, os.SEEK_END)
        aside.replace(path)
        return size


@dataclass
class _Part:
    """A file under way, open for appending. `etag` is that of the body that its bytes come from, if known."""

    file: BufferedRandom
    etag: str = ""

    def start_over(self) -> None:
        self.file.truncate(0)
        self.etag = ""


class _Again(Exception):
    """An attempt failed, and another may not. `wait` are the seconds that the server asked for."""

    def __init__(self, sentence: str, wait: float = 0.0):
        super().__init__(sentence)
        self.wait = wait


def _persist(url: str, part: _Part, transport: Transport, until: float) -> None:
    jitter = random.SystemRandom()  # no state that anybody's seed rules
    for attempt in count():
        try:
            _receive(url, part, transport, until)
            return
        except _Again as again:
            wait = max(again.wait, jitter.uniform(0, min(LONGEST_WAIT, transport.backoff * 2**attempt)))
            if attempt == transport.retries:
                raise RenderFailure("download", f"{url}: {again}, {attempt + 1} times") from again
            if time.monotonic() + wait > until:
                raise RenderFailure("download", f"{url}: {again}, and {transport.deadline:g} s are over") from again
            if wait > 2:
                print(f"{url}: {again}; once more in {wait:.0f} s")
            time.sleep(wait)


def _receive(url: str, part: _Part, transport: Transport, until: float) -> None:
    """One attempt: the rest of the file, or all of it where the server cannot or must not continue."""
    offset = part.file.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if part.etag:
            headers["If-Range"] = part.etag
    timeout = max(0.001, min(transport.timeout, until - time.monotonic()))
    try:
        with _session().get(url, headers=headers, stream=True, timeout=timeout) as answer:
            _check_status(url, answer, part)
            sha256 = _promised_sha256(answer)
            total = _total(answer, part, offset, sha256)
            part.etag = _strong_etag(answer)
            _append(url, answer, part, transport, until, total)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise RenderFailure("download", f"{url}: {error}") from error
    except (requests.RequestException, HTTPError) as error:
        raise _Again(_in_short(error)) from error
    _check(part, total, sha256)


def _append(
    url: str, answer: requests.Response, part: _Part, transport: Transport, until: float, total: int | None
) -> None:
    size = part.file.seek(0, os.SEEK_END)
    # As much as one call to the socket gives: to wait for a whole block would be to wait without a deadline.
    while block := answer.raw.read1(BLOCK, decode_content=False):
        size += len(block)
        if max(size, total or 0) > transport.max_bytes:
            raise RenderFailure("download", f"{url} has more than the allowed {transport.max_bytes:,} bytes")
        if time.monotonic() > until:
            raise RenderFailure("download", f"{url}: it took longer than {transport.deadline:g} s")
        part.file.write(block)


def _check_status(url: str, answer: requests.Response, part: _Part) -> None:
    if answer.status_code in TRANSIENT:
        wait = _seconds(answer.headers.get("Retry-After", ""))
        raise _Again(f"the server says {answer.status_code} {answer.reason}", wait)
    if answer.status_code == 416:
        part.start_over()
        raise _Again("the server does not have the rest of what there is")
    if answer.status_code not in (200, 206):
        raise RenderFailure("download", f"{url}: the server says {answer.status_code} {answer.reason}")


def _total(answer: requests.Response, part: _Part, offset: int, sha256: str) -> int | None:
    """The size of the whole file, if the server says it. A body from the start begins the file anew."""
    if answer.status_code == 200:
        part.file.truncate(0)
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if not span or int(span[1]) != offset or not (part.etag or sha256):
        # Without anything to know the file by, the two halves might be of different files.
        part.start_over()
        raise _Again("the server cannot continue the file")
    return int(span[2])


def _check(part: _Part, total: int | None, sha256: str) -> None:
    size = part.file.seek(0, os.SEEK_END)
    if total is not None and size < total:
        raise _Again(f"the connection ended after {size:,} of {total:,} bytes")
    part.file.seek(0)
    if (total is not None and size > total) or (
        sha256 and hashlib.file_digest(part.file, "sha256").hexdigest() != sha256
    ):
        part.start_over()
        raise _Again("its bytes are not the ones that the server promised")


def _promised_sha256(answer: requests.Response) -> str:
    """Hugging Face says it on the answer that points to where the file lies."""
    for step in (*answer.history, answer):
        if found := re.fullmatch(r'"?([0-9a-f]{64})"?', step.headers.get("X-Linked-Etag", "")):
            return found[1]
    return ""


def _strong_etag(answer: requests.Response) -> str:
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else ""  # a weak one, W/"…", promises no equal bytes


def _seconds(retry_after: str) -> float:
    """Retry-After is a number of seconds or a date; nonsense is no wish at all."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _in_short(error: Exception) -> str:
    """The innermost reason; requests wraps it in a page."""
    inner: Any = error
    while True:
        reason = getattr(inner, "reason", None) or next(iter(getattr(inner, "args", ())), None)
        if not isinstance(reason, Exception):
            return re.sub(r"^.*?(Connection|pool)\(.*?\): ", "", str(inner)) or type(inner).__name__
        inner = reason


@contextmanager
def _locked(path: Path, until: float) -> Iterator[BufferedRandom]:
    """`path`, created where it is not, open for appending and reading and held against all others."""
    while True:
        with open(path, "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(file, path):
                    yield file
                    return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RenderFailure("download", f"somebody else does not finish with {path}") from None
        time.sleep(0.02)


def _same_file(file: BufferedRandom, path: Path) -> bool:
    """Whether `path` still is the file that was opened, and was not moved into place meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@functools.cache
def _session() -> requests.Session:
    """Connections of this process, kept open: most objects are small. Without cookies, threads may share it."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.max_redirects = 5
    return session
