"""Run an evaluation: select objects, predict views, score them and write the results."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from conf.options import UserError
from inference.evaluation.baselines import TrainingViews, view_after_turn
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.measures import psnr_db, ssim
from inference.evaluation.pairs import angle_degrees, azimuth_change_degrees
from inference.evaluation.predictions import (
    Pixels,
    Predictor,
    ScoredSet,
    predict_all,
    prediction_path,
    write_picture,
)
from inference.evaluation.results import left_out, write_results
from inference.evaluation.scores import POSE_WITHIN_DEGREES, ViewScore
from inference.evaluation.selection import ScoredObject, Selection, read_objects, select
from inference.evaluation.shown_pose import Manifests, find_references, nearest_reference, read_references
from pipeline.output import FolderLayout, claimed, json_object
from pipeline.storage import is_local, write_atomically

COMMAND = "inference.evaluate"
RECORD = "evaluation.json"
LAYOUT = FolderLayout(
    record=RECORD,
    is_record=lambda contents: json_object(contents).get("command") == COMMAND,
    writes=r"evaluation\.json|metrics\.json|per_view\.csv|per_object\.csv|report\.html|predictions",
)
Load = Callable[[EvaluateConfig], Predictor]


def evaluate(config: EvaluateConfig, load: Load) -> dict[str, Any]:
    """Score a method on all sets, and write the results into `config.output`.

    Repeat the call to resume an interrupted run: existing predictions are kept.

    Args:
        config: Options of the command; `checkpoint` is for `load` alone.
        load: Returns the method, `load_checkpoint` for a checkpoint. It is called after the input has been checked.

    Returns:
        The contents of metrics.json.

    Raises:
        UserError: An input is missing or damaged, or the output belongs to another run.
    """
    if not is_local(config.output):
        raise UserError(f"output={config.output}: must be a local folder; choose another output")
    with claimed(config.output, LAYOUT):
        selections = select(config)
        references = find_references(config.references, selections)
        training = training_views(config, selections)
        predictor = load(config)
        plan = resume_or_start(config, selections, predictor)
        sets = {one.name: read_objects(one, config, predictor.resolution) for one in selections}
        root = Path(config.output) / "predictions"
        predict_all(root, sets, predictor, config.methods, config.sampling.seed)
        mean = None if training is None else write_baselines(root, sets, training, predictor.resolution)
        methods = [*config.methods, "repeat", *(["mean", "nearest"] if mean is not None else [])]
        scored = [ScoredSet(name, objects, root, tuple(methods), mean) for name, objects in sets.items()]
        shown = [shown_poses(one, references.get(one.name, {}), predictor.resolution) for one in scored]
        scores = [score for one, errors in zip(scored, shown, strict=True) for score in score_set(one, errors)]
        return write_results(config, plan, scored, scores, left_out(config, selections, references))


def resume_or_start(config: EvaluateConfig, selections: Sequence[Selection], predictor: Predictor) -> dict[str, Any]:
    """Write the record of what the predictions depend on, or compare it with the record of the earlier run.

    Raises:
        UserError: The predictions in `output` are of another model, other settings or other views.
    """
    plan: dict[str, Any] = {
        "weights": predictor.weights,
        "resolution": predictor.resolution,
        "seed": config.seed,
        "pairs": config.pairs,
        **{f"sampling.{name}": value for name, value in asdict(config.sampling).items()},
    }
    sets = {one.name: one.listing for one in selections}
    path = Path(config.output) / RECORD
    earlier = json_object(path.read_bytes()) if path.exists() else {}
    for name, value in plan.items() if earlier else ():
        if earlier.get(name) != value:
            raise UserError(
                f"output={config.output}: the run there has {name}={earlier.get(name)}, not {value}; "
                "choose another output"
            )
    earlier_sets = earlier.get("sets", {})
    for name, listing in sets.items():
        if earlier_sets.get(name, listing) != listing:
            raise UserError(f"output={config.output}: the run there has other views {name}; choose another output")
    record = {"command": COMMAND, **plan, "sets": earlier_sets | sets}
    write_atomically(str(path), json.dumps(record, indent=1).encode())
    return plan


def training_views(config: EvaluateConfig, selections: Sequence[Selection]) -> TrainingViews | None:
    """Return the training views without the scored objects; None without `training`."""
    excluded = {uid for selection in selections for uid in selection.candidates}
    return TrainingViews(config.training, excluded) if config.training else None


def write_baselines(
    root: Path, sets: dict[str, list[ScoredObject]], training: TrainingViews, resolution: int
) -> Pixels:
    """Write the pictures of the baseline `nearest` below `root`; return the mean training view `[R, R, 3]`."""
    pairs = [(name, one, pair) for name, objects in sets.items() for one in objects for pair in one.pairs]
    mean, matches = training.mean_and_matches([one.picture(pair.input) for _, one, pair in pairs], resolution)
    samples = training.samples(set(matches))
    for (name, one, pair), match in zip(pairs, matches, strict=True):
        sample, centres = samples[match.folder, match.uid], one.centres
        picture = view_after_turn(sample, match.view, centres[pair.input], centres[pair.target], resolution)
        write_picture(prediction_path(root, name, "nearest", one.uid, pair), picture)
    return mean


Key = tuple[str, int, str]  # uid, pair, method


def shown_poses(scored: ScoredSet, manifests: Manifests, resolution: int) -> dict[Key, float]:
    """Return the angle in degrees between the target camera and the camera that each picture of a set shows.

    Args:
        scored: The set.
        manifests: Its references; without any, no pose is estimated.
        resolution: Side of the pictures, pixels.
    """
    errors: dict[Key, float] = {}
    objects = {one.uid: one for one in scored.objects} if manifests else {}
    references = read_references(manifests, objects, resolution)
    bar = tqdm(references, total=len(objects), desc=f"poses of {scored.name}", unit=" objects", disable=not objects)
    for uid, centres, framed in bar:
        one = objects[uid]
        keys = [(pair, method) for pair in one.pairs for method in ("truth", *scored.methods)]
        nearest = nearest_reference([scored.picture(method, one, pair) for pair, method in keys], framed)
        for (pair, method), index in zip(keys, nearest, strict=True):
            errors[uid, pair.number, method] = angle_degrees(centres[index], one.centres[pair.target])
    return errors


def score_set(scored: ScoredSet, shown: dict[Key, float]) -> Iterator[ViewScore]:
    """Yield the score of every picture of a set."""
    for one in tqdm(scored.objects, desc=f"scores of {scored.name}", unit=" objects"):
        for pair in one.pairs:
            truth = one.picture(pair.target)
            truth_error = shown.get((one.uid, pair.number, "truth"))
            is_clear = None if truth_error is None else truth_error <= POSE_WITHIN_DEGREES
            for method in ("truth", *scored.methods):
                picture = truth if method == "truth" else scored.picture(method, one, pair)
                is_truth = method == "truth"
                error = shown.get((one.uid, pair.number, method))
                if is_truth and error is None:
                    continue
                yield ViewScore(
                    scored.name,
                    one.uid,
                    pair.number,
                    pair.input,
                    pair.target,
                    angle_degrees(one.centres[pair.input], one.centres[pair.target]),
                    azimuth_change_degrees(one.centres[pair.target], one.centres[pair.input]),
                    method,
                    None if is_truth else psnr_db(picture, truth),
                    None if is_truth else ssim(picture, truth),
                    error,
                    is_clear,
                )
