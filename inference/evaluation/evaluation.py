"""Run an evaluation: select objects, predict views, score them and write the results.

views ── select ──▶ objects ── benchmarks ──▶ pairs ── predict ──▶ pictures ── metrics ──▶ scores ──▶ tables, page
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from conf.options import UserError
from inference.evaluation.benchmarks.manifest import benchmark_names, read_benchmark
from inference.evaluation.config import ALL_BENCHMARKS, EvaluateConfig
from inference.evaluation.consistency.consistency import load_consistency_metrics, score_consistency
from inference.evaluation.consistency.consistency_report import report_consistency
from inference.evaluation.consistency.orbits import orbit_tasks
from inference.evaluation.methods.baselines import TrainingViews
from inference.evaluation.methods.method_list import methods_of, write_mean_and_nearest
from inference.evaluation.methods.predictions import TARGET_CENTRES, BatchPredictor, Predictor, predict_all, tasks_of
from inference.evaluation.methods.sjc_i import SJC_I, write_sjc_i
from inference.evaluation.metrics.loading import LoadedMetrics, load_metrics, require_known
from inference.evaluation.protocol import deviations
from inference.evaluation.report.page import report
from inference.evaluation.results import Results, left_out, metrics_record, undefined_distances, write_results
from inference.evaluation.scored_set import ScoredSet, find_mismatches, read_sets
from inference.evaluation.scores import figures
from inference.evaluation.scoring import score_set, set_distances, shown_poses
from inference.evaluation.selection import Selection, select
from inference.evaluation.shown_pose import Manifests, find_references
from pipeline.output import FolderLayout, claimed, json_object
from pipeline.storage import is_local, write_atomically
from training.model.hardware.device import resolve_device

COMMAND = "inference.evaluate"
RECORD = "evaluation.json"
VERSION = 2  # of the pairs and their wrong cameras, on which predictions depend
LAYOUT = FolderLayout(
    record=RECORD,
    is_record=lambda contents: (found := json_object(contents)).get("command") == COMMAND and "kind" not in found,
    writes=r"evaluation\.json|metrics\.json|per_view\.csv|per_object\.csv|consistency\.csv|report\.html|predictions",
)
Load = Callable[[EvaluateConfig], BatchPredictor]


def evaluate(config: EvaluateConfig, load: Load | None) -> dict[str, Any]:
    """Score methods on all sets under all benchmarks, and write the results into `config.output`.

    Repeat the call to resume an interrupted run: existing predictions are kept.

    Args:
        config: Options of the command; `checkpoint` is for `load` alone.
        load: Returns the predictor, `load_predictor` for a checkpoint. It is called after the input has been checked.
            None: score the pictures of other programs, or the oracle, alone.

    Returns:
        The contents of metrics.json.

    Raises:
        UserError: An input is missing or damaged, or the output belongs to another run.
    """
    if not is_local(config.output):
        raise UserError(f"output={config.output}: must be a local folder; choose another output")
    if not load and not config.prediction_folders and not config.oracle:
        raise UserError("checkpoint: is missing; give a checkpoint, or predictions=… or oracle=… alone")
    names = benchmark_names() if config.benchmark == ALL_BENCHMARKS else config.benchmark
    benchmarks = [read_benchmark(name) for name in names]
    require_known(config.metrics)
    with claimed(config.output, LAYOUT):
        selections = select(config, benchmarks)
        references = find_references(config.references, selections)
        training = training_views(config, selections)
        predictor = load(config) if load else None
        resolution = predictor.resolution if predictor else None
        mismatches = find_mismatches(selections, benchmarks, config, resolution)
        sets = read_sets(selections, benchmarks, mismatches, config, resolution)
        metrics, field_metrics = metrics_of(sets, config)
        plan = resume_or_start(config, selections, predictor)
        root = Path(config.output) / "predictions"
        sets = predict(sets, root, predictor, training, config)
        results = score(sets, metrics, references, config, predictor is not None)
        orbits = score_consistency(sets, root, field_metrics, references, config, predictor is not None)
        consistency = report_consistency(orbits, field_metrics.picture_metrics, sets)
        missing = dict.fromkeys([*metrics.missing, *field_metrics.missing, *undefined_distances(results)])
        record = metrics_record(config, plan, results, [*left_out(config, sets, mismatches, references), *missing])
        record |= consistency.record
        consistency.write(Path(config.output))
        write_results(Path(config.output), record, results, report(record, results, consistency.sections))
        return record


def metrics_of(sets: Sequence[ScoredSet], config: EvaluateConfig) -> tuple[LoadedMetrics, LoadedMetrics]:
    """Return the metrics of all benchmarks of the sets, and those of the renders of fields.

    Raises:
        UserError: A file of weights that an option names is not valid.
    """
    side = min(one.resolution for one in sets)
    names = [name for one in sets for name in config.metrics or one.benchmark.metrics]
    device = resolve_device(config.scoring_device)
    return load_metrics(names, config.weights, device, side), load_consistency_metrics(config, side)


def resume_or_start(
    config: EvaluateConfig, selections: Sequence[Selection], predictor: BatchPredictor | None
) -> dict[str, Any]:
    """Write the record of what the predictions depend on, or compare it with the record of the earlier run.

    Raises:
        UserError: The predictions in `output` are of another model, other settings or other views.
    """
    plan: dict[str, Any] = {
        "version": VERSION,
        "weights": predictor.weights if predictor else "",
        "resolution": predictor.resolution if predictor else None,
        "seed": config.seed,
        "pairs": config.pairs,
        **{f"sampling.{name}": value for name, value in asdict(config.sampling).items()},
    }
    sets = {one.name: one.source.listing for one in selections}
    path = Path(config.output) / RECORD
    earlier = json_object(path.read_bytes()) if path.exists() else {}
    for name, value in plan.items() if earlier else ():
        if earlier.get(name) != value:
            difference = _difference(name, earlier.get(name), value)
            raise UserError(f"output={config.output}: the run there {difference}; choose another output")
    earlier_sets = earlier.get("sets", {})
    for name, listing in sets.items():
        if earlier_sets.get(name, listing) != listing:
            raise UserError(f"output={config.output}: the run there has other views {name}; choose another output")
    record = {"command": COMMAND, **plan, "sets": earlier_sets | sets}
    write_atomically(str(path), json.dumps(record, indent=1).encode())
    return plan


def _difference(name: str, before: object, now: object) -> str:
    """Return how an earlier run differs in an entry of its record."""
    match name:
        case "version":
            return "is of another version of this command"
        case "weights" if before and now:
            return "had another checkpoint or precision"
        case "weights":
            return f"had {'a' if before else 'no'} checkpoint"
    return f"has {name}={before}, not {now}"


def training_views(config: EvaluateConfig, selections: Sequence[Selection]) -> TrainingViews | None:
    """Return the training views without the scored objects; None without `training`."""
    excluded = {uid for selection in selections for uid in selection.candidates}
    return TrainingViews(config.training, excluded) if config.training else None


def predict(
    sets: Sequence[ScoredSet],
    root: Path,
    predictor: BatchPredictor | None,
    training: TrainingViews | None,
    config: EvaluateConfig,
) -> list[ScoredSet]:
    """Predict the pictures of the checkpoint and of the baselines below `root`; return the sets with their methods."""
    if predictor:
        methods = [method for method in config.methods if method in TARGET_CENTRES]
        tasks = [task for one in sets for task in tasks_of(one.folder(root), one.objects, methods, config.samples)]
        tasks += orbit_tasks(sets, root, config.consistency)
        predict_all(tasks, predictor, config.sampling.seed)
        if SJC_I in config.methods:
            write_sjc_i(sets, root, config, predictor.novel_view if isinstance(predictor, Predictor) else None)
    resolution = predictor.resolution if predictor else min(one.resolution for one in sets)
    mean = write_mean_and_nearest(sets, root, training, resolution) if training else None
    return [replace(one, methods=methods_of(one, root, config, predictor is not None, mean)) for one in sets]


def score(
    sets: Sequence[ScoredSet],
    metrics: LoadedMetrics,
    references: Mapping[str, Manifests],
    config: EvaluateConfig,
    with_model: bool,
) -> list[Results]:
    """Return the scores of all pictures of each set, and their figures."""
    results = []
    for one in sets:
        names = set(config.metrics or one.benchmark.metrics)
        picture_metrics = [metric for metric in metrics.picture_metrics if metric.name in names]
        set_metrics = [metric for metric in metrics.set_metrics if metric.name in names]
        scores = score_set(one, picture_metrics, shown_poses(one, references.get(one.name, {})))
        distances = set_distances(one, set_metrics)
        of_all = figures(scores, one.subject)
        differing = deviations(one, config, with_model)
        results.append(Results(one, picture_metrics, set_metrics, scores, of_all, distances, differing))
    return results
