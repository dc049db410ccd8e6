"""Choose the objects of a benchmark among those of a folder."""

from collections.abc import Collection

from conf.options import UserError
from inference.evaluation.benchmarks.benchmark import Benchmark

MAX_NAMED = 5  # objects in a sentence


def benchmark_objects(benchmark: Benchmark, uids: Collection[str]) -> tuple[str, ...]:
    """Return the objects that a benchmark scores, in the order of their names.

    Without any of the benchmark's own objects, those of the folder are scored; `objects_match` says so.

    Args:
        benchmark: The benchmark.
        uids: Objects of the folder.

    Raises:
        UserError: The folder has no object.
    """
    if not uids:
        raise UserError(f"benchmark={benchmark.name}: the views have no object; give a folder of views")
    own = set(benchmark.objects).intersection(uids)
    return tuple(sorted(own or uids)[: benchmark.max_objects])


def objects_match(benchmark: Benchmark, uids: Collection[str]) -> str:
    """Return why the objects are not those of a benchmark, or an empty string if they are or none are prescribed."""
    if missing := sorted(set(benchmark.objects).difference(uids)):
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        return f"{', '.join(missing[:MAX_NAMED])}{more} of its {len(benchmark.objects)} objects are missing"
    chosen = len(benchmark_objects(benchmark, uids))
    if benchmark.max_objects and chosen < benchmark.max_objects:
        return f"{chosen} objects, the benchmark has {benchmark.max_objects}"
    return ""
