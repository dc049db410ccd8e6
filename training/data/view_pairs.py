"""Open an object of a shard and make pairs of its views, as images or as latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.samples import Sample, npy_array, view_names
from rendering.cameras import camera_centre, cartesian_to_spherical, pose_vector

Fields = dict[str, NDArray[Any]]
Decode = Callable[[bytes], NDArray[np.uint8]]


EXPONENT_MASK = 0x7C00  # of float16; all bits set: infinite or NaN
MAGNITUDE_MASK = 0x7FFF


class Images:
    """The images of one object, each decoded when a pair first needs it.

    Args:
        encoded: WebP file of each view.
        decode: Return the pixels `[R, R, 3]` of a WebP file.
    """

    def __init__(self, encoded: Sequence[bytes], decode: Decode) -> None:
        self._encoded, self._decode = encoded, decode
        self.forget()

    def __call__(self, view: int) -> NDArray[np.uint8]:
        """Return the pixels of a view."""
        pixels = self._pixels[view]
        if pixels is None:
            pixels = self._pixels[view] = self._decode(self._encoded[view])
            self.bytes += pixels.nbytes
        return pixels

    def forget(self) -> None:
        """Free the memory of the pixels."""
        self._pixels: list[NDArray[np.uint8] | None] = [None] * len(self._encoded)
        self.bytes = sum(map(len, self._encoded))


@dataclass(frozen=True)
class Views:
    """The views of one object.

    Attributes:
        cameras: Polar angle, azimuth and radius of the camera of each view.
        condition: Return the fields of view i as condition.
        target: Return the fields of view i as target.
        images: The images behind these fields; None for latents.
    """

    cameras: tuple[tuple[float, float, float], ...]
    condition: Callable[[int], Fields]
    target: Callable[[int], Fields]
    images: Images | None = None

    def pair(self, condition: int, target: int, reflected: bool = False) -> Fields:
        """Return the fields of a pair of views, with the relative pose `[4]` and the condition's polar angle.

        Args:
            condition: View to condition on.
            target: View to predict.
            reflected: Show the object's mirror image: flip the images left to right and turn the other way. For
                images only.

        Raises:
            ValueError: The pose is not finite. Errors of decoding an image are raised as they are.
        """
        polar, azimuth, radius = self.cameras[condition]
        polar_t, azimuth_t, radius_t = self.cameras[target]
        turn = azimuth - azimuth_t if reflected else azimuth_t - azimuth
        pose = pose_vector(polar_t - polar, turn, radius_t - radius).astype(np.float32)
        if not np.isfinite(pose).all():
            raise ValueError("the relative pose is not finite")
        polar_c = np.array(polar, np.float32)
        fields = {**self.condition(condition), **self.target(target)}
        if reflected:
            fields = {name: pixels[:, ::-1] for name, pixels in fields.items()}
        return {**fields, "pose": pose, "condition_polar": polar_c}


def open_views(sample: Sample, decode: Decode) -> Views:
    """Open a sample of a view shard.

    Args:
        sample: Files of the object.
        decode: Return the pixels `[R, R, 3]` of a WebP file; called when a pair is made.

    Raises:
        KeyError: A file is missing.
        ValueError: The cameras do not match the views.
    """
    names = view_names(sample)
    images = Images([sample[name] for name in names], decode)
    return Views(
        _spherical(sample, len(names)),
        lambda view: {"condition": images(view)},
        lambda view: {"target": images(view)},
        images,
    )


def open_latents(sample: Sample) -> Views:
    """Open a sample of a latent shard: float16 moments `[views, 2C, h, w]` and embeddings `[views, D]`.

    Nothing is copied. Values that are not finite raise a ValueError when a pair is made.

    Raises:
        KeyError: A file is missing.
        ValueError: A shape or type is wrong.
    """
    moments, embedding = npy_array(sample["moments.npy"]), npy_array(sample["embedding.npy"])
    if moments.ndim != 4 or embedding.ndim != 2 or len(moments) != len(embedding) or moments.shape[1] % 2:
        raise ValueError(f"moments of shape {moments.shape} with embeddings of shape {embedding.shape}")
    if not moments.dtype == embedding.dtype == np.float16:
        raise ValueError(f"moments of {moments.dtype} with embeddings of {embedding.dtype}, not of float16")
    return Views(
        _spherical(sample, len(moments)),
        lambda view: {"condition": _require_finite(moments[view]), "embedding": _require_finite(embedding[view])},
        lambda view: {"target": _require_finite(moments[view])},
    )


def choose_pairs(rng: np.random.Generator, views: int, pairs: int) -> list[tuple[int, int]]:
    """Return (condition, target) indices of two different views each, uniform over all ordered pairs."""
    conditions = rng.integers(views, size=pairs)
    targets = (conditions + rng.integers(1, views, size=pairs)) % views
    return list(zip(conditions.tolist(), targets.tolist(), strict=True))


def choose_reflected(rng: np.random.Generator, pairs: int) -> list[bool]:
    """Return for each of some pairs whether to reflect it, with a probability of one half."""
    return (rng.random(pairs) < 0.5).tolist()


def _require_finite(numbers: NDArray[np.float16]) -> NDArray[np.float16]:
    # On the bits, because numpy's isfinite takes three times as long for float16.
    if (numbers.view(np.uint16) & MAGNITUDE_MASK).max() >= EXPONENT_MASK:
        raise ValueError("latents that are not finite")
    return numbers


def _spherical(sample: Sample, views: int) -> tuple[tuple[float, float, float], ...]:
    cameras = npy_array(sample["cameras.npy"])
    if views < 2 or cameras.shape != (views, 3, 4):
        raise ValueError(f"{views} views with cameras of shape {cameras.shape}")
    return tuple(map(cartesian_to_spherical, camera_centre(cameras)))
