"""Summarise a run that makes shards: failures by reason, location of the shards, exit code."""

import sys
from collections import Counter
from collections.abc import Collection

from pipeline.shards import Kind, ObjectRecord


def summarise(
    output: str, records: Collection[ObjectRecord], max_failure_rate: float, hint: str, kind: Kind = "views"
) -> int:
    """Print the summary of a run and return its exit code.

    Args:
        output: Folder or URL of the shards.
        records: Record of each object.
        max_failure_rate: Allowed fraction of failed objects.
        hint: Sentence printed after failures; "{reasons}" in it is replaced by the comma-separated reasons.
        kind: Kind of the shards.

    Returns:
        1 where the fraction of failed objects exceeds `max_failure_rate`, else 0.
    """
    failed = Counter(record.reason for record in records if record.status == "failed")
    rate = failed.total() / len(records)
    if failed:
        ranked = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{count} {reason}" for reason, count in ranked)
        print(f"{failed.total()} of {len(records)} objects have no {kind}: {reasons}")
        print(hint.format(reasons=",".join(reason for reason, _ in ranked)))
    print(f"{kind} of {len(records) - failed.total()} objects in {output}")
    if rate > max_failure_rate:
        allowed = f"max_failure_rate={max_failure_rate:g} allows {max_failure_rate:.0%}"
        print(f"error: {rate:.0%} of the objects failed, {allowed}", file=sys.stderr)
        return 1
    return 0
