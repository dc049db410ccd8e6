"""State the protocol of a table, and whether published figures are comparable with it."""

from collections.abc import Sequence

from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.benchmarks.objects import objects_match
from inference.evaluation.config import EvaluateConfig
from inference.evaluation.measures import CONFIDENCE, RESAMPLES
from inference.evaluation.scored_set import ScoredSet
from inference.evaluation.scores import POSE_WITHIN_DEGREES

# Settings common to all figures.
SETTINGS = {
    "pose_within_20": f"share of pictures whose nearest reference lies within {POSE_WITHIN_DEGREES:g} degrees",
    "pose_within_20_clear": "pose_within_20, over views whose true picture lies within that angle",
    "average": "mean over objects of the mean over their pictures",
    "interval": f"{CONFIDENCE:.0%} percentile bootstrap over objects, {RESAMPLES} resamples",
}


def deviations(scored: ScoredSet, config: EvaluateConfig, with_model: bool) -> list[str]:
    """Return a sentence for each respect in which a table differs from the protocol of its benchmark.

    Args:
        scored: The set under the benchmark.
        config: Options of the command.
        with_model: Whether a checkpoint predicted pictures.
    """
    benchmark = scored.benchmark
    sentences = []
    if with_model:
        for name, value in benchmark.sampling.items():
            own = getattr(config.sampling, name)
            if own != value and name != "seed":  # the seed of another program draws other noise
                sentences.append(f"sampling.{name} is {'null' if own is None else f'{own:g}'}, not {value:g}.")
    if reason := objects_match(benchmark, [one.uid for one in scored.objects]):
        sentences.append(f"{reason}.")
    if benchmark.published_objects not in (None, len(scored.objects)):
        sentences.append(
            f"The published scores are of {benchmark.published_objects} objects, these of {len(scored.objects)}."
        )
    if config.metrics and set(config.metrics) != set(benchmark.metrics):
        sentences.append(f"The metrics are {', '.join(config.metrics)}, not {', '.join(benchmark.metrics)}.")
    return sentences


def description(benchmark: Benchmark, pairs: int) -> list[tuple[str, str]]:
    """Return the names and values of everything that a benchmark fixes, for a table."""
    views = f"{benchmark.cameras.views or 'any number of'} views, cameras {benchmark.cameras.kind}"
    chosen = f"{pairs} pairs of each object, chosen by hash" if benchmark.input is None else _views(benchmark)
    sampling = ", ".join(f"{name} {value:g}" for name, value in benchmark.sampling.items())
    return [
        ("benchmark", f"{benchmark.name}: {benchmark.title}"),
        ("source", benchmark.source),
        ("cameras", views),
        ("scored views", chosen),
        ("resolution", f"{benchmark.resolution}²" if benchmark.resolution else "of the model"),
        ("background", f"white, {benchmark.background}"),
        ("resize filter", benchmark.resize),
        ("sampler", sampling or "not fixed"),
    ]


def _views(benchmark: Benchmark) -> str:
    return f"input {benchmark.input}, targets {_ranges(benchmark.targets)}"


def _ranges(numbers: Sequence[int]) -> str:
    """Return `1–3, 7` for 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)
