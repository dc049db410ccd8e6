"""Binary FBX: check the ends and arrays of its tree of records.

The paths of textures are not checked: exporters write those of their machine. `rendering.importer` searches for
textures by name in the asset's folder.
"""

import mmap
import struct
import zlib
from pathlib import Path

from rendering.asset_validation.references import References
from rendering.failure import RenderFailure

MAGIC = b"Kaydara FBX Binary  \x00\x1a\x00"
MAX_RECORDS = 3_000_000
MAX_DEPTH = 100
MAX_ARRAY_BYTES = 2 << 30  # of all arrays together, decompressed
SCALARS = {b"Z": 1, b"B": 1, b"C": 1, b"Y": 2, b"I": 4, b"F": 4, b"D": 8, b"L": 8}
ARRAYS = {b"b": 1, b"B": 1, b"c": 1, b"i": 4, b"f": 4, b"d": 8, b"l": 8}


def check(path: Path, references: References) -> None:
    """Check the records of a binary FBX.

    Raises:
        RenderFailure: `too_large`.
        ValueError: The file is not a valid binary FBX.
    """
    if path.stat().st_size < 40:
        raise ValueError("the file is too short for an FBX")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:23] != MAGIC:
            raise ValueError("the file is not a binary FBX")
        _Records(data, wide=struct.unpack_from("<I", data, 23)[0] >= 7500).check()


class _Records:
    def __init__(self, data: mmap.mmap, wide: bool) -> None:
        self.data, self.count, self.unpacked = data, 0, 0
        self.head = struct.Struct("<QQQB" if wide else "<IIIB")

    def check(self) -> None:
        ends, at = [len(self.data)], 27
        while True:
            end, properties, length, name = self.head.unpack(self._take(at, self.head.size))
            at += self.head.size
            if end == 0:  # an empty record ends a list of records
                if len(ends) == 1:
                    return  # a footer follows
                ends.pop()
                if at > ends[-1]:
                    raise ValueError("a record ends after its parent")
                continue
            start = at + name
            if not start + length <= end <= ends[-1] or properties > length:
                raise ValueError(f"a record goes from byte {at:,} to {end:,} of {ends[-1]:,}")
            self.count += 1
            if self.count > MAX_RECORDS or len(ends) > MAX_DEPTH:
                raise RenderFailure("too_large", "the file has too many records, or too deeply nested ones")
            self._properties(start, properties, start + length)
            at = start + length
            if at < end:
                ends.append(end)

    def _properties(self, at: int, count: int, end: int) -> None:
        for _ in range(count):
            kind = self._take(at, 1)
            at += 1
            if kind in b"SR":
                at += 4 + struct.unpack("<I", self._take(at, 4))[0]
            elif kind in SCALARS and (kind not in ARRAYS or kind == b"B"):
                at += SCALARS[kind]
            elif kind in ARRAYS:
                number, encoding, packed = struct.unpack("<III", self._take(at, 12))
                self._array(at + 12, number * ARRAYS[kind], encoding, packed)
                at += 12 + packed
            else:
                raise ValueError(f"unknown property type {kind!r}")
            if at > end:
                raise ValueError("a property exceeds its record")

    def _array(self, at: int, size: int, encoding: int, packed: int) -> None:
        self.unpacked += size
        if self.unpacked > MAX_ARRAY_BYTES:
            raise RenderFailure("too_large", f"the arrays have more than {MAX_ARRAY_BYTES:,} bytes")
        data = self._take(at, packed)
        try:
            actual = len(zlib.decompressobj().decompress(data, size + 1)) if encoding else packed
        except zlib.error as error:
            raise ValueError(f"an array cannot be decompressed: {error}") from error
        if actual != size:
            raise ValueError(f"an array declares {size:,} bytes and has {actual:,}")

    def _take(self, at: int, size: int) -> bytes:
        if at + size > len(self.data):
            raise ValueError("the file ends in the middle of a record")
        return self.data[at : at + size]
