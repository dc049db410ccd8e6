"""Shards: the contract between the stages.

A shard is a WebDataset tar `<kind>-NNNNNN.tar`, one sample per object, and its commit marker
`<kind>-NNNNNN.json`, written last. The marker holds the tar's size and sha256 and one record per object, the
failed ones included. A tar without a matching marker does not exist: whoever finds one writes it anew.
A root is a folder or any URL that fsspec reads (`s3://bucket/folder`).
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
NPY_HEADER = 128  # bytes of an array's header, of any array with fewer dimensions than a dozen
UID = re.compile(r"[A-Za-z0-9_-]{1,200}")  # a tar member is named <uid>.<extension>, so a uid has no dot


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """What became of one object. `reason` is one word of the stage's vocabulary, `detail` a sentence.

    `phases` are the seconds by phase of the work, `bytes` the size of the sample. `verdicts` are the words of
    `rendering.quality` that apply, `mesh` a hash of the geometry: two objects that share it are duplicates.
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
    """A committed shard."""

    name: str
    size: int
    sha256: str
    records: tuple[ObjectRecord, ...]

    @property
    def uids(self) -> list[str]:
        return [record.uid for record in self.records if record.status == "ok"]


def shard_name(kind: Kind, index: int) -> str:
    return f"{kind}-{index:06d}"


class ShardWriter:
    """Writes one shard; used as a context manager. Until `commit` there is nothing at the root but a tar at most.

    Equal samples in equal order make equal bytes.
    """

    def __init__(self, root: str, name: str):
        import webdataset as wds  # imports torch where it is installed: seconds that few who read markers need

        self._root, self._name = root, name
        self._file = tempfile.NamedTemporaryFile(suffix=".tar")
        self._tar = wds.TarWriter(self._file, encoder=False, mtime=0, user="", group="", mode=0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._tar.close()
        finally:  # on a full disk the end of the tar cannot be written
            self._file.close()

    def add(self, uid: str, sample: Sample) -> None:
        assert UID.fullmatch(uid), f"uid {uid!r} cannot name a tar member"
        self._tar.write({"__key__": uid, **sample})

    def commit(self, records: Iterable[ObjectRecord]) -> ShardManifest:
        """Bring the tar to the root, then the marker."""
        self._tar.close()
        self._file.flush()
        self._file.seek(0)
        marker = ShardManifest(self._name, *_size_and_sha256(self._file), records=tuple(records))
        url = f"{self._root}/{self._name}"
        fs, path = locate(url)
        before = _parse_marker(f"{path}.json", fs.cat_file(f"{path}.json")) if fs.exists(f"{path}.json") else None
        # A worker that was believed lost may commit the same shard a second time: then its tar is there already.
        if before is None or before.sha256 != marker.sha256:
            if before:
                fs.rm_file(f"{path}.json")
            put_atomically(self._file.name, f"{url}.tar")
        write_atomically(f"{url}.json", json.dumps(asdict(marker), indent=1).encode())
        return marker


def write_shard(
    root: str, name: str, samples: Iterable[tuple[str, Sample]], records: Iterable[ObjectRecord]
) -> ShardManifest:
    """A whole shard at once; `records` is read after `samples` is used up."""
    with ShardWriter(root, name) as shard:
        for uid, sample in samples:
            shard.add(uid, sample)
        return shard.commit(records)


def read_manifests(root: str, kind: Kind) -> list[ShardManifest]:
    """The committed shards of a root, in order.

    Raises:
        UserError: the root is missing, or holds no committed shard of this kind.
    """
    markers = find_markers(root, kind)
    if not markers:
        fs, path = locate(root)
        if not fs.exists(path):
            raise UserError(f"there is no folder {root}; name the output of the stage before")
        raise UserError(f"{root} holds no finished {kind} shard; name the output of the stage before")
    return markers


def find_markers(root: str, kind: Kind) -> list[ShardManifest]:
    """As `read_markers`, but a root without shards has none."""
    return [
        _parse_marker(path, contents) for path, contents in sorted(_cat_all(root, rf"{kind}-\d{{6}}\.json").items())
    ]


def read_plan(root: str) -> dict[str, Any] | None:
    """What the shards at `root` were begun with (`plan.json`), or None where nothing says so."""
    contents = read_file(f"{root}/plan.json")
    return None if contents is None else json.loads(contents)


def require_same_plan(root: str, plan: Mapping[str, object], kind: Kind = "views") -> None:
    """Refuse to continue shards that were made with another plan; write it where there are none."""
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
    """Names of the shards of which there is a tar, committed or not."""
    return sorted(path.rsplit("/", 1)[-1].removesuffix(".tar") for path in _list(root, rf"{kind}-\d{{6}}\.tar"))


def read_samples(root: str, name: str) -> Iterator[tuple[str, Sample]]:
    """Stream (uid, sample) from one shard.

    Raises:
        OSError, ValueError, tarfile.TarError: the tar is missing or damaged.
    """
    fs, path = locate(f"{root}/{name}.tar")
    with fs.open(path, "rb") as stream:
        most = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for uid, files in itertools.groupby(_files(tar, most), key=itemgetter(0)):
                yield uid, {extension: contents for _, extension, contents in files}


def _files(tar: tarfile.TarFile, most: int) -> Iterator[tuple[str, str, bytes]]:
    """(uid, extension, contents) of each file, none of which can have more than `most` bytes."""
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
    """The objects that have the mesh of one before them, each with the uid of the first that has it."""
    firsts: dict[str, str] = {}
    found = {}
    for record in (record for marker in markers for record in marker.records):
        if record.status == "ok" and record.mesh and firsts.setdefault(record.mesh, record.uid) != record.uid:
            found[record.uid] = firsts[record.mesh]
    return found


def integrity_error(root: str, marker: ShardManifest) -> str:
    """What is wrong with a committed shard's tar: one sentence, or an empty string when nothing is."""
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
    """The colour pictures of a view sample, in the order of its cameras; passes lie beside as `NNN.<pass>.<suffix>`."""
    return sorted(filter(VIEW.fullmatch, sample))


def npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npy_array(contents: bytes) -> NDArray[Any]:
    """The array in a .npy file of format 1.0, a view of `contents` that cannot be written to.

    Raises:
        ValueError: it is none, or its header does not fit the bytes that are there: no memory is taken on its word.
    """
    shape, columns_first, dtype, begin = _npy_header(contents[:NPY_HEADER])
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(contents) - begin:
        raise ValueError(f"a header of {dtype} {list(shape)} over {len(contents) - begin} bytes")
    return np.frombuffer(contents, dtype, math.prod(shape), begin).reshape(shape, order="F" if columns_first else "C")


@functools.lru_cache(maxsize=256)
def _npy_header(contents: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the data begin. All the arrays of a shard share a few."""
    stream = io.BytesIO(contents)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a .npy file of another format than 1.0")
    return *np.lib.format.read_array_header_1_0(stream), stream.tell()


def _list(root: str, pattern: str) -> list[str]:
    return [path for path in list_folder(root) if re.fullmatch(pattern, path.rsplit("/", 1)[-1])]


def _cat_all(root: str, pattern: str) -> dict[str, bytes]:
    paths = _list(root, pattern)
    fs, _ = locate(root)
    # fs.cat would expand `[`, `*` and `?` in the paths; this reads as many at a time.
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
