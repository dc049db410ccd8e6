"""Objects of coloured dots in space, whose views follow by projection."""

import io

import numpy as np
from PIL import Image, ImageDraw

from pipeline.samples import Sample, npy_bytes
from pipeline.shards import ObjectRecord, write_shard
from rendering.cameras import camera_centre, project, sample_zero123


def views_of_dots(
    seed: int, views: int = 4, resolution: int = 32, cameras: np.ndarray | None = None
) -> tuple[list[Image.Image], np.ndarray]:
    """Return RGBA pictures and cameras `[views, 3, 4]` of eight dots, nearer dots over farther ones."""
    rng = np.random.default_rng(seed)
    points, colours = rng.uniform(-0.5, 0.5, (8, 3)), rng.integers(0, 256, (8, 3))
    cameras = sample_zero123(rng, views) if cameras is None else cameras
    return [draw_dots(points, colours, camera, resolution) for camera in cameras], cameras


def draw_dots(points: np.ndarray, colours: np.ndarray, camera: np.ndarray, resolution: int) -> Image.Image:
    picture = Image.new("RGBA", (resolution, resolution))
    draw = ImageDraw.Draw(picture)
    distance = np.linalg.norm(points - camera_centre(camera), axis=1)
    for i in np.argsort(-distance):
        (x, y), r = project(points[i : i + 1], camera, resolution)[0], resolution / 8 / distance[i]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*map(int, colours[i]), 255))
    return picture


def sample_of_dots(seed: int, views: int = 4, resolution: int = 32, cameras: np.ndarray | None = None) -> Sample:
    pictures, cameras = views_of_dots(seed, views, resolution, cameras)
    return {
        **{f"{i:03d}.webp": webp(picture) for i, picture in enumerate(pictures)},
        "cameras.npy": npy_bytes(cameras),
        "meta.json": b"{}",
    }


def webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, exact=True)
    return buffer.getvalue()


def write_dots(
    root,
    objects: int,
    per_shard: int = 4,
    resolution: int = 32,
    views: int = 4,
    cameras: np.ndarray | None = None,
    first_seed: int = 0,
) -> list[str]:
    """Write view shards of `objects` objects to `root`; return their uids."""
    uids = [f"dots-{i:03d}" for i in range(objects)]
    for index, start in enumerate(range(0, objects, per_shard)):
        chosen = range(start, min(start + per_shard, objects))
        samples = [(uids[i], sample_of_dots(first_seed + i, views, resolution, cameras)) for i in chosen]
        write_shard(str(root), f"views-{index:06d}", samples, [ObjectRecord(uids[i], "ok") for i in chosen])
    return uids
