"""Find the camera that a picture shows, by comparing it with renders of the object from known cameras."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.evaluation.predictions import Pixels
from inference.evaluation.selection import Selection, named, require_resolution, samples_of
from pipeline.shards import ShardManifest, npy_array, read_manifests, view_names
from rendering.cameras import Array, camera_centre
from training.model.picture import decode

FRAMED_PX = 24  # side at which framed pictures are compared
FRAME_MARGIN = 1.1  # side of the frame, in sides of the object's box
BACKGROUND_LEVELS = 8  # a pixel whose channels all lie this close to white is background
INK_LEVELS = 56.0  # further levels until a pixel is fully part of the object
TAIL = 0.01  # share of the object that may lie outside of its box on each side: stray pixels
MASK_WEIGHT = 3.0  # of the squared error of the mask, against that of the three channels


@dataclass(frozen=True)
class References:
    """Renders of the scored objects from a grid of cameras: folders of view shards and their manifests."""

    manifests: dict[str, list[ShardManifest]]
    resolution: int

    def items(self, uids: Collection[str]) -> Iterator[tuple[str, Array, NDArray[np.float32]]]:
        """Yield uid, camera centres `[N, 3]` and framed pictures `[N, F]` of each object that has references."""
        for folder, manifests in self.manifests.items():
            for uid, sample in samples_of(folder, manifests, uids, "references"):
                names = view_names(sample)
                require_resolution(sample[names[0]], self.resolution, f"references={folder}")
                pictures = [decode(sample[name], self.resolution) for name in names]
                yield uid, camera_centre(npy_array(sample["cameras.npy"])), frame(pictures)


def find_references(
    folders: Sequence[str], selections: Sequence[Selection]
) -> tuple[dict[str, list[ShardManifest]], list[str]]:
    """Return the manifests of the reference shards, and the names of the sets that have no references at all.

    Args:
        folders: Folders or URLs of view shards.
        selections: The sets.

    Raises:
        UserError: A folder is missing, no set has references, or only some objects of a set have references.
    """
    manifests = {folder: read_manifests(folder, "views") for folder in folders}
    rendered = {uid for found in manifests.values() for manifest in found for uid in manifest.uids}
    without = [one.name for one in selections if rendered.isdisjoint(one.uids)]
    for one in selections:
        missing = set(one.uids) - rendered
        if missing and (one.name not in without or len(without) == len(selections)):
            raise UserError(
                f"references={','.join(folders)}: {len(missing)} of {len(one.uids)} objects of views={one.folder} are "
                f"missing there ({named(missing)}); render these objects with +experiment=references"
            )
    return manifests, without


def nearest_reference(pictures: Sequence[Pixels], references: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of the reference that each picture resembles most.

    Args:
        pictures: Pictures on white, uint8 `[R, R, 3]` each.
        references: Framed references `[N, F]`.
    """
    framed = frame(pictures)
    distances = (references**2).sum(1) - 2 * framed @ references.T  # without the picture's own square
    return distances.argmin(1)


def frame(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return pictures cropped to the box of their object, so that the distance of the camera does not matter.

    Returns:
        `[N, F]`: colours in [0, 1] and the weighted mask, `FRAMED_PX`² each; their squared difference is the measure.
    """
    return np.stack([_frame(picture) for picture in pictures])


def _frame(picture: Pixels) -> NDArray[np.float32]:
    ink = (255.0 - BACKGROUND_LEVELS - picture.min(axis=2)) / INK_LEVELS
    mask = np.clip(ink, 0, 1).astype(np.float32)
    stacked = np.concatenate([picture.astype(np.float32) / 255, mask[..., None] * np.sqrt(MASK_WEIGHT)], axis=2)
    top, bottom = _extent(mask.sum(axis=1))
    left, right = _extent(mask.sum(axis=0))
    side = max(bottom - top, right - left) * FRAME_MARGIN
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    # PIL's transform leaves what lies outside of the picture at the fill value: white, no object.
    channels = [
        Image.fromarray(channel).transform(
            (FRAMED_PX, FRAMED_PX),
            Image.Transform.EXTENT,
            (x, y, x + side, y + side),
            Image.Resampling.BILINEAR,
            fillcolor=fill,
        )
        for channel, fill in zip(np.moveaxis(stacked, 2, 0), (1.0, 1.0, 1.0, 0.0), strict=True)
    ]
    return np.stack([np.asarray(channel) for channel in channels]).ravel()


def _extent(profile: NDArray[np.float32]) -> tuple[float, float]:
    """Return the ends of the range of `profile` that holds all but its tails; the whole range for an empty one."""
    total = profile.sum()
    if total <= 0:
        return 0.0, float(len(profile))
    shares = np.cumsum(profile) / total
    return float(np.searchsorted(shares, TAIL)), float(np.searchsorted(shares, 1 - TAIL) + 1)
