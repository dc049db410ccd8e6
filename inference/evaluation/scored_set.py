"""The objects of a set under one benchmark, and the methods whose pictures are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark
from inference.evaluation.config import ALL_BENCHMARKS, EvaluateConfig
from inference.evaluation.methods.method import Method, Pixels
from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject, mismatch, read_objects
from inference.evaluation.selection import Selection


@dataclass(frozen=True)
class ScoredSet:
    """The objects of a set under one benchmark.

    Attributes:
        name: Name of the set.
        benchmark: The benchmark.
        objects: Objects with their pairs.
        methods: Methods whose pictures are scored; the others are compared with the first one.
        resolution: Side R of the scored pictures, pixels.
    """

    name: str
    benchmark: Benchmark
    objects: Sequence[ScoredObject]
    methods: Sequence[Method]
    resolution: int

    @property
    def title(self) -> str:
        """Return the name of the set, and of the benchmark if it is one of fixed views."""
        return self.name if self.benchmark.input is None else f"{self.name}, {self.benchmark.name}"

    @property
    def subject(self) -> str:
        """Return the name of the method that the others are compared with."""
        return self.methods[0].name

    def folder(self, root: Path) -> Path:
        """Return the folder of the set's predictions; benchmarks that prepare the input view alike share it."""
        background, resize, usual = self.benchmark.background, self.benchmark.resize, Benchmark("", "", "")
        is_usual = (background, resize) == (usual.background, usual.resize)
        return root / (self.name if is_usual else f"{self.name}.{background}.{resize}")

    def truth(self, one: ScoredObject, pair: Pair) -> Pixels:
        """Return the true picture of a pair, `[R, R, 3]`."""
        return one.picture(pair.target, self.resolution)


Mismatches = dict[tuple[str, str], str]  # by set and benchmark: why the benchmark cannot score the set; empty if it can


def find_mismatches(
    selections: Sequence[Selection], benchmarks: Sequence[Benchmark], config: EvaluateConfig, resolution: int | None
) -> Mismatches:
    """Return why benchmarks cannot score sets.

    Args:
        selections: The sets.
        benchmarks: The benchmarks.
        config: Options of the command.
        resolution: Side of the predictor's pictures, pixels; None without a predictor.

    Raises:
        UserError: No benchmark can score any set; or benchmarks are named, and one of them can score no set, or a set
            fits none of them.
    """
    reasons = {
        (one.name, benchmark.name): mismatch(one, benchmark) or _other_resolution(benchmark, config, resolution)
        for one in selections
        for benchmark in benchmarks
    }
    if config.benchmark != ALL_BENCHMARKS:
        for benchmark in benchmarks:
            found = [reasons[one.name, benchmark.name] for one in selections]
            if all(found):
                raise UserError(f"benchmark={benchmark.name}: {found[0]}")
        for one in selections:
            found = [reasons[one.name, benchmark.name] for benchmark in benchmarks]
            if all(found):
                raise UserError(f"views={one.name}: {found[0]}")
    elif all(reasons.values()):
        raise UserError(f"views={selections[0].name}: {next(iter(reasons.values()))}")
    return reasons


def _other_resolution(benchmark: Benchmark, config: EvaluateConfig, resolution: int | None) -> str:
    side = benchmark.resolution or resolution
    if config.resize or resolution in (None, side):
        return ""
    return (
        f"scores {side}² pixels, the checkpoint draws {resolution}²; give resize=true to resize its pictures, or a "
        "checkpoint of that resolution"
    )


def read_sets(
    selections: Sequence[Selection],
    benchmarks: Sequence[Benchmark],
    mismatches: Mismatches,
    config: EvaluateConfig,
    resolution: int | None,
) -> list[ScoredSet]:
    """Return the sets under each benchmark that can score them, still without methods.

    Args:
        selections: The sets.
        benchmarks: The benchmarks.
        mismatches: Which of them cannot score which set.
        config: Options of the command.
        resolution: Side of the predictor's pictures, pixels; None without a predictor.

    Raises:
        UserError: An object has other cameras than the first one, or a view is too small or damaged.
    """
    sets = []
    for selection in selections:
        allowed = [benchmark for benchmark in benchmarks if not mismatches[selection.name, benchmark.name]]
        objects = read_objects(selection, allowed, config, resolution)
        for benchmark in allowed:
            side = benchmark.resolution or resolution or objects[benchmark.name][0].side
            sets.append(ScoredSet(selection.name, benchmark, objects[benchmark.name], (), side))
    return sets
