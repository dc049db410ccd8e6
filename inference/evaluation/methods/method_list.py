"""List the methods whose pictures of a set are scored."""

from collections.abc import Sequence
from pathlib import Path

from inference.evaluation.config import EvaluateConfig
from inference.evaluation.methods.baselines import TrainingViews, mean_method, repeat_method, write_nearest
from inference.evaluation.methods.external import external_method
from inference.evaluation.methods.method import Method, Pixels
from inference.evaluation.methods.oracle import oracle_method
from inference.evaluation.methods.predictions import mean_of_samples, saved_method
from inference.evaluation.scored_set import ScoredSet

LABELS = {
    "model": "model",
    "wrong_pose": "model, wrong pose",
    "no_pose": "model without pose (image variation)",
    "sjc_i": "SJC-I (a field by the model without pose)",
}


def methods_of(
    scored: ScoredSet, root: Path, config: EvaluateConfig, with_model: bool, mean: Pixels | None
) -> list[Method]:
    """Return the methods of a set, the one that the others are compared with first.

    Args:
        scored: The set.
        root: Folder of the predictions.
        config: Options of the command.
        with_model: Whether a checkpoint predicted pictures.
        mean: Mean training view; None without training views.

    Raises:
        UserError: A folder of predictions, or of the oracle's meshes, is missing or incomplete.
    """
    folder, side, methods = scored.folder(root), scored.resolution, list[Method]()
    if with_model:
        model = saved_method("model", LABELS["model"], folder, config.samples, side)
        others = [saved_method(name, LABELS[name], folder, 1, side) for name in config.methods if name != "model"]
        methods += [model, *([mean_of_samples(model)] if config.samples > 1 else []), *others]
    for name, predictions in config.prediction_folders.items():
        methods.append(external_method(name, predictions, scored.name, side, config.resize))
    if config.oracle:
        methods.append(oracle_method(config.oracle, [one.uid for one in scored.objects], side))
    methods.append(repeat_method(side))
    if mean is not None:
        methods += [mean_method(mean, side), saved_method("nearest", "nearest training object", folder, 1, side)]
    return methods


def write_mean_and_nearest(sets: Sequence[ScoredSet], root: Path, training: TrainingViews, resolution: int) -> Pixels:
    """Write the pictures of the baseline `nearest` below `root`; return the mean training view `[R, R, 3]`."""
    views = {
        (scored.folder(root), one.uid, pair.input, pair.target): (scored.folder(root), one, pair)
        for scored in sets
        for one in scored.objects
        for pair in one.pairs
    }
    return write_nearest(list(views.values()), training, resolution)
