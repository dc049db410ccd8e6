"""Access to the output of a stage: a local folder, or any URL that fsspec reads (`s3://bucket/folder`)."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from conf.options import UserError, first_line

# Object stores write a file atomically and need no folders. Creating a folder there could create a bucket with a
# misspelt name.
STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}
ASIDE = re.compile(r"\.[0-9a-f]{8}\.part$")  # suffix of a file that is still being written


def locate(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of `url` and the absolute path on it.

    A name without `://` is used as a local path unchanged, because fsspec would expand `~user` and split at `::`.

    Raises:
        UserError: The protocol is unknown, or needs a package that is not installed.
    """
    if "://" not in url:
        return LocalFileSystem(), os.path.abspath(url)
    try:
        fs, path = fsspec.core.url_to_fs(normalised(url))
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: {first_line(error)}; use a folder, or s3://bucket/folder") from error
    fs.invalidate_cache()  # other processes write to the file system too
    return fs, path


def normalised(url: str) -> str:
    """Return the canonical form of a path or URL.

    A local path becomes absolute, with links resolved. A URL loses trailing and repeated slashes.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme == "file":
        return os.path.realpath(path if separator else url)
    return f"{scheme}://{re.sub('/+', '/', path).rstrip('/')}"


def absolute(url: str) -> str:
    """Return a local path as an absolute one and a URL unchanged, for tasks, which run in another working folder."""
    return url if "://" in url else os.path.abspath(url)


def list_folder(url: str) -> list[str]:
    """Return the paths of the entries of the folder `url`, or an empty list where the folder is missing.

    Raises:
        UserError: The store denies access or does not respond.
    """
    fs, path = locate(url)
    with clear_errors(fs, url):
        try:
            return fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []


def read_file(url: str) -> bytes | None:
    """Return the contents of a small file, or None where it is missing.

    Raises:
        UserError: The store denies access or does not respond.
    """
    fs, path = locate(url)
    with clear_errors(fs, url):
        return fs.cat_file(path) if fs.exists(path) else None


def open_file(url: str) -> Any:
    """Open a file of any size for reading in binary mode; exceptions of the file system are passed on unchanged."""
    fs, path = locate(url)
    return fs.open(path, "rb")


def is_local(url: str) -> bool:
    """Return whether `url` is on the local file system."""
    return isinstance(locate(url)[0], LocalFileSystem)


def write_atomically(url: str, contents: bytes) -> None:
    """Write a small file atomically, so that no reader gets a partial file.

    Raises:
        UserError: The store denies access or does not respond.
    """
    with _appearing(url) as (fs, path):
        fs.pipe_file(path, contents)


def put_atomically(file: str, url: str) -> None:
    """Copy a local file of any size to `url` atomically, on S3 as a concurrent multipart upload.

    Raises:
        UserError: The store denies access or does not respond.
    """
    with _appearing(url) as (fs, path):
        fs.put_file(file, path)


def sweep(url: str) -> None:
    """Remove the partial files of killed writers in the folder `url`; other files with the suffix .part are kept."""
    fs, _ = locate(url)
    for path in list_folder(url):
        if ASIDE.search(path):
            fs.rm_file(path)


@contextmanager
def _appearing(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Yield the file system and path to write to; the file is renamed to `url` when the block ends.

    If two processes write one file concurrently, the later one replaces the earlier one.
    """
    fs, path = locate(url)
    with clear_errors(fs, url):
        if STORES & set([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
            yield fs, path
            return
        fs.makedirs(fs._parent(path), exist_ok=True)
        aside = f"{path}.{secrets.token_hex(4)}.part"
        try:
            yield fs, aside
            fs.mv(aside, path)
        except BaseException:
            with suppress(OSError):
                fs.rm_file(aside)
            raise


@contextmanager
def clear_errors(fs: AbstractFileSystem, url: str) -> Iterator[None]:
    """Convert exceptions of a remote store (no such bucket, no credentials, no network) to a UserError.

    Args:
        fs: File system in use; exceptions of the local file system are passed on unchanged.
        url: Address for the message.

    Raises:
        UserError: The store raised an exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(fs, LocalFileSystem):
            raise
        raise UserError(
            f"{url}: {str(error).rstrip('.') or repr(error)}; check that the bucket exists and that this machine has "
            "credentials for it"
        ) from error
