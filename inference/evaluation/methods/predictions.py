"""Predict the target views of pairs, and keep the predictions as pictures, so that a run can be continued."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from conf.options import first_line
from inference.evaluation.methods.method import Method, MissingPicture, Pixels, resized
from inference.evaluation.pairs import Pair, hashed_seed
from inference.evaluation.scored_object import ScoredObject
from inference.views.media import png
from pipeline.storage import write_atomically
from rendering.cameras import Array
from training.model.config import Background
from training.model.picture import on_white

MAX_SIDE_PX = 4096  # a larger picture is not read


@dataclass(frozen=True)
class Request:
    """View to predict.

    Attributes:
        uid: Object.
        picture: Input view on white, uint8 `[R, R, 3]`.
        input_centre: Camera centre `[3]` of the input view.
        target_centre: Camera centre `[3]` of the view to predict; None for a prediction without a pose.
        seed: Seed of the noise.
    """

    uid: str
    picture: Pixels
    input_centre: Array
    target_centre: Array | None
    seed: int


Predict = Callable[[Sequence[Request]], Pixels]  # returns views [N, R, R, 3]


@dataclass(frozen=True)
class Predictor:
    """Method that predicts views.

    Attributes:
        predict: Predicts the views of some requests; a view must not depend on the other requests.
        resolution: Side R of its pictures, pixels.
        weights: Hash of everything that its predictions depend on, except the settings of the sampler.
        batch: Number of requests per call.
    """

    predict: Predict
    resolution: int
    weights: str
    batch: int = 64


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
        return Request(
            one.uid, one.picture(pair.input, resolution), one.centres[pair.input], target, hashed_seed(*words)
        )


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


def predict_all(tasks: Sequence[Task], predictor: Predictor, seed: int) -> None:
    """Predict the pictures that do not exist yet; tasks of the same path are one.

    Args:
        tasks: The pictures.
        predictor: The model.
        seed: Seed of the noise.
    """
    by_path = {task.path: task for task in tasks}
    missing = [task for path, task in by_path.items() if not _is_picture(path, predictor.resolution)]
    with tqdm(total=len(by_path), initial=len(by_path) - len(missing), desc="predictions", unit=" views") as bar:
        for start in range(0, len(missing), predictor.batch):
            batch = missing[start : start + predictor.batch]
            pictures = predictor.predict([task.request(predictor.resolution, seed) for task in batch])
            for task, picture in zip(batch, pictures, strict=True):
                write_picture(task.path, picture)
                bar.update()


def saved_method(name: str, label: str, folder: Path, samples: int, resolution: int) -> Method:
    """Return the method whose pictures are those that `predict_all` or `write_picture` left in a folder.

    Args:
        name: Name of the method.
        label: Name for people.
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


def _is_picture(path: Path, resolution: int) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.size == (resolution, resolution)
    except (OSError, SyntaxError):
        return False
