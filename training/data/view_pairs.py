"""What an object in a shard gives as condition and as target: pictures, or what the encoders made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.shards import Sample, npy_array, view_names
from rendering.cameras import camera_centre, cartesian_to_spherical, pose_between

Fields = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Views:
    """One object: the places of its cameras `[views, 3]`, and what each view gives as condition and as target."""

    places: NDArray[np.float64]
    condition: Callable[[int], Fields]
    target: Callable[[int], Fields]

    def pair(self, condition: int, target: int) -> Fields:
        """
        Raises:
            Whatever decoding raises, ValueError for cameras without a pose.
        """
        pose = pose_between(self.places[target], self.places[condition]).astype(np.float32)
        if not np.isfinite(pose).all():
            raise ValueError("cameras that are not finite")
        polar = np.float32(cartesian_to_spherical(self.places[condition])[0])
        return {**self.condition(condition), **self.target(target), "pose": pose, "condition_polar": np.array(polar)}


def open_views(sample: Sample, decode: Callable[[str], NDArray[np.uint8]]) -> Views:
    """A sample of a view shard; `decode` gives the pixels `[R, R, 3]` of a picture by its name, when it is asked for.

    Raises:
        KeyError, ValueError: the sample breaks its contract.
    """
    names = view_names(sample)
    return Views(
        _places(sample, len(names)),
        lambda view: {"condition": decode(names[view])},
        lambda view: {"target": decode(names[view])},
    )


def open_latents(sample: Sample) -> Views:
    """A sample of a latent shard: moments `[views, 2C, h, w]`, embeddings `[views, D]`; nothing is copied.

    Raises:
        KeyError, ValueError: the sample breaks its contract. That a number is none is found when its view is asked for.
    """
    moments, embedding = npy_array(sample["moments.npy"]), npy_array(sample["embedding.npy"])
    if moments.ndim != 4 or embedding.ndim != 2 or len(moments) != len(embedding) or moments.shape[1] % 2:
        raise ValueError(f"moments of shape {moments.shape} with embeddings of shape {embedding.shape}")
    if not moments.dtype == embedding.dtype == np.float16:
        raise ValueError(f"moments of {moments.dtype} with embeddings of {embedding.dtype}, not of float16")
    return Views(
        _places(sample, len(moments)),
        lambda view: {"condition": _finite(moments[view]), "embedding": _finite(embedding[view])},
        lambda view: {"target": _finite(moments[view])},
    )


def choose_pairs(rng: np.random.Generator, views: int, pairs: int) -> list[tuple[int, int]]:
    """(condition, target) indices, two different views each time, every couple as likely as another."""
    conditions = rng.integers(views, size=pairs)
    targets = (conditions + rng.integers(1, views, size=pairs)) % views
    return list(zip(conditions.tolist(), targets.tolist(), strict=True))


def _finite(numbers: NDArray[np.float16]) -> NDArray[np.float16]:
    # All bits of the exponent set: numpy's isfinite takes three times as long over half floats.
    if (numbers.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
        raise ValueError("latents that are not finite")
    return numbers


def _places(sample: Sample, views: int) -> NDArray[np.float64]:
    cameras = npy_array(sample["cameras.npy"])
    if views < 2 or cameras.shape != (views, 3, 4):
        raise ValueError(f"{views} views with cameras of shape {cameras.shape}")
    return camera_centre(cameras)
