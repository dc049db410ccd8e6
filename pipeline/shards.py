"""Shard format shared by all stages of the pipeline.

A shard is a WebDataset tar `<kind>-NNNNNN.tar` with one sample per object, and a manifest `<kind>-NNNNNN.json`, the
commit marker, which is written last. The manifest holds the size and sha256 of the tar and one record per object,
the failed ones included. A tar without a matching manifest is not part of the data and is overwritten by the next
run. A root is a folder or any URL that fsspec reads (`s3://bucket/folder`).
"""

import functools
import hashlib
import io
import itertools
import json
import math
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from conf.options import UserError
from pipeline.storage import list_folder, locate, put_atomically, read_file, sweep, write_atomically

Kind = Literal["views", "latents"]
Sample = dict[str, bytes]  # extension -> contents, e.g. "000.webp", "cameras.npy", "meta.json"

VIEW = re.compile(r"\d{3}\.webp")
NPY_HEADER = 128  # bytes of a .npy header; enough for any array with fewer than twelve dimensions
UID = re.compile(r"[A-Za-z0-9_-]{1,200}")  # no dot, because a tar member is named <uid>.<extension>


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """Outcome of one object.

    Attributes:
        uid: Key of the object in its shard.
        status: "ok", or "failed" for an object without a sample.
        reason: Failure reason, one word of the stage's vocabulary; empty on success.
        detail: Sentence that explains the failure; empty on success.
        seconds: Total time of the object in seconds.
        phases: Seconds by phase of the work.
        bytes: Size of the sample in bytes.
        node: Host name of the node that processed the object.
        verdicts: Quality flags of the object, as `rendering.quality` names them.
        mesh: Hash of the geometry; objects with equal hashes are duplicates.
    """

    uid: str
    status: Literal["ok", "failed"]
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    node: str = ""
    verdicts: tuple[str, ...] = ()
    mesh: str = ""


@dataclass(frozen=True)
class ShardManifest:
    """Manifest of a committed shard.

    Attributes:
        name: Name of the shard, such as "views-000000".
        size: Size of the tar in bytes.
        sha256: Hexadecimal sha256 of the tar.
        records: Record of each object of the shard, the failed ones included.
    """

    name: str
    size: int
    sha256: str
    records: tuple[ObjectRecord, ...]

    @property
    def uids(self) -> list[str]:
        """Return the uids of the objects that have a sample, in order."""
        return [record.uid for record in self.records if record.status == "ok"]


def shard_name(kind: Kind, index: int) -> str:
    """Return the name of the shard `index`, without a suffix."""
    return f"{kind}-{index:06d}"


