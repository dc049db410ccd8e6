"""Read the samples of a shard, and encode and decode their arrays."""

import functools
import io
import itertools
import math
import re
import tarfile
from collections.abc import Iterator
from operator import itemgetter
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError, first_line
from pipeline.storage import locate

Sample = dict[str, bytes]  # extension -> contents, e.g. "000.webp", "cameras.npy", "meta.json"

VIEW = re.compile(r"\d{3}\.webp")
NPY_HEADER_BYTES = 128  # enough for any array with fewer than twelve dimensions
# Exceptions that Pillow, numpy and json raise for damaged files of a sample, and a dictionary for missing ones.
UNDECODABLE = (OSError, ValueError, KeyError, EOFError, SyntaxError, Image.DecompressionBombError)
_UNREADABLE = (OSError, ValueError, EOFError, OverflowError, RecursionError, tarfile.TarError)  # of a damaged tar


class DamagedShard(UserError):
    """The tar of a shard is missing or damaged.

    Args:
        root: Folder or URL of the shards.
        name: Name of the shard.
        reason: What is wrong with the tar.
    """

    def __init__(self, root: str, name: str, reason: str) -> None:
        super().__init__(root, name, reason)  # all of them, so that the error can be pickled
        self.root, self.name, self.reason = root, name, reason

    def __str__(self) -> str:
        check = f"check the shards with python -m pipeline.verify path={self.root}"
        return f"{self.root}/{self.name}.tar is missing or damaged: {self.reason}; {check}"


def read_samples(root: str, name: str) -> Iterator[tuple[str, Sample]]:
    """Yield (uid, sample) of each object in one shard, read as a stream.

    Raises:
        DamagedShard: The tar is missing, cannot be read or is damaged.
    """
    fs, path = locate(f"{root}/{name}.tar")
    try:
        with fs.open(path, "rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for uid, files in itertools.groupby(_files(tar, size), key=itemgetter(0)):
                    yield uid, {extension: contents for _, extension, contents in files}
    except FileNotFoundError as error:
        raise DamagedShard(root, name, "there is no such file") from error
    except _UNREADABLE as error:
        raise DamagedShard(root, name, first_line(error)) from error


def _files(tar: tarfile.TarFile, size: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield (uid, extension, contents) of each file in a tar of `size` bytes.

    Raises:
        ValueError: A header announces more bytes than the tar has.
        tarfile.TarError: The tar is damaged.
    """
    for member in tar:
        uid, _, extension = member.name.partition(".")
        if member.isreg() and extension:
            if member.size > size:
                raise ValueError(f"the header of {member.name} declares {member.size:,} bytes in a tar of {size:,}")
            tar.fileobj.seek(member.offset_data)
            contents = tar.fileobj.read(member.size)
            if len(contents) < member.size:
                raise tarfile.ReadError("unexpected end of data")
            yield uid, extension, contents


def view_names(sample: Sample) -> list[str]:
    """Return the extensions of the colour images of a view sample, in the order of its cameras.

    Other render passes are stored as `NNN.<pass>.<suffix>` and are not included.
    """
    return sorted(filter(VIEW.fullmatch, sample))


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return the contents of a .npy file that holds `array`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npy_array(contents: bytes) -> NDArray[Any]:
    """Return the array in a .npy file of format 1.0, as a read-only view of `contents`.

    The size in the header is checked before use, so an untrusted header cannot cause a large allocation.

    Raises:
        ValueError: The contents are not a .npy file of format 1.0, or the header does not match their size.
    """
    shape, columns_first, dtype, begin = _npy_header(contents[:NPY_HEADER_BYTES])
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(contents) - begin:
        raise ValueError(f"the header declares {dtype} {list(shape)} for {len(contents) - begin} bytes")
    return np.frombuffer(contents, dtype, math.prod(shape), begin).reshape(shape, order="F" if columns_first else "C")


@functools.lru_cache(maxsize=256)
def _npy_header(contents: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return the shape, the Fortran-order flag, the type and the offset of the data; cached, as few headers differ."""
    stream = io.BytesIO(contents)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("the .npy file is not of format 1.0")
    try:
        return *np.lib.format.read_array_header_1_0(stream), stream.tell()
    except (TypeError, SyntaxError, TokenError) as error:
        raise ValueError(f"the .npy header cannot be parsed: {first_line(error)}") from error
