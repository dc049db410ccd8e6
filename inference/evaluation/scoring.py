"""Score every picture of the objects of a set under one benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from inference.evaluation.methods.method import MissingPicture, Pixels
from inference.evaluation.metrics.metric import MIN_SET_PICTURES, Features, PictureMetric, SetMetric
from inference.evaluation.pairs import Pair, angle_degrees, azimuth_change_degrees
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.scored_set import ScoredSet
from inference.evaluation.scores import POSE_WITHIN_DEGREES, SetDistance, ViewScore, best_of_samples
from inference.evaluation.shown_pose import Manifests, nearest_reference, read_references

Key = tuple[str, Pair, str, int]  # uid, pair, method, sample
PoseErrors = Mapping[Key, float]  # degrees


@dataclass(frozen=True)
class _Picture:
    pair: Pair
    method: str
    sample: int
    pixels: Pixels


def shown_poses(scored: ScoredSet, manifests: Manifests) -> PoseErrors:
    """Return the angle in degrees between the target camera and the camera that each picture shows.

    Args:
        scored: The set.
        manifests: Its references; without any, no pose is estimated.
    """
    errors: dict[Key, float] = {}
    objects = {one.uid: one for one in scored.objects} if manifests else {}
    references = read_references(manifests, objects)
    bar = tqdm(references, total=len(objects), desc=f"poses of {scored.title}", unit=" objects", disable=not objects)
    for uid, centres, framed in bar:
        one = objects[uid]
        pictures = [_Picture(pair, "truth", 0, scored.truth(one, pair)) for pair in one.pairs]
        pictures += _pictures(scored, one)[0]
        nearest = nearest_reference([picture.pixels for picture in pictures], framed)
        for picture, index in zip(pictures, nearest, strict=True):
            target = one.centres[picture.pair.target]
            errors[uid, picture.pair, picture.method, picture.sample] = angle_degrees(centres[index], target)
    return errors


def score_set(scored: ScoredSet, metrics: Sequence[PictureMetric], poses: PoseErrors) -> list[ViewScore]:
    """Return the scores of every picture of a set."""
    bar = tqdm(scored.objects, desc=f"scores of {scored.title}", unit=" objects")
    return [score for one in bar for score in score_object(scored, one, metrics, poses)]


def score_object(
    scored: ScoredSet, one: ScoredObject, metrics: Sequence[PictureMetric], poses: PoseErrors
) -> Iterator[ViewScore]:
    """Yield the scores of every picture of an object, and the reason of each missing one, in the order of the pairs."""
    pictures, missing = _pictures(scored, one)
    truths = {pair: scored.truth(one, pair) for pair in one.pairs}
    pixels, true_pixels = [p.pixels for p in pictures], [truths[p.pair] for p in pictures]
    columns = {metric.name: metric.score(pixels, true_pixels) for metric in metrics}
    rows: dict[tuple[Pair, str], list[ViewScore]] = {}
    for index, picture in enumerate(pictures):
        values = {name: column[index] for name, column in columns.items()}
        score = _view_score(scored, one, picture.pair, picture.method, picture.sample, values, poses)
        rows.setdefault((picture.pair, picture.method), []).append(score)
    higher = {metric.name: metric.higher_is_better for metric in metrics}
    for pair in one.pairs:
        if (one.uid, pair, "truth", 0) in poses:
            yield _view_score(scored, one, pair, "truth", 0, {}, poses)
        for method in scored.methods:
            samples = rows.get((pair, method.name), [])
            yield from samples
            if len(samples) > 1:
                yield best_of_samples(samples, higher)
            if (pair, method.name) in missing:
                reason = missing[pair, method.name]
                yield _view_score(scored, one, pair, method.name, 0, {}, {}, reason)


def set_distances(scored: ScoredSet, metrics: Sequence[SetMetric]) -> list[SetDistance]:
    """Return the distances between the pictures of each method and the true ones; methods with too few have none."""
    if not metrics:
        return []
    features: dict[tuple[str, str], list[Features]] = {}
    for one in tqdm(scored.objects, desc=f"features of {scored.title}", unit=" objects"):
        by_method: dict[str, list[Pixels]] = {"truth": [scored.truth(one, pair) for pair in one.pairs]}
        for picture in _pictures(scored, one)[0]:
            by_method.setdefault(picture.method, []).append(picture.pixels)
        for metric in metrics:
            for name, pictures in by_method.items():
                features.setdefault((metric.name, name), []).append(metric.features(pictures))
    distances = []
    for metric in metrics:
        true = np.concatenate(features[metric.name, "truth"])
        for method in scored.methods:
            predicted = np.concatenate(features.get((metric.name, method.name), [true[:0]]))
            if min(len(predicted), len(true)) >= MIN_SET_PICTURES:
                distance = metric.distance(predicted, true)
                counts = len(predicted), len(true)
                distances.append(
                    SetDistance(scored.benchmark.name, scored.name, method.name, metric.name, distance, *counts)
                )
    return distances


def _pictures(scored: ScoredSet, one: ScoredObject) -> tuple[list[_Picture], dict[tuple[Pair, str], str]]:
    """Return the pictures of all methods of an object, and the reasons of the missing ones."""
    pictures, missing = list[_Picture](), dict[tuple[Pair, str], str]()
    for pair in one.pairs:
        for method in scored.methods:
            try:
                samples = method.pictures(one, pair)
            except MissingPicture as error:
                missing[pair, method.name] = str(error)
                continue
            pictures += [_Picture(pair, method.name, sample, pixels) for sample, pixels in enumerate(samples)]
    return pictures, missing


def _view_score(
    scored: ScoredSet,
    one: ScoredObject,
    pair: Pair,
    method: str,
    sample: int,
    values: Mapping[str, float],
    poses: PoseErrors,
    missing: str = "",
) -> ViewScore:
    truth_error = poses.get((one.uid, pair, "truth", 0))
    return ViewScore(
        scored.benchmark.name,
        scored.name,
        one.uid,
        pair.input,
        pair.target,
        angle_degrees(one.centres[pair.input], one.centres[pair.target]),
        azimuth_change_degrees(one.centres[pair.target], one.centres[pair.input]),
        method,
        sample,
        values,
        poses.get((one.uid, pair, method, sample)),
        None if truth_error is None else truth_error <= POSE_WITHIN_DEGREES,
        missing,
    )
