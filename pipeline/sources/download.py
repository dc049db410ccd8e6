"""Resumable download of one file over HTTP with retries, limits and an integrity check.

The body is streamed to `<path>.part`, checked, and renamed to `path`. huggingface_hub's download is not used, because
this module enforces the following for any URL, not for the Hugging Face Hub alone:

- a total deadline for the file, including all attempts and waits,
- a read timeout for each attempt,
- a byte limit, applied to the announced size and to the bytes received,
- removal of the partial file when a download fails.
"""

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

TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
MAX_WAIT_S = 60.0  # a longer Retry-After of the server takes precedence
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Transport:
    """Retries and limits of a download.

    Attributes:
        retries: Number of attempts after the first one.
        backoff: Base of the wait in seconds; the n-th wait is drawn from [0, backoff · 2ⁿ] (full jitter).
        timeout: Seconds without a received byte after which an attempt fails.
        deadline: Seconds for the file, including all attempts and waits.
        max_bytes: Maximum size of the file in bytes.
    """

    retries: int = 6
    backoff: float = 1.0
    timeout: float = 30.0
    deadline: float = 900.0
    max_bytes: int = 2 * 10**9


def download(url: str, path: Path, transport: Transport = Transport()) -> int:
    """Download `url` to `path`.

    `<path>.part` holds the bytes received so far. A download that was killed resumes from this file; a download that
    fails removes it. Threads and processes that download the same file wait for the first of them. The size is checked
    against the size that the server announces, and the sha256 where Hugging Face sends one (X-Linked-Etag).

    Args:
        url: Address of the file.
        path: Local path of the file; missing folders are created.
        transport: Retries and limits.

    Returns:
        Size of the file in bytes, or 0 when `path` already exists.

    Raises:
        RenderFailure: The download failed (reason `download`, with the cause as its detail).
        OSError: `path` cannot be written.
    """
    until = time.monotonic() + transport.deadline
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with _locked(partial, until) as file:
        if path.exists():
            partial.unlink()
            return 0
        part = _Part(file)
        try:
            _download_with_retries(url, part, transport, until)
        except RenderFailure:
            partial.unlink()
            raise
        size = file.seek(0, os.SEEK_END)
        partial.replace(path)
        return size


@dataclass
class _Part:
    """Partial file, open for appending.

    Attributes:
        file: The open file.
        etag: Strong ETag of the response that the bytes come from, empty if unknown.
    """

    file: BufferedRandom
    etag: str = ""

    def start_over(self) -> None:
        self.file.truncate(0)
        self.etag = ""


