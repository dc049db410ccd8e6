"""Shard format shared by all stages of the pipeline: records, manifests and plans of shards, and their writer.

A shard is a WebDataset tar `<kind>-NNNNNN.tar` with one sample per object, and a manifest `<kind>-NNNNNN.json`, which
is written last and commits the shard. The manifest holds the size and sha256 of the tar and one record per object, the
failed ones included. A tar without a matching manifest is not part of the data and is overwritten by the next run. A
root is a folder or any URL that fsspec reads (`s3://bucket/folder`).
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from conf.options import UserError, first_line
from conf.scratch import scratch_folder
from pipeline.samples import Sample
from pipeline.storage import clear_errors, list_folder, locate, put_atomically, read_file, sweep, write_atomically
from pipeline.uid import require_uid

Kind = Literal["views", "latents"]


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
        self._file = tempfile.NamedTemporaryFile(suffix=".tar", dir=scratch_folder())
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
            uid: Key of the object.
            sample: Contents of the sample's files by extension.

        Raises:
            UserError: The uid cannot name files of a tar.
        """
        require_uid(uid)
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
        manifest = ShardManifest(self._name, *_size_and_sha256(self._file), records=tuple(records))
        url = f"{self._root}/{self._name}"
        fs, path = locate(url)
        earlier = read_file(f"{url}.json")
        before = None if earlier is None else _parse_manifest(f"{path}.json", earlier)
        # A worker that was considered lost may commit the shard a second time; an equal tar is not copied again.
        if before is None or before.sha256 != manifest.sha256:
            if before:
                with clear_errors(fs, url):
                    fs.rm_file(f"{path}.json")
            put_atomically(self._file.name, f"{url}.tar")
        write_atomically(f"{url}.json", json.dumps(asdict(manifest), indent=1).encode())
        return manifest


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
    manifests = find_manifests(root, kind)
    if not manifests:
        fs, path = locate(root)
        if not fs.exists(path):
            raise UserError(f"{root}: no such folder; give the output of the previous stage")
        raise UserError(f"{root}: no finished {kind} shard; give the output of the previous stage")
    return manifests


def find_manifests(root: str, kind: Kind) -> list[ShardManifest]:
    """Return the manifests of the committed shards at `root`, in order; an empty list where there are none.

    Raises:
        UserError: A manifest is invalid.
    """
    return [
        _parse_manifest(path, contents) for path, contents in sorted(_cat_all(root, rf"{kind}-\d{{6}}\.json").items())
    ]


def read_plan(root: str) -> dict[str, Any] | None:
    """Return the plan of the shards at `root` (`plan.json`), or None where the file is missing.

    Raises:
        UserError: The file is damaged.
    """
    contents = read_file(f"{root}/plan.json")
    try:
        return None if contents is None else dict(json.loads(contents))
    except (ValueError, TypeError) as error:
        raise UserError(f"{root}/plan.json: not a valid plan; restore the file, or choose another folder") from error


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
    if not find_manifests(root, kind):
        write_atomically(f"{root}/plan.json", json.dumps(dict(plan), indent=1).encode())
        return
    begun = read_plan(root)
    if begun is None:
        raise UserError(f"output={root}: has shards but no plan.json; choose another folder")
    for name, value in plan.items():
        if begun.get(name) != value:
            difference = "other objects" if name == "listing" else f"{name}={begun.get(name)}, now {value}"
            raise UserError(f"output={root}: its shards were made with {difference}; choose another folder")


def find_tars(root: str, kind: Kind) -> list[str]:
    """Return the sorted names of the shards that have a tar, committed or not."""
    return sorted(path.rsplit("/", 1)[-1].removesuffix(".tar") for path in _list(root, rf"{kind}-\d{{6}}\.tar"))


def duplicates(manifests: Iterable[ShardManifest]) -> dict[str, str]:
    """Return the duplicate objects, each with the uid of the first object that has an equal mesh hash."""
    firsts: dict[str, str] = {}
    found = {}
    for record in (record for manifest in manifests for record in manifest.records):
        if record.status == "ok" and record.mesh and firsts.setdefault(record.mesh, record.uid) != record.uid:
            found[record.uid] = firsts[record.mesh]
    return found


def integrity_error(root: str, manifest: ShardManifest) -> str:
    """Return a message that describes the damage of a committed shard's tar, or an empty string if it is intact."""
    fs, path = locate(f"{root}/{manifest.name}.tar")
    try:
        with fs.open(path, "rb") as tar:
            size, sha256 = _size_and_sha256(tar)
    except FileNotFoundError:
        return "the tar is missing"
    except OSError as error:
        return f"the tar cannot be read: {first_line(error)}"
    if size != manifest.size:
        return f"the tar has {size:,} bytes, not {manifest.size:,} as in its manifest"
    if sha256 != manifest.sha256:
        return "the sha256 of the tar differs from the one in its manifest"
    return ""


def _list(root: str, pattern: str) -> list[str]:
    return [path for path in list_folder(root) if re.fullmatch(pattern, path.rsplit("/", 1)[-1])]


def _cat_all(root: str, pattern: str) -> dict[str, bytes]:
    paths = _list(root, pattern)
    fs, _ = locate(root)
    # fs.cat would expand `[`, `*` and `?` in the paths; cat_ranges does not, and is as concurrent.
    return dict(zip(paths, fs.cat_ranges(paths, None, None, on_error="raise"), strict=True))


def _parse_manifest(path: str, contents: bytes) -> ShardManifest:
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
        fault = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path}: not a valid manifest ({fault}); delete it to make its shard again") from error


def _size_and_sha256(stream: BinaryIO | Any) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()
