"""Estimate the camera that a picture shows by comparing it with renders of the object from known cameras."""

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from conf.options import UserError, first_line
from inference.evaluation.benchmarks.shard_samples import object_views, samples_of, unique_uids
from inference.evaluation.benchmarks.views import DamagedViews
from inference.evaluation.config import set_name
from inference.evaluation.methods.method import Pixels, resized
from inference.evaluation.metrics.masks import BACKGROUND_LEVELS
from inference.evaluation.selection import Selection, named
from pipeline.samples import UNDECODABLE
from pipeline.shards import ShardManifest, read_manifests
from rendering.cameras import Array, camera_centre
from training.model.picture import decode

REFERENCE_PX = 64  # side to which pictures and references are brought first
FRAMED_PX = 24  # side at which framed pictures are compared
HALF_SIDE = 2.3  # half the side of the frame, in standard deviations of the object's pixels around their centre
SMOOTHING = 1 / 64  # standard deviation of the blur before framing, in sides of the picture: against noise
SHARPNESS = (0.0, 1.5 / 64, 3 / 64)  # further blurs of the references, for predictions that are blurred
INK_LEVELS = 56.0  # further levels until a pixel is fully part of the object
Manifests = dict[str, list[ShardManifest]]  # by folder


def find_references(folders: Sequence[str], selections: Sequence[Selection]) -> dict[str, Manifests]:
    """Return the manifests of the reference shards of each set; sets without any reference are left out.

    If one of `folders` has the name of a set, it alone is for that set; uids of other sets may occur in others.

    Args:
        folders: Folders or URLs of view shards.
        selections: The sets.

    Raises:
        UserError: A folder is missing or has a uid twice, no set has references, or some objects of a set have none.
    """
    manifests = {folder: read_manifests(folder, "views") for folder in folders}
    for folder, shards in manifests.items():
        unique_uids(folder, shards, "references")
    of_set = {one.name: _of_set(one.name, manifests) for one in selections}
    missing = {one.name: set(one.uids) - _uids(of_set[one.name]) for one in selections}
    some = [one for one in selections if len(missing[one.name]) < len(one.uids)]
    for one in some or selections if folders else ():
        if missing[one.name]:
            raise UserError(
                f"references={','.join(of_set[one.name])}: {len(missing[one.name])} of {len(one.uids)} objects of "
                f"views={one.source.folder} are missing ({named(missing[one.name])}); render them with "
                "+experiment=references"
            )
    return {one.name: of_set[one.name] for one in some}


def read_references(manifests: Manifests, uids: Collection[str]) -> Iterator[tuple[str, Array, NDArray[np.float32]]]:
    """Yield uid, camera centres `[N, 3]` and framed pictures (see `frame_references`) of each object's references.

    Raises:
        UserError: A shard or an object in it is damaged.
    """
    remaining = set(uids)
    for folder, shards in manifests.items():
        for uid, sample in samples_of(folder, shards, remaining & _uids({folder: shards})):
            views = object_views(folder, uid, sample, "references")
            try:
                pictures = [decode(picture, REFERENCE_PX) for picture in views.pictures]
            except UNDECODABLE as error:
                raise DamagedViews(folder, uid, first_line(error), "references") from None
            remaining.remove(uid)
            yield uid, camera_centre(views.cameras), frame_references(pictures)


def _of_set(name: str, manifests: Manifests) -> Manifests:
    own = {folder: shards for folder, shards in manifests.items() if set_name(folder) == name}
    return own or manifests


def _uids(manifests: Manifests) -> set[str]:
    return {uid for shards in manifests.values() for manifest in shards for uid in manifest.uids}


def nearest_reference(pictures: Sequence[Pixels], references: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of the reference that each picture resembles most, at any sharpness.

    The measure is the cosine between framed pictures, which ignores their contrast.

    Args:
        pictures: Pictures on white, uint8 `[R, R, 3]` each.
        references: `frame_references` of `N` references.
    """
    framed = np.stack([frame(resized(picture, REFERENCE_PX)) for picture in pictures])
    return np.einsum("pf,snf->psn", framed, references, optimize=True).max(axis=1).argmax(axis=1)


def frame_references(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
    """Return pictures framed at each of several sharpnesses, `[S, N, F]`."""
    return np.stack([[frame(picture, blur) for picture in pictures] for blur in SHARPNESS])


def frame(picture: Pixels, blur: float = 0.0) -> NDArray[np.float32]:
    """Return the object of a picture, moved to the centre and scaled to one size, so that the radius does not matter.

    Args:
        picture: A picture on white, uint8 `[R, R, 3]`.
        blur: Standard deviation of a blur, in sides of the picture.

    Returns:
        Difference from white `[F]` at `FRAMED_PX`², of norm 1; zero for a blank picture.
    """
    side = len(picture)
    smooth = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(math.hypot(blur, SMOOTHING) * side))
    ink = np.clip((255.0 - BACKGROUND_LEVELS - np.asarray(smooth).min(axis=2)) / INK_LEVELS, 0, 1)
    if not ink.any():
        return np.zeros(3 * FRAMED_PX**2, dtype=np.float32)
    places = np.arange(side) + 0.5
    columns, rows = ink.sum(axis=0) / ink.sum(), ink.sum(axis=1) / ink.sum()
    x, y = columns @ places, rows @ places
    half = HALF_SIDE * math.sqrt(columns @ (places - x) ** 2 + rows @ (places - y) ** 2 + 1 / 6)  # a pixel's own size
    size = (2 * FRAMED_PX, 2 * FRAMED_PX)  # halved below, against aliasing
    box = (x - half, y - half, x + half, y + half)
    framed = smooth.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR, fillcolor="white").reduce(2)
    difference = 1 - np.asarray(framed, dtype=np.float32).ravel() / 255
    return difference / max(float(np.linalg.norm(difference)), 1e-6)
