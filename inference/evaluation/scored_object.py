"""Read the views of the objects that are scored, and choose their pairs as the benchmarks ask."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.camera_check import cameras_match, require_cameras
from inference.evaluation.benchmarks.objects import benchmark_objects
from inference.evaluation.benchmarks.views import ObjectViews, decode_view, require_decodable
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.pairs import Pair, choose_pairs, fixed_pairs
from inference.evaluation.selection import Selection, require_resolution
from rendering.cameras import Array, camera_centre


@dataclass(frozen=True)
class ScoredObject:
    """An object, its pairs, and the encoded views of the pairs.

    Attributes:
        uid: Key of the object.
        cameras: Extrinsics `[views, 3, 4]`.
        pairs: The pairs that are scored.
        views: Encoded views by their index; those that occur in a pair.
        benchmark: Benchmark, which says how they become pictures.
    """

    uid: str
    cameras: Array
    pairs: Sequence[Pair]
    views: Mapping[int, bytes]
    benchmark: Benchmark

    @property
    def centres(self) -> Array:
        """Return the camera centres `[views, 3]`."""
        return camera_centre(self.cameras)

    @property
    def side(self) -> int:
        """Return the side of its first view, pixels."""
        with Image.open(io.BytesIO(next(iter(self.views.values())))) as image:
            return image.width

    def picture(self, view: int, resolution: int) -> NDArray[np.uint8]:
        """Return view `view` on white, `[R, R, 3]`."""
        return decode_view(self.views[view], self.benchmark, resolution)


def read_objects(
    selection: Selection, benchmarks: Sequence[Benchmark], config: EvaluateConfig, resolution: int | None
) -> dict[str, list[ScoredObject]]:
    """Return the selected objects of a set for each benchmark, by its name.

    Args:
        selection: The set.
        benchmarks: The benchmarks that its views allow.
        config: Options of the command.
        resolution: Least side of a view where the benchmark does not say it, pixels; None for any.

    Raises:
        UserError: A shard or a view is damaged, or an object has other cameras, too few or too small views.
    """
    wanted = {benchmark.name: benchmark_objects(benchmark, selection.uids) for benchmark in benchmarks}
    found: dict[str, dict[str, ScoredObject]] = {benchmark.name: {} for benchmark in benchmarks}
    for views in selection.source.read(set().union(*wanted.values())):
        for benchmark in benchmarks:
            if views.uid in wanted[benchmark.name]:
                one = scored_object(views, benchmark, config)
                side, folder = benchmark.resolution or resolution or 1, selection.source.folder
                for view, contents in one.views.items():
                    require_decodable(folder, one.uid, view, contents)
                    require_resolution(contents, side, f"views={folder}")
                found[benchmark.name][views.uid] = one
    return {name: [found[name][uid] for uid in uids] for name, uids in wanted.items()}


def mismatch(selection: Selection, benchmark: Benchmark) -> str:
    """Return why the cameras of a set are not those of a benchmark, judged by its first object; empty if they are."""
    first, *_ = selection.source.read(selection.uids[:1])
    return cameras_match(benchmark, first.cameras)


def scored_object(views: ObjectViews, benchmark: Benchmark, config: EvaluateConfig) -> ScoredObject:
    """Return an object with the pairs that a benchmark asks for.

    Raises:
        UserError: The object has other cameras, or too few views.
    """
    uid, centres, count = views.uid, camera_centre(views.cameras), len(views.cameras)
    if benchmark.input is not None:
        require_cameras(benchmark, views.cameras, uid)
        pairs = fixed_pairs(config.seed, uid, centres, benchmark.input, benchmark.targets)
    elif config.pairs > count * (count - 1):
        raise UserError(f"pairs={config.pairs}: {uid} has {count} views, {count * (count - 1)} pairs; use fewer")
    else:
        pairs = choose_pairs(config.seed, uid, centres, config.pairs)
    used = {view for pair in pairs for view in (pair.input, pair.target)}
    pictures = {view: views.pictures[view] for view in sorted(used)}
    return ScoredObject(uid, views.cameras, pairs, pictures, benchmark)
