"""Where a stage's output lies: a folder, or any URL that fsspec reads (`s3://bucket/folder`)."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from conf.options import UserError

# Object stores: what is put there appears whole or not at all, folders need not be made, and making one would make
# a bucket of a misspelt name.
STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}
ASIDE = re.compile(r"\.[0-9a-f]{8}\.part$")  # end of the name of a file that is not whole yet


def locate(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of `url` and the absolute path on it.

    A name without `://` is a path of this machine as it stands: fsspec would expand `~user` and split at `::`.
    """
    if "://" not in url:
        return LocalFileSystem(), os.path.abspath(url)
    fs, path = fsspec.core.url_to_fs(normalised(url))
    fs.invalidate_cache()  # others write there too
    return fs, path


def normalised(url: str) -> str:
    """Return the one spelling of a place that all its spellings have.

    A path of this machine becomes absolute, with links followed; a URL loses slashes at its end and doubled ones.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme == "file":
        return os.path.realpath(path if separator else url)
    return f"{scheme}://{re.sub('/+', '/', path).rstrip('/')}"


def list_folder(url: str) -> list[str]:
    """Paths on the file system of what lies in the folder `url`, none where there is no such folder.

    Raises:
        UserError: the store refuses or does not answer.
    """
    fs, path = locate(url)
    with clear_errors(fs, url):
        try:
            return fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []


def read_file(url: str) -> bytes | None:
    """The contents of a small file, or None where there is none."""
    fs, path = locate(url)
    with clear_errors(fs, url):
        return fs.cat_file(path) if fs.exists(path) else None


def open_file(url: str) -> Any:
    """Open a file of any size to read its bytes; raises what its file system raises."""
    fs, path = locate(url)
    return fs.open(path, "rb")


def is_local(url: str) -> bool:
    """Whether `url` is a folder of this machine."""
    return isinstance(locate(url)[0], LocalFileSystem)


def write_atomically(url: str, contents: bytes) -> None:
    """Write a small file so that no reader ever sees half of it."""
    with _appearing(url) as (fs, path):
        fs.pipe_file(path, contents)


def put_atomically(file: str, url: str) -> None:
    """Copy a local file of any size (several parts at a time on S3) so that no reader ever sees half of it."""
    with _appearing(url) as (fs, path):
        fs.put_file(file, path)


def sweep(url: str) -> None:
    """Remove the files that killed writers left half written in the folder `url`; other files named .part stay."""
    fs, _ = locate(url)
    for path in list_folder(url):
        if ASIDE.search(path):
            fs.rm_file(path)


@contextmanager
def _appearing(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Where to write what shall appear at `url` at once. Two may write the same file at a time: the later one stays."""
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
    """Turn a store's own exceptions (no such bucket, no credentials, no network) into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(fs, LocalFileSystem):
            raise
        raise UserError(
            f"{url}: {str(error).rstrip('.') or repr(error)}; see that the bucket exists and that this machine has "
            "credentials for it"
        ) from error
