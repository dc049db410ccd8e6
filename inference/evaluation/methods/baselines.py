"""Predict views by baselines: the repeated input, the mean training view, and the nearest training object."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from conf.options import UserError
from inference.evaluation.benchmarks.shard_samples import samples_of
from inference.evaluation.methods.method import Method, Pixels, resized
from inference.evaluation.methods.predictions import prediction_path, write_picture
from inference.evaluation.pairs import Pair, angle_degrees
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.selection import require_resolution
from pipeline.samples import Sample, npy_array, view_names
from pipeline.shards import ShardManifest, read_manifests
from rendering.cameras import Array, camera_centre, cartesian_to_spherical, spherical_to_cartesian
from training.model.picture import decode

SEARCH_SIDE_PX = 32  # side at which pictures are compared
BLOCK_VIEWS = 4096  # training views per comparison


@dataclass(frozen=True)
class Match:
    """The training view that is nearest to an input."""

    folder: str
    uid: str
    view: int


class TrainingViews:
    """The views that a model was trained on.

    Args:
        folders: Folders or URLs of view shards.
        excluded: Objects that are scored, and are left out here.

    Raises:
        UserError: A folder is missing, or has no object that is not scored.
    """

    def __init__(self, folders: Sequence[str], excluded: Collection[str]) -> None:
        self._manifests = {folder: read_manifests(folder, "views") for folder in folders}
        self._excluded = frozenset(excluded)
        for folder, manifests in self._manifests.items():
            if not self._uids(manifests):
                raise UserError(
                    f"training={folder}: all objects are scored; score held-out objects only (split=held_out)"
                )

    def mean_and_matches(self, inputs: Sequence[Pixels], resolution: int) -> tuple[Pixels, list[Match]]:
        """Return the mean view `[R, R, 3]`, and for each input picture the view at the least distance in pixels."""
        queries = np.stack([_small(picture) for picture in inputs])
        least = np.full(len(queries), np.inf, dtype=np.float32)
        matches = [Match("", "", 0)] * len(queries)
        total, views = np.zeros((resolution, resolution, 3)), 0
        for block in self._blocks(resolution):
            total += sum(picture.astype(np.float64) for _, picture in block)
            views += len(block)
            keys = np.stack([_small(picture) for _, picture in block])
            distances = (keys**2).sum(1) - 2 * queries @ keys.T  # without |query|², which is the same for all
            best = distances.argmin(1)
            for i in np.flatnonzero(distances.min(1) < least):
                least[i], matches[i] = distances[i, best[i]], block[best[i]][0]
        return (total / views).round().astype(np.uint8), matches

    def samples(self, matches: Collection[Match]) -> dict[tuple[str, str], Sample]:
        """Return the samples of the matched objects, by folder and uid."""
        samples: dict[tuple[str, str], Sample] = {}
        for folder, manifests in self._manifests.items():
            uids = {match.uid for match in matches if match.folder == folder}
            samples |= {(folder, uid): sample for uid, sample in samples_of(folder, manifests, uids)}
        return samples

    def _uids(self, manifests: Sequence[ShardManifest]) -> set[str]:
        return {uid for manifest in manifests for uid in manifest.uids} - self._excluded

    def _blocks(self, resolution: int) -> Iterator[list[tuple[Match, Pixels]]]:
        block: list[tuple[Match, Pixels]] = []
        count = sum(len(self._uids(manifests)) for manifests in self._manifests.values())
        with tqdm(total=count, desc="training views", unit=" objects") as bar:
            for folder, manifests in self._manifests.items():
                for uid, sample in samples_of(folder, manifests, self._uids(manifests)):
                    bar.update()
                    for view, name in enumerate(view_names(sample)):
                        require_resolution(sample[name], resolution, f"training={folder}")
                        block.append((Match(folder, uid, view), decode(sample[name], resolution)))
                    if len(block) >= BLOCK_VIEWS:
                        yield block
                        block = []
        if block:
            yield block


def repeat_method(resolution: int) -> Method:
    """Return the method that repeats the input view at `resolution`."""
    return Method("repeat", "repeat the input", lambda one, pair: [one.picture(pair.input, resolution)])


def mean_method(mean: Pixels, resolution: int) -> Method:
    """Return the method that always gives the mean training view."""
    picture = resized(mean, resolution)
    return Method("mean", "mean training view", lambda one, pair: [picture])


def write_nearest(views: Sequence[tuple[Path, ScoredObject, Pair]], training: TrainingViews, resolution: int) -> Pixels:
    """Write the pictures of the baseline `nearest`; return the mean training view `[R, R, 3]`.

    Args:
        views: Folder of the set's predictions, object and pair of each picture.
        training: The training views.
        resolution: Side R of the pictures, pixels.
    """
    inputs = [one.picture(pair.input, resolution) for _, one, pair in views]
    mean, matches = training.mean_and_matches(inputs, resolution)
    samples = training.samples(set(matches))
    for (folder, one, pair), match in zip(views, matches, strict=True):
        sample, centres = samples[match.folder, match.uid], one.centres
        picture = view_after_turn(sample, match.view, centres[pair.input], centres[pair.target], resolution)
        write_picture(prediction_path(folder / "nearest", one.uid, pair), picture)
    return mean


def view_after_turn(sample: Sample, matched: int, input_centre: Array, target_centre: Array, resolution: int) -> Pixels:
    """Return the view of a training object that is nearest to its matched view after the turn from input to target.

    Args:
        sample: The training object.
        matched: Index of the view nearest to the input.
        input_centre: Camera centre `[3]` of the input.
        target_centre: Camera centre `[3]` of the target.
        resolution: Side of the view, pixels.
    """
    names, centres = view_names(sample), camera_centre(npy_array(sample["cameras.npy"]))
    camera = turned(centres[matched], input_centre, target_centre)
    best = min(range(len(names)), key=lambda view: angle_degrees(centres[view], camera))
    return decode(sample[names[best]], resolution)


def turned(centre: Array, input_centre: Array, target_centre: Array) -> Array:
    """Return the position `[3]` of a camera at `centre` after the turn from `input_centre` to `target_centre`."""
    (polar, azimuth, radius), start, end = map(cartesian_to_spherical, (centre, input_centre, target_centre))
    return spherical_to_cartesian(polar + end[0] - start[0], azimuth + end[1] - start[1], radius)


def _small(picture: Pixels) -> NDArray[np.float32]:
    """Return a picture reduced to `SEARCH_SIDE_PX`², in [0, 1], as one row."""
    side = min(SEARCH_SIDE_PX, len(picture))
    reduced = Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float32).ravel() / 255
