"""Find the camera that a picture shows, by comparing it with renders of the object from known cameras."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.evaluation.predictions import Pixels
from inference.evaluation.selection import Selection, named, require_resolution, samples_of, set_name
from pipeline.shards import ShardManifest, npy_array, read_manifests, view_names
from rendering.cameras import Array, camera_centre
from training.model.picture import decode

FRAMED_PX = 24  # side at which framed pictures are compared
FRAME_MARGIN = 1.1  # side of the frame, in sides of the object's box
BACKGROUND_LEVELS = 8  # a pixel whose channels all lie this close to white is background
INK_LEVELS = 56.0  # further levels until a pixel is fully part of the object
TAIL = 0.01  # share of the object that may lie outside of its box on each side: stray pixels
MASK_WEIGHT = 3.0  # of the squared error of the mask, against that of the three channels


Manifests = dict[str, list[ShardManifest]]  # by folder


def find_references(folders: Sequence[str], selections: Sequence[Selection]) -> dict[str, Manifests]:
    """Return the manifests of the reference shards of each set; sets without any reference are left out.

    If one of `folders` has the name of a set, it alone is for that set; uids of other sets may occur in others.

    Args:
        folders: Folders or URLs of view shards.
        selections: The sets.

    Raises:
        UserError: A folder is missing, no set has references, or only some objects of a set have references.
    """
    manifests = {folder: read_manifests(folder, "views") for folder in folders}
    found = {one.name: _of_set(one.name, manifests) for one in selections}
    missing = {one.name: set(one.uids) - _uids(found[one.name]) for one in selections}
    some = [one for one in selections if len(missing[one.name]) < len(one.uids)]
    for one in some or selections if folders else ():
        if missing[one.name]:
            raise UserError(
                f"references={','.join(found[one.name])}: {len(missing[one.name])} of {len(one.uids)} objects of "
                f"views={one.folder} are missing there ({named(missing[one.name])}); render them with "
                "+experiment=references"
            )
    return {one.name: found[one.name] for one in some}


def read_references(
    manifests: Manifests, uids: Collection[str], resolution: int
) -> Iterator[tuple[str, Array, NDArray[np.float32]]]:
    """Yield uid, camera centres `[N, 3]` and framed pictures `[N, F]` of the references of each object."""
    left = set(uids)
    for folder, found in manifests.items():
        for uid, sample in samples_of(folder, found, left & _uids({folder: found}), "references"):
            names = view_names(sample)
            require_resolution(sample[names[0]], resolution, f"references={folder}")
            pictures = [decode(sample[name], resolution) for name in names]
            left.remove(uid)
            yield uid, camera_centre(npy_array(sample["cameras.npy"])), frame(pictures)


def _of_set(name: str, manifests: Manifests) -> Manifests:
    own = {folder: found for folder, found in manifests.items() if set_name(folder) == name}
    return own or manifests


def _uids(manifests: Manifests) -> set[str]:
    return {uid for found in manifests.values() for manifest in found for uid in manifest.uids}


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
