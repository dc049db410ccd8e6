"""What a run that makes shards ends with: its failures by reason, where the shards are, and the exit code."""

import sys
from collections import Counter
from collections.abc import Collection

from pipeline.shards import Kind, ObjectRecord


def summarise(
    output: str, records: Collection[ObjectRecord], max_failure_rate: float, hint: str, kind: Kind = "views"
) -> int:
    """Print it; 1 where more than `max_failure_rate` of the objects have no views (or latents), else 0.

    `hint` says where to read more about failures; "{reasons}" in it becomes theirs, with commas.
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