class _RetryableError(Exception):
    """Failed attempt that may be retried. `wait` is the delay in seconds that the server requested."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


def _download_with_retries(url: str, part: _Part, transport: Transport, until: float) -> None:
    jitter = random.SystemRandom()  # independent of the seed of `random`, so that workers do not wait in step
    for attempt in count():
        try:
            _receive(url, part, transport, until)
            return
        except _RetryableError as failed:
            wait = max(failed.wait, jitter.uniform(0, min(MAX_WAIT_S, transport.backoff * 2**attempt)))
            if attempt == transport.retries:
                raise RenderFailure("download", f"{url}: {failed}; {attempt + 1} attempts") from failed
            if time.monotonic() + wait > until:
                raise RenderFailure(
                    "download", f"{url}: {failed}; the deadline of {transport.deadline:g} s has passed"
                ) from failed
            if wait > 2:
                print(f"{url}: {failed}; next attempt in {wait:.0f} s")
            time.sleep(wait)


def _receive(url: str, part: _Part, transport: Transport, until: float) -> None:
    """Make one attempt: request the rest of the file, or all of it where it cannot be resumed."""
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
            sha256 = _announced_sha256(answer)
            total = _total(answer, part, offset, sha256)
            part.etag = _strong_etag(answer)
            _append(url, answer, part, transport, until, total)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise RenderFailure("download", f"{url}: {error}") from error
    except (requests.RequestException, HTTPError) as error:
        raise _RetryableError(_innermost_message(error)) from error
    _check(part, total, sha256)


def _append(
    url: str, answer: requests.Response, part: _Part, transport: Transport, until: float, total: int | None
) -> None:
    size = part.file.seek(0, os.SEEK_END)
    # read1 returns after one read of the socket. Waiting for a whole block could exceed the deadline.
    while block := answer.raw.read1(BLOCK_BYTES, decode_content=False):
        size += len(block)
        if max(size, total or 0) > transport.max_bytes:
            raise RenderFailure("download", f"{url}: more than the allowed {transport.max_bytes:,} bytes")
        if time.monotonic() > until:
            raise RenderFailure("download", f"{url}: not complete after {transport.deadline:g} s")
        part.file.write(block)


def _check_status(url: str, answer: requests.Response, part: _Part) -> None:
    if answer.status_code in TRANSIENT_STATUSES:
        wait = _seconds(answer.headers.get("Retry-After", ""))
        raise _RetryableError(f"the server answers {answer.status_code} {answer.reason}", wait)
    if answer.status_code == 416:
        part.start_over()
        raise _RetryableError("the server has no bytes after those of the partial file")
    if answer.status_code not in (200, 206):
        raise RenderFailure("download", f"{url}: the server answers {answer.status_code} {answer.reason}")


def _total(answer: requests.Response, part: _Part, offset: int, sha256: str) -> int | None:
    """Return the announced size of the whole file in bytes, or None; truncate the partial file for a full response."""
    if answer.status_code == 200:
        part.file.truncate(0)
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if not span or int(span[1]) != offset or not (part.etag or sha256):
        # Without an ETag or a sha256 the two parts could come from different versions of the file.
        part.start_over()
        raise _RetryableError("the server cannot resume the file")
    return int(span[2])


def _check(part: _Part, total: int | None, sha256: str) -> None:
    size = part.file.seek(0, os.SEEK_END)
    if total is not None and size < total:
        raise _RetryableError(f"the connection ended after {size:,} of {total:,} bytes")
    part.file.seek(0)
    if (total is not None and size > total) or (
        sha256 and hashlib.file_digest(part.file, "sha256").hexdigest() != sha256
    ):
        part.start_over()
        raise _RetryableError("size or sha256 differs from the announced one")


def _announced_sha256(answer: requests.Response) -> str:
    """Return the sha256 that Hugging Face sends with its redirect (X-Linked-Etag), or an empty string."""
    for step in (*answer.history, answer):
        if found := re.fullmatch(r'"?([0-9a-f]{64})"?', step.headers.get("X-Linked-Etag", "")):
            return found[1]
    return ""


def _strong_etag(answer: requests.Response) -> str:
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else ""  # a weak ETag, W/"…", does not guarantee equal bytes


def _seconds(retry_after: str) -> float:
    """Return the delay in seconds of a Retry-After header, a number or a date; 0 if the header is invalid."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _innermost_message(error: Exception) -> str:
    """Return the message of the innermost exception, without the long text that requests puts around it."""
    inner: Any = error
    while True:
        reason = getattr(inner, "reason", None) or next(iter(getattr(inner, "args", ())), None)
        if not isinstance(reason, Exception):
            return re.sub(r"^.*?(Connection|pool)\(.*?\): ", "", str(inner)) or type(inner).__name__
        inner = reason


@contextmanager
def _locked(path: Path, until: float) -> Iterator[BufferedRandom]:
    """Open `path` for appending and reading, created if missing, with an exclusive lock.

    Raises:
        RenderFailure: Another process still holds the lock at `until` (monotonic clock, seconds).
    """
    while True:
        with open(path, "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(file, path):
                    yield file
                    return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RenderFailure("download", f"{path}: another process still downloads it") from None
        time.sleep(0.02)


def _same_file(file: BufferedRandom, path: Path) -> bool:
    """Return whether `path` still is the opened file; another process may have renamed it in the meantime."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@functools.cache
def _session() -> requests.Session:
    """Return the HTTP session of this process.

    Connections stay open, because most objects are small. The session accepts no cookies, so threads can share it.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.max_redirects = 5
    return session
