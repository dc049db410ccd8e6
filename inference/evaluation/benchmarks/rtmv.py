"""Read scenes of RTMV (Tremblay et al. 2022, arXiv 2205.07058): for each frame an OpenEXR picture and a JSON file.

The JSON files are those of NViSII's exporter. Of `camera_data` this reader takes

* `cam2world`, 4 × 4, written column by column, so that the translation is its last row. The axes of the camera are this
  project's: x right, y up, it looks along -z; the world is z up;
* `camera_look_at`, the same camera as two points, which must agree;
* `scene_center_3d_box`, `scene_min_3d_box`, `scene_max_3d_box`: the box of the scene.

The scene's centre becomes the origin, the longest side of its box 1. The EXR has linear R, G, B with straight A. Values
are cut off at 1, reduced in linear light and encoded as sRGB. The field of view stays that of the file.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image

from conf.options import first_line
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.picture_folders import object_folders
from inference.evaluation.benchmarks.views import DamagedViews, ObjectViews
from rendering.cameras import Array
from rendering.webp import save_lossless
from training.model.picture import MAX_SIDE_PX

FIRST = "00000.exr"
RESOLUTION = 256  # pixels, for benchmarks that have none
MAX_FRAMES = 1000
MAX_JSON_BYTES = 16 * 2**20
MAX_EXR_BYTES = 512 * 2**20
MAX_CHANNELS = 8
TOLERANCE = 1e-3  # of rotations and unit vectors


class InvalidFrame(ValueError):
    """A frame does not have the format above."""


def find_scenes(root: Path) -> dict[str, Path]:
    """Return the folder of each scene below `root`, by uid; raises as `object_folders`."""
    return object_folders(root, [FIRST])


def scene_files(folder: Path) -> list[Path]:
    """Return the pictures and cameras of a scene, in order."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".exr", ".json") and path.stem.isdecimal())


def read_scene(root: str, uid: str, folder: Path, benchmarks: Sequence[Benchmark]) -> ObjectViews:
    """Return the views of a scene.

    Args:
        root: Folder of all scenes, for messages.
        uid: The scene.
        folder: Its folder.
        benchmarks: Benchmarks that the views are for. The frames that they use are read, all frames if one of them has
            no fixed views; pictures get the largest of their resolutions.

    Raises:
        DamagedViews: A file is missing or does not have the format.
    """
    frames = _frames(folder)
    if all(benchmark.input is not None for benchmark in benchmarks):
        used = 1 + max(max(benchmark.input or 0, *benchmark.targets) for benchmark in benchmarks)
        frames = frames[:used]
    resolution = max(benchmark.resolution or RESOLUTION for benchmark in benchmarks)
    pictures, cameras = [], []
    for frame in frames:
        try:
            cameras.append(read_camera(frame.with_suffix(".json")))
            pictures.append(read_picture(frame, resolution))
        except InvalidFrame as error:
            raise DamagedViews(root, uid, str(error)) from None
    return ObjectViews(uid, tuple(pictures), np.stack(cameras))


def _frames(folder: Path) -> list[Path]:
    """Return the pictures 00000.exr, 00001.exr … up to the first that does not exist."""
    frames: list[Path] = []
    while len(frames) < MAX_FRAMES and (path := folder / f"{len(frames):05d}.exr").is_file():
        frames.append(path)
    return frames


