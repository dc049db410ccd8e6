"""Compare the fields of the halves of every orbit, and keep the scores so that a run can be continued."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from conf.options import UserError
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.consistency.consistency_scores import ConsistencyScore, KeptScores, read_kept, write_kept
from inference.evaluation.consistency.field_comparison import MAX_NODES, SETTINGS, compare_halves
from inference.evaluation.consistency.orbits import (
    orbit_cameras,
    orbit_folder,
    orbit_methods,
    orbit_of,
    orbit_pictures,
)
from inference.evaluation.methods.method import Method, MissingPicture, Pixels
from inference.evaluation.methods.predictions import write_picture
from inference.evaluation.metrics.loading import LoadedMetrics, load_metrics
from inference.evaluation.metrics.metric import PictureMetric
from inference.evaluation.pairs import angle_degrees, hashed_seed
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.scored_set import ScoredSet
from inference.evaluation.scores import POSE_WITHIN_DEGREES
from inference.evaluation.shown_pose import Manifests, nearest_reference, read_references
from inference.reconstruction.views.fit import side_at
from training.model.hardware.device import resolve_device

METRICS = ("psnr_db", "ssim_uniform7", "lpips_alex")  # of the renders of two fields, as in MVGBench
Shares = Mapping[tuple[str, str], float]  # by uid and method


def load_consistency_metrics(config: EvaluateConfig, resolution: int) -> LoadedMetrics:
    """Load the metrics of renders of at least `resolution`² pixels, or of 96²; none without `consistency`."""
    names = [*METRICS, *(["st_lpips_alex"] if config.weights.st_lpips_alex else [])] if config.consistency else []
    return load_metrics(
        names, config.weights, resolve_device(config.scoring_device), min(resolution, side_at(MAX_NODES))
    )


def score_consistency(
    sets: Sequence[ScoredSet],
    root: Path,
    metrics: LoadedMetrics,
    references: Mapping[str, Manifests],
    config: EvaluateConfig,
    with_model: bool,
) -> list[ConsistencyScore]:
    """Return the scores of the orbits of all objects and methods; none without `consistency`.

    Args:
        sets: The sets with their methods; the pictures of `orbit_tasks` exist.
        root: Folder of the predictions, which the scores are kept in too.
        metrics: Result of `load_consistency_metrics`.
        references: Manifests of the references by the name of the set.
        config: Options of the command.
        with_model: Whether a checkpoint predicted pictures.
    """
    scores = list[ConsistencyScore]()
    for scored in sets if config.consistency else ():
        methods = orbit_methods(scored, root, config, with_model)
        orbits = [orbit_of(one, config.consistency) for one in scored.objects]
        shares = _shares_of_shown_poses(scored, orbits, methods, references.get(scored.name, {}))
        with tqdm(total=len(orbits) * len(methods), desc=f"fields of {scored.title}", unit=" orbits") as bar:
            for orbit in orbits:
                for method in methods:
                    folder = orbit_folder(scored, root, config.consistency) / f"fields-{quote(method.name, safe='')}"
                    score = _score(scored, orbit, method, folder, metrics.picture_metrics, config.seed)
                    share = shares.get((orbit.uid, method.name))
                    known = {} if share is None else {"pose_within_20": share}
                    scores.append(replace(score, values={**score.values, **known}))
                    bar.update()
    return scores


def _score(
    scored: ScoredSet,
    orbit: ScoredObject,
    method: Method,
    folder: Path,
    metrics: Sequence[PictureMetric],
    seed: int,
) -> ConsistencyScore:
    """Return the scores of one orbit, from `folder` if they are there."""
    input, count = orbit.pairs[0].input, len(orbit.pairs)
    path = folder / orbit.uid / f"{input:03d}-{scored.resolution}px.json"
    strip = path.with_suffix(".png")

    def score(values: Mapping[str, float], missing: str) -> ConsistencyScore:
        names = scored.benchmark.name, scored.name, orbit.uid, input, method.name, count
        return ConsistencyScore(*names, values, missing, None if missing else strip)

    try:
        pictures = orbit_pictures(orbit, method)
    except MissingPicture as error:
        return score({}, str(error))
    key = _key(pictures, orbit.cameras, metrics, seed)
    kept = read_kept(path, key)
    if kept is None or (not kept.missing and not strip.exists()):
        kept = _compare(orbit, pictures, metrics, seed, key, strip)
        write_kept(path, kept)
    return score(kept.values, kept.missing)


def _compare(
    orbit: ScoredObject,
    pictures: Sequence[Pixels],
    metrics: Sequence[PictureMetric],
    seed: int,
    key: str,
    strip: Path,
) -> KeptScores:
    count, start = len(pictures), time.monotonic()
    between = orbit_cameras(orbit.cameras[orbit.pairs[0].input], count, 0.5)
    own_seed = hashed_seed("fields", seed, orbit.uid)
    try:
        compared = compare_halves(pictures, orbit.cameras[-count:], between, metrics, own_seed)
    except UserError as error:
        reason, _, _ = str(error).partition(";")  # the advice is for a single reconstruction
        return KeptScores(key, {}, reason, time.monotonic() - start)
    write_picture(strip, compared.strip)
    return KeptScores(key, compared.values, "", time.monotonic() - start)


def _key(pictures: Sequence[Pixels], cameras: np.ndarray, metrics: Sequence[PictureMetric], seed: int) -> str:
    """Return a hash of all that the scores of an orbit depend on."""
    digest = sha256(json.dumps([asdict(SETTINGS), seed, [one.definition for one in metrics]]).encode())
    for array in (cameras, *pictures):
        digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _shares_of_shown_poses(
    scored: ScoredSet, orbits: Sequence[ScoredObject], methods: Sequence[Method], manifests: Manifests
) -> Shares:
    """Return the share of the pictures of each orbit that show their own camera; none without references."""
    by_uid = {orbit.uid: orbit for orbit in orbits} if manifests else {}
    bar = tqdm(
        read_references(manifests, by_uid),
        total=len(by_uid),
        desc=f"poses of the orbits of {scored.title}",
        unit=" objects",
        disable=not by_uid,
    )
    return {
        (uid, method): share
        for uid, centres, framed in bar
        for method, share in _shown_shares(by_uid[uid], methods, centres, framed)
    }


def _shown_shares(
    orbit: ScoredObject, methods: Sequence[Method], centres: np.ndarray, framed: np.ndarray
) -> Iterator[tuple[str, float]]:
    targets = [orbit.centres[pair.target] for pair in orbit.pairs]
    for method in methods:
        try:
            shown = centres[nearest_reference(orbit_pictures(orbit, method), framed)]
        except MissingPicture:
            continue
        errors = [angle_degrees(*pair) for pair in zip(shown, targets, strict=True)]
        yield method.name, float(np.mean([error <= POSE_WITHIN_DEGREES for error in errors]))