class ShardWriter:
    """Context manager that writes one shard.

    The tar is written to a temporary file, and `commit` copies it to the root. Equal samples in equal order produce
    equal bytes.

    Args:
        root: Folder or URL of the shards.
        name: Name of the shard.
    """

    def __init__(self, root: str, name: str):
        import webdataset as wds  # imported late: it imports torch, which takes seconds

        self._root, self._name = root, name
        self._file = tempfile.NamedTemporaryFile(suffix=".tar")
        self._tar = wds.TarWriter(self._file, encoder=False, mtime=0, user="", group="", mode=0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._tar.close()
        finally:  # closing the tar fails on a full disk
            self._file.close()

    def add(self, uid: str, sample: Sample) -> None:
        """Append the sample of one object.

        Args:
            uid: Key of the object; must match `UID`.
            sample: Contents of the sample's files by extension.
        """
        assert UID.fullmatch(uid), f"uid {uid!r} cannot name a tar member"
        self._tar.write({"__key__": uid, **sample})

    def commit(self, records: Iterable[ObjectRecord]) -> ShardManifest:
        """Copy the tar to the root, then write the manifest.

        Args:
            records: Record of each object of the shard, the failed ones included.

        Returns:
            The manifest.
        """
        self._tar.close()
        self._file.flush()
        self._file.seek(0)
        marker = ShardManifest(self._name, *_size_and_sha256(self._file), records=tuple(records))
        url = f"{self._root}/{self._name}"
        fs, path = locate(url)
        before = _parse_marker(f"{path}.json", fs.cat_file(f"{path}.json")) if fs.exists(f"{path}.json") else None
        # A worker that was considered lost may commit the shard a second time; an equal tar is not copied again.
        if before is None or before.sha256 != marker.sha256:
            if before:
                fs.rm_file(f"{path}.json")
            put_atomically(self._file.name, f"{url}.tar")
        write_atomically(f"{url}.json", json.dumps(asdict(marker), indent=1).encode())
        return marker


def write_shard(
    root: str, name: str, samples: Iterable[tuple[str, Sample]], records: Iterable[ObjectRecord]
) -> ShardManifest:
    """Write and commit a whole shard.

    Args:
        root: Folder or URL of the shards.
        name: Name of the shard.
        samples: Uid and sample of each object.
        records: Record of each object; iterated after `samples` is exhausted.

    Returns:
        The manifest.
    """
    with ShardWriter(root, name) as shard:
        for uid, sample in samples:
            shard.add(uid, sample)
        return shard.commit(records)


def read_manifests(root: str, kind: Kind) -> list[ShardManifest]:
    """Return the manifests of the committed shards at `root`, in order.

    Raises:
        UserError: The root is missing, or holds no committed shard of this kind.
    """
    markers = find_markers(root, kind)
    if not markers:
        fs, path = locate(root)
        if not fs.exists(path):
            raise UserError(f"there is no folder {root}; name the output of the stage before")
        raise UserError(f"{root} holds no finished {kind} shard; name the output of the stage before")
    return markers


def find_markers(root: str, kind: Kind) -> list[ShardManifest]:
    """Return the manifests of the committed shards at `root`, in order; an empty list where there are none.

    Raises:
        UserError: A manifest is invalid.
    """
    return [
        _parse_marker(path, contents) for path, contents in sorted(_cat_all(root, rf"{kind}-\d{{6}}\.json").items())
    ]


def read_plan(root: str) -> dict[str, Any] | None:
    """Return the plan of the shards at `root` (`plan.json`), or None where the file is missing."""
    contents = read_file(f"{root}/plan.json")
    return None if contents is None else json.loads(contents)


def require_same_plan(root: str, plan: Mapping[str, object], kind: Kind = "views") -> None:
    """Check that the shards at `root` were made with `plan`; write the plan where there are no shards.

    Partial files of killed writers are removed first.

    Args:
        root: Folder or URL of the shards.
        plan: Settings that determine the contents of the shards.
        kind: Kind of the shards.

    Raises:
        UserError: The shards were made with another plan, or have none.
    """
    sweep(root)
    if not find_markers(root, kind):
        write_atomically(f"{root}/plan.json", json.dumps(dict(plan), indent=1).encode())
        return
    begun = read_plan(root)
    if begun is None:
        raise UserError(f"{root} holds shards but no plan.json that says how they were made; choose another output")
    for name, value in plan.items():
        if begun.get(name) != value:
            what = "other objects" if name == "listing" else f"{name}={begun.get(name)}, now {value}"
            raise UserError(f"{root} was begun with {what}; choose another output, or delete that folder")


def find_tars(root: str, kind: Kind) -> list[str]:
    """Return the sorted names of the shards that have a tar, committed or not."""
    return sorted(path.rsplit("/", 1)[-1].removesuffix(".tar") for path in _list(root, rf"{kind}-\d{{6}}\.tar"))


def read_samples(root: str, name: str) -> Iterator[tuple[str, Sample]]:
    """Yield (uid, sample) of each object in one shard, read as a stream.

    Raises:
        OSError: The tar is missing or cannot be read.
        ValueError: The tar is damaged.
        tarfile.TarError: The tar is damaged.
    """
    fs, path = locate(f"{root}/{name}.tar")
    with fs.open(path, "rb") as stream:
        most = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for uid, files in itertools.groupby(_files(tar, most), key=itemgetter(0)):
                yield uid, {extension: contents for _, extension, contents in files}


def _files(tar: tarfile.TarFile, most: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield (uid, extension, contents) of each file in the tar, whose size is `most` bytes.

    Raises:
        ValueError: A file announces more bytes than the tar has.
        tarfile.TarError: The tar is damaged.
    """
    for member in tar:
        uid, _, extension = member.name.partition(".")
        if member.isreg() and extension:
            if member.size > most:
                raise ValueError(f"{member.name} is said to have {member.size:,} bytes, the tar has {most:,}")
            tar.fileobj.seek(member.offset_data)
            contents = tar.fileobj.read(member.size)
            if len(contents) < member.size:
                raise tarfile.ReadError("unexpected end of data")
            yield uid, extension, contents


def duplicates(markers: Iterable[ShardManifest]) -> dict[str, str]:
    """Return the duplicate objects, each with the uid of the first object that has an equal mesh hash."""
    firsts: dict[str, str] = {}
    found = {}
    for record in (record for marker in markers for record in marker.records):
        if record.status == "ok" and record.mesh and firsts.setdefault(record.mesh, record.uid) != record.uid:
            found[record.uid] = firsts[record.mesh]
    return found


def integrity_error(root: str, marker: ShardManifest) -> str:
    """Return a message that describes the damage of a committed shard's tar, or an empty string if it is intact."""
    fs, path = locate(f"{root}/{marker.name}.tar")
    try:
        with fs.open(path, "rb") as tar:
            size, sha256 = _size_and_sha256(tar)
    except FileNotFoundError:
        return "the tar is missing"
    if size != marker.size:
        return f"the tar has {size:,} bytes, its marker says {marker.size:,}"
    if sha256 != marker.sha256:
        return "the tar's sha256 is not the one in its marker"
    return ""


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
    shape, columns_first, dtype, begin = _npy_header(contents[:NPY_HEADER])
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(contents) - begin:
        raise ValueError(f"a header of {dtype} {list(shape)} over {len(contents) - begin} bytes")
    return np.frombuffer(contents, dtype, math.prod(shape), begin).reshape(shape, order="F" if columns_first else "C")


@functools.lru_cache(maxsize=256)
def _npy_header(contents: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return the shape, the Fortran-order flag, the type and the offset of the data; cached, as few headers differ."""
    stream = io.BytesIO(contents)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a .npy file of another format than 1.0")
    return *np.lib.format.read_array_header_1_0(stream), stream.tell()


def _list(root: str, pattern: str) -> list[str]:
    return [path for path in list_folder(root) if re.fullmatch(pattern, path.rsplit("/", 1)[-1])]


def _cat_all(root: str, pattern: str) -> dict[str, bytes]:
    paths = _list(root, pattern)
    fs, _ = locate(root)
    # fs.cat would expand `[`, `*` and `?` in the paths; cat_ranges does not, and is as concurrent.
    return dict(zip(paths, fs.cat_ranges(paths, None, None, on_error="raise"), strict=True))


def _parse_marker(path: str, contents: bytes) -> ShardManifest:
    try:
        fields = json.loads(contents)
        return ShardManifest(
            str(fields["name"]),
            int(fields["size"]),
            str(fields["sha256"]),
            tuple(
                ObjectRecord(**{**record, "verdicts": tuple(record.get("verdicts", ()))})
                for record in fields["records"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no shard marker ({error!r}); delete it to render its shard again") from error


def _size_and_sha256(stream: BinaryIO | Any) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()