def read_camera(path: Path) -> Array:
    """Return the extrinsics `[3, 4]` of a frame in the normalised world.

    Args:
        path: JSON file.

    Raises:
        InvalidFrame: The file is missing or does not have the format.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_JSON_BYTES + 1)
        if len(contents) > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES:,} bytes")
        data = json.loads(contents)["camera_data"]
        matrix = _numbers(data, "cam2world", (4, 4)).T
        least, centre, greatest = (_numbers(data, f"scene_{name}_3d_box", (3,)) for name in ("min", "center", "max"))
        size = float((greatest - least).max())
    except FileNotFoundError:
        raise InvalidFrame(f"{path.name} is missing") from None
    except (OSError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidFrame(f"{path.name}: not a camera of RTMV ({first_line(error)})") from None
    except ValueError as error:
        raise InvalidFrame(f"{path.name}: {first_line(error)}") from None
    rotation = matrix[:3, :3]
    is_rotation = np.abs(rotation.T @ rotation - np.eye(3)).max() < TOLERANCE and np.linalg.det(rotation) > 0
    if not is_rotation or np.abs(matrix[3] - [0, 0, 0, 1]).max() > TOLERANCE:
        raise InvalidFrame(f"{path.name}: cam2world is not a rotation and translation, written column by column")
    if not size > 0:
        raise InvalidFrame(f"{path.name}: the box of the scene has no size")
    _require_look_at(path.name, data, rotation)
    position = (matrix[:3, 3] - centre) / size
    return np.concatenate([rotation.T, -(rotation.T @ position)[:, None]], axis=1)


def _require_look_at(name: str, data: dict[str, Any], rotation: Array) -> None:
    """Raise `InvalidFrame` if the camera looks in another direction than `camera_look_at` of its file says."""
    if "camera_look_at" not in data:
        return
    try:
        eye, at = (_numbers(data["camera_look_at"], key, (3,)) for key in ("eye", "at"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidFrame(f"{name}: camera_look_at: {first_line(error)}") from None
    distance = float(np.linalg.norm(at - eye))
    if distance > 0 and np.abs((at - eye) / distance + rotation[:, 2]).max() > 10 * TOLERANCE:
        raise InvalidFrame(f"{name}: cam2world looks in another direction than camera_look_at")


def _numbers(data: Any, key: str, shape: tuple[int, ...]) -> Array:
    """Return a field of numbers as an array.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: The field is missing, or not finite numbers of this shape.
    """
    array = np.array(data[key], dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{key} is not an array {list(shape)} of finite numbers")
    return array


def read_picture(path: Path, resolution: int) -> bytes:
    """Return the picture of a frame as lossless WebP with straight alpha.

    Args:
        path: EXR file.
        resolution: Side in pixels; a smaller picture keeps its size.

    Raises:
        InvalidFrame: The file is missing or does not have the format.
    """
    channels = np.clip(np.nan_to_num(_read_exr(path)), 0, 1)
    channels[:3] *= channels[3]  # the mean of pixels weighs colours by their opacity
    if resolution < channels.shape[1]:
        channels = np.stack([_reduced(plane, resolution) for plane in channels])
    channels[:3] = linear_to_srgb(np.clip(channels[:3] / np.maximum(channels[3], 1e-6), 0, 1))
    pixels = np.moveaxis((channels * 255 + 0.5).clip(0, 255).astype(np.uint8), 0, 2)
    contents = io.BytesIO()
    save_lossless(Image.fromarray(np.ascontiguousarray(pixels)), contents)
    return contents.getvalue()


def linear_to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values in [0, 1] with the transfer function of sRGB (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _reduced(plane: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the means of a plane `[H, H]` over the pixels of a smaller one `[side, side]`."""
    return np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BOX))


def _read_exr(path: Path) -> NDArray[np.float32]:
    """Return the channels R, G, B, A `[4, H, H]` of an EXR file; A is 1 without such a channel.

    Raises:
        InvalidFrame: The file is damaged, too large, not square, or has no colours.
    """
    try:
        if path.stat().st_size > MAX_EXR_BYTES:
            raise InvalidFrame(f"{path.name} has more than {MAX_EXR_BYTES:,} bytes")
        file = OpenEXR.File(str(path), header_only=True)
        _require_size(path.name, file.header(), len(file.parts))
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
        planes = [channels[name].pixels for name in ("R", "G", "B")]
        planes.append(channels["A"].pixels if "A" in channels else np.ones_like(planes[0]))
        return np.stack(planes).astype(np.float32)
    except KeyError as error:
        raise InvalidFrame(f"{path.name}: has no {error}") from None
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InvalidFrame):
            raise
        raise InvalidFrame(f"{path.name}: not a readable EXR file ({first_line(error)})") from None


def _require_size(name: str, header: dict[str, Any], parts: int) -> None:
    """Raise `InvalidFrame` unless the file is one square picture of bounded size."""
    (left, top), (right, bottom) = (np.asarray(corner, dtype=np.int64).tolist() for corner in header["dataWindow"])
    width, height, channels = right - left + 1, bottom - top + 1, len(header["channels"])
    if width != height or not 0 < width <= MAX_SIDE_PX or channels > MAX_CHANNELS or parts != 1:
        limits = f"must be one square part of at most {MAX_SIDE_PX} pixels and {MAX_CHANNELS} channels"
        raise InvalidFrame(f"{name}: {parts} parts, {width} × {height} pixels, {channels} channels; {limits}")
    if not np.array_equal(header["dataWindow"], header["displayWindow"]):
        raise InvalidFrame(f"{name}: the data window is not the display window")
