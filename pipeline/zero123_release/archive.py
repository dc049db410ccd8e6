"""Stream the files of an untrusted tar from any fsspec URL without extraction to disk."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from conf.options import UserError
from pipeline.storage import open_file
from rendering.failure import Reason

BLOCK = 1 << 20
HEADER_BYTES = 1 << 16  # limit for long names and pax records, which tarfile holds in memory
HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


@dataclass(frozen=True)
class File:
    """Hold the contents of a tar member, or the reason why it was not read."""

    path: PurePosixPath
    contents: bytes = b""
    fault: tuple[Reason, str] | None = None


def read_tar(
    url: str, wanted: Callable[[PurePosixPath], bool], max_bytes: int, advance: Callable[[int], object]
) -> Iterator[File]:
    """Yield the wanted files of a tar or tar.gz in archive order.

    Args:
        url: Path or URL of the archive.
        wanted: Predicate on member paths; folders are always skipped.
        max_bytes: Maximum size of a file in bytes.
        advance: Callback that receives the number of bytes read from `url` since the last call.

    Yields:
        Files with contents, or with a fault if they are too large, not plain, or have a path outside the tar.

    Raises:
        UserError: The archive is missing, not a tar, damaged or truncated.
    """
    try:
        with open_file(url) as stream, _open(url, io.BufferedReader(_Counted(stream, advance), BLOCK)) as tar:
            while member := tar.next():
                path = PurePosixPath(member.name)
                if wanted(path) and not member.isdir():
                    yield _file(path, member, tar, max_bytes)
                tar.members.clear()  # type: ignore[attr-defined]  # otherwise the list grows with every member
    except FileNotFoundError as error:
        raise UserError(f"path={url}: no such file or folder; give the folder or the tar of the renders") from error
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, tarfile.TarError) as error:
        sentence = f"path={url}: damaged or cut off ({error}); repeat the command with a complete file"
        raise UserError(sentence) from error


def _file(path: PurePosixPath, member: tarfile.TarInfo, tar: tarfile.TarFile, max_bytes: int) -> File:
    if path.is_absolute() or ".." in path.parts or not member.isreg() or member.issparse():
        return File(path, fault=("external", f"{member.name:.300} is no plain file inside the tar"))
    if member.size > max_bytes:
        return File(path, fault=("too_large", f"{path.name} has {member.size:,} bytes, more than {max_bytes:,}"))
    contents = tar.extractfile(member)
    assert contents
    return File(path, contents.read())


def _open(url: str, stream: io.BufferedReader) -> tarfile.TarFile:
    try:
        # The decompression in tarfile has no memory limit per input block.
        packed = stream.peek(2)[:2] == b"\x1f\x8b"
        plain: Any = gzip.GzipFile(fileobj=stream) if packed else stream
        return tarfile.open(fileobj=plain, mode="r|", bufsize=BLOCK, tarinfo=_Member)
    except tarfile.TarError as error:
        raise UserError(f"path={url}: not a tar or tar.gz; give the folder or the tar of the renders") from error


class _Counted(io.RawIOBase):
    """Report the number of bytes read from a stream."""

    def __init__(self, stream: Any, advance: Callable[[int], object]):
        self._stream, self._advance = stream, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._stream.read(len(buffer))
        except Exception as error:  # each fsspec file system raises its own exception types
            raise OSError(repr(error)) from error
        self._advance(len(block))
        buffer[: len(block)] = block
        return len(block)


class _Member(tarfile.TarInfo):
    """Raise an error for broken or oversized headers, where tarfile would stop silently or exhaust memory."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no tar header at byte {tar.offset:,}") from error

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in HEADERS and self.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a member's header has {self.size:,} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse member")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _proc_gnusparse_10(self, *_: Any) -> None:
        raise tarfile.ReadError("a sparse member")
