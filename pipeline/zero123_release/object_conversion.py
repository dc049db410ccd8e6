"""Convert objects between the original's layout (PNG) and view samples (lossless WebP) with identical pixels.

Cameras need no conversion. The original stores the world-to-camera rotation and translation of Blender's camera
(`get_3x4_RT_matrix_from_blender`, in which the conversion to OpenCV's axes is commented out). This project uses these
axes too: x right, y up, the camera looks along -z.
"""

import io
import json
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from conf.options import UserError, first_line
from pipeline.samples import UNDECODABLE, Sample, npy_array, npy_bytes, view_names
from pipeline.shards import ObjectRecord
from pipeline.zero123_release.release_layout import ReleasedObject, read_files
from rendering.cameras import FOV_DEGREES
from rendering.failure import RenderFailure
from rendering.quality import ViewStats, view_stats
from rendering.webp import save_lossless

MAX_PIXELS = 4096**2  # per image


def to_sample(item: ReleasedObject, resolution: int | None) -> tuple[Sample, ObjectRecord]:
    """Return the view sample and the record of an object; the sample is empty if the conversion failed.

    Args:
        item: Object in the original's layout.
        resolution: Side of the output images in pixels, or None to keep their size.
    """
    start = time.monotonic()
    try:
        sample = _sample(item, resolution)
    except RenderFailure as failure:
        return {}, ObjectRecord(item.uid, "failed", failure.reason, failure.detail, round(time.monotonic() - start, 3))
    seconds = round(time.monotonic() - start, 3)
    return sample, ObjectRecord(item.uid, "ok", seconds=seconds, bytes=sum(map(len, sample.values())))


def write_object(named: tuple[str, Sample], root: Path) -> None:
    """Write the images and cameras of a (uid, view sample) pair to the folder `root/<uid>` atomically.

    Raises:
        UserError: The sample is damaged.
    """
    uid, sample = named
    part = root / f"{uid}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        names, cameras = view_names(sample), npy_array(sample["cameras.npy"])
        if cameras.shape != (len(names), 3, 4) or not names:
            raise ValueError(f"{len(names)} views with cameras of shape {list(cameras.shape)}")
        for i, (name, camera) in enumerate(zip(names, cameras, strict=True)):
            # Level 1 takes half the time of Pillow's default; files are a sixth larger.
            _picture(name, sample[name], "WEBP").save(part / f"{i:03d}.png", compress_level=1)
            (part / f"{i:03d}.npy").write_bytes(npy_bytes(camera))
        part.rename(root / uid)
    except (RenderFailure, ValueError, KeyError) as error:
        raise UserError(
            f"path: object {uid} is damaged ({error!r}); check the shards with python -m pipeline.verify"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sample(item: ReleasedObject, resolution: int | None) -> Sample:
    files = read_files(item)
    count = len(files) // 2
    if not files or set(files) != {f"{i:03d}.{kind}" for i in range(count) for kind in ("png", "npy")}:
        pngs = sum(name.endswith(".png") for name in files)
        detail = f"{pngs} pictures and {len(files) - pngs} cameras; there should be as many, numbered from 000"
        raise RenderFailure("incomplete", detail)
    cameras = np.stack([_camera(f"{i:03d}.npy", files[f"{i:03d}.npy"]) for i in range(count)])
    views: Sample = {}
    stats: list[ViewStats] = []
    side = 0
    for i in range(count):
        picture = _picture(f"{i:03d}.png", files[f"{i:03d}.png"], "PNG")
        if side not in (0, picture.width):
            raise RenderFailure("unreadable", f"{i:03d}.png has {picture.width}² pixels, earlier views {side}²")
        side = picture.width
        picture = shrink(picture, resolution) if resolution else picture
        stats.append(view_stats(np.asarray(picture)[..., 3]))
        contents = io.BytesIO()
        save_lossless(picture, contents)
        views[f"{i:03d}.webp"] = contents.getvalue()
    # The layout does not record the asset, its licence or the render settings, so these fields are empty.
    meta = {
        **{"uid": item.uid, "source": item.uid, "sha256": "", "license": "", "author": ""},
        **{"fov_deg": FOV_DEGREES, "resolution": resolution or side, "seed": None, "scale": None, "offset": None},
        "coverage": [round(view.coverage, 6) for view in stats],
        "border": [round(view.border, 6) for view in stats],
        **{"verdicts": [], "mesh": "", "renderer": None, "light": None, "device": "", "blender": ""},
    }
    return {**views, "cameras.npy": npy_bytes(cameras), "meta.json": json.dumps(meta, indent=1).encode()}


def _camera(name: str, contents: bytes) -> NDArray[np.float64]:
    """Return the world-to-camera matrix `[3, 4]`."""
    try:
        array = npy_array(contents)
    except ValueError as error:
        raise RenderFailure("unreadable", f"{name}: {first_line(error)}") from error
    if array.shape != (3, 4) or array.dtype.kind != "f":
        raise RenderFailure("unreadable", f"{name}: {array.dtype} {list(array.shape)}, not floats [3, 4]")
    camera = array.astype(np.float64)
    rotation = camera[:, :3]
    if not (np.isfinite(camera).all() and np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3):
        raise RenderFailure("degenerate", f"{name} is not a rotation and translation: {camera.tolist()}")
    return camera


def _picture(name: str, contents: bytes, kind: str) -> Image.Image:
    """Decode a PNG or WebP into a square RGBA image with 8 bits per channel.

    Raises:
        RenderFailure: The image is unreadable, too large, not square or not 8-bit RGBA.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents), formats=[kind]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise RenderFailure("too_large", f"{name} has {image.width} × {image.height} pixels")
                # Pillow also opens 16-bit images as RGBA and drops the low 8 bits.
                straight = kind == "WEBP" or (image.mode == "RGBA" and image.tile[0][3] == "RGBA")
                if image.width != image.height or not straight:
                    detail = f"{name} is {image.width} × {image.height} {image.mode}, not square RGBA of 8 bits"
                    raise RenderFailure("unreadable", detail)
                return image.convert("RGBA")  # Pillow opens a fully opaque WebP as RGB
    except UnidentifiedImageError as error:
        raise RenderFailure("unreadable", f"{name} is not a {kind} file") from error
    except Image.DecompressionBombError as error:
        raise RenderFailure("too_large", f"{name}: {first_line(error)}") from error
    except UNDECODABLE as error:
        raise RenderFailure("unreadable", f"{name}: {first_line(error)}") from error


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """Downsample a square RGBA image to `side` pixels with a box filter on premultiplied alpha.

    Premultiplication keeps the colour of transparent pixels out of the average.

    Raises:
        RenderFailure: The image is smaller than `side`.
    """
    if picture.width < side:
        raise RenderFailure("incomplete", f"the pictures have {picture.width}² pixels, fewer than resolution={side}")
    pixels = np.asarray(picture).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    planes = (Image.fromarray(plane).resize((side, side), Image.Resampling.BOX) for plane in np.moveaxis(pixels, 2, 0))
    small = np.stack([np.asarray(plane) for plane in planes], axis=2)
    small[..., :3] /= np.maximum(small[..., 3:], 1e-6) / 255
    return Image.fromarray((small + 0.5).clip(0, 255).astype(np.uint8))
