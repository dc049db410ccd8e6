"""Predict the target views of pairs, and keep the predictions as pictures, so that a run can be continued."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.evaluation.pairs import Pair, hashed_seed
from inference.evaluation.selection import ScoredObject
from inference.views.media import png
from pipeline.storage import write_atomically
from rendering.cameras import Array

Pixels = NDArray[np.uint8]


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


def prediction_path(root: Path, name: str, method: str, uid: str, pair: Pair) -> Path:
    """Return the path of the picture that `method` predicts for a pair of an object of set `name`."""
    return root / name / method / f"{uid}.{pair.input:03d}-{pair.target:03d}.png"


@dataclass(frozen=True)
class ScoredSet:
    """The objects of a set and the pictures of all methods.

    Attributes:
        name: Name of the set.
        objects: Objects with their pairs.
        predictions: Folder of the predictions of all sets.
        methods: Names of the methods that have a picture for each pair.
        mean: Mean training view, None without the training's views.
    """

    name: str
    objects: list[ScoredObject]
    predictions: Path
    methods: tuple[str, ...]
    mean: Pixels | None

    def picture(self, method: str, one: ScoredObject, pair: Pair) -> Pixels:
        """Return the picture of a method, or of the truth, for a pair."""
        match method:
            case "truth":
                return one.picture(pair.target)
            case "repeat":
                return one.picture(pair.input)
            case "mean":
                assert self.mean is not None
                return self.mean
            case _:
                return read_picture(prediction_path(self.predictions, self.name, method, one.uid, pair))


def predict_all(
    root: Path, sets: dict[str, list[ScoredObject]], predictor: Predictor, methods: Sequence[str], seed: int
) -> None:
    """Predict the target view of each pair with each of `methods`, unless its picture exists.

    The noise of a pair depends on `seed`, the uid and the number of the pair, and is the same for all methods.

    Args:
        root: Folder of the predictions.
        sets: Objects of each set.
        predictor: The model.
        methods: Some keys of `TARGET_CENTRES`.
        seed: Seed of the noise.
    """
    views = [
        (prediction_path(root, name, method, one.uid, pair), one, pair, method)
        for name, objects in sets.items()
        for one in objects
        for pair in one.pairs
        for method in methods
    ]
    missing = [view for view in views if not _is_picture(view[0], predictor.resolution)]
    with tqdm(total=len(views), initial=len(views) - len(missing), desc="predictions", unit=" views") as bar:
        for start in range(0, len(missing), predictor.batch):
            batch = missing[start : start + predictor.batch]
            requests = [
                Request(
                    one.uid,
                    one.picture(pair.input),
                    one.centres[pair.input],
                    TARGET_CENTRES[method](one, pair),
                    hashed_seed("noise", seed, one.uid, pair.number),
                )
                for _, one, pair, method in batch
            ]
            for (path, *_), picture in zip(batch, predictor.predict(requests), strict=True):
                write_picture(path, picture)
                bar.update()


def write_picture(path: Path, picture: Pixels) -> None:
    """Write a picture `[R, R, 3]` as PNG, atomically."""
    write_atomically(str(path), png(picture))


def read_picture(path: Path) -> Pixels:
    """Return the picture `[R, R, 3]` in a PNG file."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def _is_picture(path: Path, resolution: int) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.size == (resolution, resolution)
    except (OSError, SyntaxError):
        return False
