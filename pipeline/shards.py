"""Shards: the contract between the stages.

A shard is a WebDataset tar `<kind>-NNNNNN.tar`, one sample per object, and its commit marker
`<kind>-NNNNNN.json`, written last. The marker holds the tar's size and sha256 and one record per object, the
failed ones included. A tar without a matching marker does not exist: whoever finds one writes it anew.
A root is a folder or any URL that fsspec reads (`s3://bucket/folder`).
"""

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

import fsspec
import numpy as np
import webdataset as wds
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from conf.options import UserError

Kind = Literal["views", "latents"]
Sample = dict[str, bytes]  # extension -> contents, e.g. "000.webp", "cameras.npy", "meta.json"

UID = re.compile(r"[A-Za-z0-9_-]{1,200}")  # a tar member is named <uid>.<extension>, so a uid has no dot


@dataclass(frozen=True)
class Record:
    """What became of one object. `reason` is one word of the stage's vocabulary, `detail` a sentence."""

    uid: str
    status: Literal["ok", "failed"]
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Marker:
    """A committed shard."""

    name: str
    size: int
    sha256: str
    records: tuple[Record, ...]

    @property
    def uids(self) -> list[str]:
        return [record.uid for record in self.records if record.status == "ok"]


def shard_name(kind: Kind, index: int) -> str:
    return f"{kind}-{index:06d}"


def write_shard(root: str, name: str, samples: Iterable[tuple[str, Sample]], records: Iterable[Record]) -> Marker:
    """Write tar and marker. Equal samples make equal bytes; `records` is read after `samples` is used up."""
    fs, path = fsspec.core.url_to_fs(root)
    fs.makedirs(path, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".tar") as tar:
        with wds.TarWriter(tar, encoder=False, mtime=0, user="", group="", mode=0o644) as writer:
            for uid, sample in samples:
                assert UID.fullmatch(uid), f"uid {uid!r} cannot name a tar member"
                writer.write({"__key__": uid, **sample})
        tar.flush()
        tar.seek(0)
        marker = Marker(name, *_size_and_sha256(tar), records=tuple(records))
        fs.put_file(tar.name, f"{path}/{name}.tar")
    write_atomically(f"{root}/{name}.json", json.dumps(asdict(marker), indent=1).encode())
    return marker


def write_atomically(url: str, contents: bytes) -> None:
    """Write a small file aside and move it into place, so that no reader ever sees half of it."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(fs._parent(path), exist_ok=True)
    fs.pipe_file(f"{path}.part", contents)
    fs.mv(f"{path}.part", path)


def read_markers(root: str, kind: Kind) -> list[Marker]:
    """The committed shards of a root, in order.

    Raises:
        UserError: the root is missing, or holds no committed shard of this kind.
    """
    fs, path = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    if not fs.isdir(path):
        raise UserError(f"there is no folder {root}; name the output of the stage before")
    markers = [
        _parse_marker(found, fs.cat_file(found))
        for found in sorted(fs.ls(path, detail=False))
        if re.fullmatch(rf"{kind}-\d{{6}}\.json", found.rsplit("/", 1)[-1])
    ]
    if not markers:
        raise UserError(f"{root} holds no finished {kind} shard; name the output of the stage before")
    return markers


def read_samples(root: str, name: str) -> Iterator[tuple[str, Sample]]:
    """Stream (uid, sample) from one shard.

    Raises:
        OSError, ValueError, tarfile.TarError: the tar is missing or damaged.
    """
    with fsspec.open(f"{root}/{name}.tar", "rb") as stream:
        files = tar_file_expander([{"url": name, "stream": stream}])
        for sample in group_by_keys(files):
            yield sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}


def damage(root: str, marker: Marker) -> str:
    """What is wrong with a committed shard's tar: one sentence, or an empty string when nothing is."""
    try:
        with fsspec.open(f"{root}/{marker.name}.tar", "rb") as tar:
            size, sha256 = _size_and_sha256(tar)
    except FileNotFoundError:
        return "the tar is missing"
    if size != marker.size:
        return f"the tar has {size:,} bytes, its marker says {marker.size:,}"
    if sha256 != marker.sha256:
        return "the tar's sha256 is not the one in its marker"
    return ""


def view_names(sample: Sample) -> list[str]:
    """The image entries of a view sample, in the order of its cameras."""
    return sorted(name for name in sample if name.endswith(".webp"))


def npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npy_array(contents: bytes) -> NDArray[Any]:
    return np.load(io.BytesIO(contents), allow_pickle=False)


def _parse_marker(path: str, contents: bytes) -> Marker:
    try:
        fields = json.loads(contents)
        return Marker(
            str(fields["name"]),
            int(fields["size"]),
            str(fields["sha256"]),
            tuple(Record(**record) for record in fields["records"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no shard marker ({error!r}); delete it to render its shard again") from error


def _size_and_sha256(stream: BinaryIO | Any) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()
