"""Small renders in the original's layout, and its import and export commands."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline.export
import pipeline.pack
from pipeline.config import ExportConfig, PackConfig
from pipeline.samples import npy_bytes, read_samples
from pipeline.shards import find_manifests, read_manifests
from rendering.cameras import sample_zero123

UIDS = ["0a1b", "c_1", "dd-2", "e3", "f4"]


def png(pixels: np.ndarray) -> bytes:
    contents = io.BytesIO()
    Image.fromarray(pixels).save(contents, "PNG")
    return contents.getvalue()


def pictures(seed: int, views: int = 3, side: int = 16) -> np.ndarray:
    """Return pictures `[views, side, side, 4]` with straight alpha, colours under zero alpha, the last view opaque."""
    pixels = np.random.default_rng(seed).integers(0, 256, (views, side, side, 4), dtype=np.uint8)
    pixels[:, : side // 2, :, 3] = 0
    pixels[-1, ..., 3] = 255
    return pixels


def files_of(seed: int, views: int = 3, side: int = 16) -> dict[str, bytes]:
    # The original's numbers are Blender's, of single precision.
    cameras = sample_zero123(np.random.default_rng(seed), views).astype(np.float32).astype(np.float64)
    return {
        **{f"{i:03d}.png": png(pixels) for i, pixels in enumerate(pictures(seed, views, side))},
        **{f"{i:03d}.npy": npy_bytes(camera) for i, camera in enumerate(cameras)},
    }


def write_folder(root: Path, objects: dict[str, dict[str, bytes]]) -> Path:
    for uid, files in objects.items():
        (root / uid).mkdir(parents=True)
        for name, contents in files.items():
            (root / uid / name).write_bytes(contents)
    return root


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, contents in files:
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return path


def members(objects: dict[str, dict[str, bytes]]) -> list[tuple[str, bytes]]:
    return [(f"views_release/{uid}/{name}", files[name]) for uid, files in objects.items() for name in sorted(files)]


def pack(path, output, **options) -> int:
    return pipeline.pack.main(PackConfig(str(path), str(output), workers=1, **options))


def export(path, output) -> None:
    pipeline.export.main(ExportConfig(str(path), str(output), workers=1))


def tars(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.tar"))}


def samples(root: Path) -> dict[str, dict[str, bytes]]:
    return dict(pair for shard in read_manifests(str(root), "views") for pair in read_samples(str(root), shard.name))


def failures(root: Path) -> dict[str, tuple[str, str]]:
    records = [record for manifest in find_manifests(str(root), "views") for record in manifest.records]
    return {record.uid: (record.reason, record.detail) for record in records if record.status == "failed"}
