"""Predict the target views of pairs, and keep the predictions as pictures, so that a run can be continued."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from conf.options import first_line
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.views import decode_view
from inference.evaluation.methods.method import Method, MissingPicture, Pixels, resized
from inference.evaluation.pairs import Pair, hashed_seed
from inference.evaluation.scored_object import ScoredObject
from inference.novel_view import NovelView
from inference.views.media import png
from pipeline.storage import write_atomically
from rendering.cameras import Array
from training.model.config import Background
from training.model.picture import on_white

MAX_SIDE_PX = 4096  # a larger picture is not read


@dataclass(frozen=True)
class Request:
    """View to predict, as it is sent to the process that predicts it.

    Attributes:
        uid: Object.
        view: Encoded input view.
        benchmark: Benchmark, which says how the view becomes a picture.
        resolution: Side R of the pictures, pixels.
        input_centre: Camera centre `[3]` of the input view.
        target_centre: Camera centre `[3]` of the view to predict; None for a prediction without a pose.
        seed: Seed of the noise.
    """

    uid: str
    view: bytes
    benchmark: Benchmark
    resolution: int
    input_centre: Array
    target_centre: Array | None
    seed: int

    @property
    def picture(self) -> Pixels:
        """Return the input view on white, `[R, R, 3]`."""
        return decode_view(self.view, self.benchmark, self.resolution)


@dataclass(frozen=True)
class Batch:
    """Requests that are predicted together; the last bits of a view depend on their number.

    Attributes:
        number: Index of the batch.
        requests: The requests.
    """

    number: int
    requests: tuple[Request, ...]


Predict = Callable[[Sequence[Request]], Pixels]  # returns views [N, R, R, 3]
Drawn = tuple[int, list[bytes]]  # number of a batch, and PNG files of its pictures


class BatchPredictor(Protocol):
    """Method that predicts views in batches, in this process or in others."""

    @property
    def resolution(self) -> int:
        """Side R of its pictures, pixels."""
        ...

    @property
    def weights(self) -> str:
        """Hash of everything that its predictions depend on, except the settings of the sampler."""
        ...

    @property
    def batch(self) -> int:
        """Number of requests in a batch."""
        ...

    def draw(self, batches: Iterable[Batch]) -> Iterator[Drawn]:
        """Yield the pictures of each batch, in any order."""
        ...


@dataclass(frozen=True)
class Predictor:
    """Method that predicts views in this process.

    Attributes:
        predict: Predicts the views of some requests; a view must not depend on the other requests.
        resolution: Side R of its pictures, pixels.
        weights: Hash of everything that its predictions depend on, except the settings of the sampler.
        batch: Number of requests per call.
        novel_view: The checkpoint, for methods that need more of it than predictions; None if there is none.
    """

    predict: Predict
    resolution: int
    weights: str
    batch: int = 64
    novel_view: NovelView | None = None

    def draw(self, batches: Iterable[Batch]) -> Iterator[Drawn]:
        """Yield the pictures of each batch, in order."""
        for batch in batches:
            yield batch.number, [png(picture) for picture in self.predict(batch.requests)]


# Camera centre given to the model, by method.
TARGET_CENTRES: dict[str, Callable[[ScoredObject, Pair], Array | None]] = {
    "model": lambda one, pair: one.centres[pair.target],
    "wrong_pose": lambda one, pair: np.array(pair.wrong),
    "no_pose": lambda one, pair: None,
}


def prediction_path(folder: Path, uid: str, pair: Pair, sample: int = 0) -> Path:
    """Return the path of a method's picture of a pair below the method's folder."""
    return folder / uid / f"{pair.input:03d}-{pair.target:03d}{f'.{sample}' if sample else ''}.png"


@dataclass(frozen=True)
class Task:
    """A picture to predict: its path, the object, the pair, the method and the number of the sample."""

    path: Path
    object: ScoredObject
    pair: Pair
    method: str
    sample: int

    def request(self, resolution: int, seed: int) -> Request:
        """Return the request; its noise depends on `seed`, uid, pair and sample, and is the same for all methods."""
        one, pair = self.object, self.pair
        words = ("noise", seed, one.uid, pair.input, pair.target, *([self.sample] if self.sample else []))
        target = TARGET_CENTRES[self.method](one, pair)
        noise, view, centre = hashed_seed(*words), one.views[pair.input], one.centres[pair.input]
        return Request(one.uid, view, one.benchmark, resolution, centre, target, noise)


def tasks_of(folder: Path, objects: Sequence[ScoredObject], methods: Sequence[str], samples: int) -> Iterator[Task]:
    """Yield the pictures to predict for some objects.

    Args:
        folder: Folder of the predictions of their set; each method has a folder below it.
        objects: The objects with their pairs.
        methods: Some keys of `TARGET_CENTRES`.
        samples: Samples of each view by the method model; the others have one.
    """
    for one in objects:
        for pair in one.pairs:
            for method in methods:
                for sample in range(samples if method == "model" else 1):
                    path = prediction_path(folder / method, one.uid, pair, sample)
                    yield Task(path, one, pair, method, sample)


def predict_all(tasks: Sequence[Task], predictor: BatchPredictor, seed: int) -> None:
    """Predict the pictures that do not exist yet; tasks of the same path are one.

    A batch with a missing picture is predicted again as a whole, so that the bytes of a picture do not depend on
    interruptions. Its other pictures are kept.

    Args:
        tasks: The pictures.
        predictor: The model.
        seed: Seed of the noise.
    """
    batches = batches_of(tasks, predictor.batch)
    missing = {task.path for batch in batches for task in batch if not is_picture(task.path, predictor.resolution)}
    total = sum(map(len, batches))
    with tqdm(total=total, initial=total - len(missing), desc="predictions", unit=" views", smoothing=0.1) as bar:
        waiting = (
            Batch(number, tuple(task.request(predictor.resolution, seed) for task in batch))
            for number, batch in enumerate(batches)
            if any(task.path in missing for task in batch)
        )
        for number, pictures in predictor.draw(waiting):
            for task, picture in zip(batches[number], pictures, strict=True):
                if task.path in missing:
                    write_atomically(str(task.path), picture)
                    bar.update()


def batches_of(tasks: Sequence[Task], size: int) -> list[list[Task]]:
    """Return the tasks in batches of one method and sample number, tasks of the same path once.

    A batch is the same whatever exists already, and all but the last one of a set and method stay the same if objects,
    methods, samples or sets are added.
    """
    groups: dict[tuple[Path, int], dict[Path, Task]] = {}
    for task in tasks:
        groups.setdefault((task.path.parents[1], task.sample), {}).setdefault(task.path, task)
    ordered = [list(group.values()) for group in groups.values()]
    return [group[start : start + size] for group in ordered for start in range(0, len(group), size)]


def saved_method(name: str, label: str, folder: Path, samples: int, resolution: int) -> Method:
    """Return the method whose pictures are those that `predict_all` or `write_picture` left in a folder.

    Args:
        name: Name of the method.
        label: Display name.
        folder: Folder of the set's predictions.
        samples: Samples of each view.
        resolution: Side of the scored pictures, pixels.
    """

    def pictures(one: ScoredObject, pair: Pair) -> list[Pixels]:
        paths = [prediction_path(folder / name, one.uid, pair, sample) for sample in range(samples)]
        return [resized(read_picture(path), resolution) for path in paths]

    return Method(name, label, pictures)


def mean_of_samples(method: Method) -> Method:
    """Return the method whose picture of a pair is the mean of the samples of another method."""

    def pictures(one: ScoredObject, pair: Pair) -> list[Pixels]:
        return [np.mean(method.pictures(one, pair), axis=0).round().astype(np.uint8)]

    return Method(f"{method.name}_mean", f"{method.label}, mean picture", pictures)


def write_picture(path: Path, picture: Pixels) -> None:
    """Write a picture `[R, R, 3]` as PNG, atomically."""
    write_atomically(str(path), png(picture))


def read_picture(path: Path) -> Pixels:
    """Return the picture `[R, R, 3]` in a PNG file, on white where it is transparent.

    Raises:
        MissingPicture: There is no such file, or it is not a valid picture.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if max(image.size) > MAX_SIDE_PX or image.width != image.height:
                raise MissingPicture(
                    f"{path} has {image.width} × {image.height} pixels, not a square up to {MAX_SIDE_PX}"
                )
            return np.asarray(on_white(image.convert("RGBA"), Background.composite))
    except FileNotFoundError:
        raise MissingPicture(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MissingPicture(f"{path} is damaged: {first_line(error)}") from error


def is_picture(path: Path, resolution: int | None = None) -> bool:
    """Return whether a file is a PNG picture, of `resolution`² pixels if that is given."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return resolution in (None, image.width) and image.width == image.height
    except (OSError, SyntaxError):
        return False
