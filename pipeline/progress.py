"""Compute the progress of a rendering from object records, and store it as `progress.json` next to the shards.

Times are seconds since the epoch. The caller passes the current time; this module reads no clock and contacts no
worker.
"""

import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from conf.options import UserError
from pipeline.shards import ObjectRecord, ShardManifest, find_manifests, read_plan
from pipeline.storage import read_file, write_atomically

State = Literal["running", "finished", "stopped", "stale"]
WINDOW_S, BUCKET_S = 300.0, 10.0  # seconds: window of the recent rates, and resolution of its counts
STALE_AFTER_S = 60.0  # seconds without an update after which a run counts as stale; a live run writes every few seconds


@dataclass(frozen=True)
class Phase:
    """Time of one phase of the work.

    Attributes:
        seconds: Mean seconds per object.
        share: Fraction of the time of all phases.
    """

    seconds: float
    share: float


@dataclass(frozen=True)
class Node:
    """Work of one node in the current session.

    Attributes:
        objects: Number of processed objects.
        busy: Seconds spent on objects, summed over the workers.
        utilisation: `busy` as a fraction of the time in which the workers had a shard assigned.
    """

    objects: int
    busy: float
    utilisation: float


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Counts, `bytes` and `phases` cover all sessions of the run. Rates, `seconds` and `nodes` cover the current session.

    Attributes:
        state: "running", "finished", "stopped", or "stale" for a run that ended without an update.
        started: Start of the first session, in seconds since the epoch.
        updated: Time of this progress, in seconds since the epoch; None for shards without a progress.json.
        total: Number of objects of the run.
        ok: Number of objects with views.
        failed: Number of failed objects by reason, most frequent first.
        views: Number of views written.
        bytes: Size of the samples in bytes.
        seconds: Duration of the session in seconds.
        objects_per_second: Mean rate of objects.
        views_per_second: Mean rate of views.
        recent_objects_per_second: Rate of objects over the last `WINDOW_S` seconds.
        recent_views_per_second: Rate of views over the last `WINDOW_S` seconds.
        seconds_left: Estimated remaining time in seconds, None where it is unknown.
        phases: Time of each phase of the work.
        nodes: Work of each node.
        wandb: Id of the W&B run, empty without one.
    """

    state: State
    started: float
    updated: float | None
    total: int
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    views: int = 0
    bytes: int = 0
    seconds: float = 0.0
    objects_per_second: float = 0.0
    views_per_second: float = 0.0
    recent_objects_per_second: float = 0.0
    recent_views_per_second: float = 0.0
    seconds_left: float | None = None
    phases: dict[str, Phase] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    wandb: str = ""

    @property
    def done(self) -> int:
        """Return the number of processed objects, the failed ones included."""
        return self.ok + sum(self.failed.values())


class Tally:
    """Accumulator of object records, with constant cost per record.

    Args:
        shards: Shard name of each remaining object, by uid.
        earlier: Records of earlier sessions.
        views: Number of views of an object that succeeded.
        now: Start of the session, in seconds since the epoch.
    """

    def __init__(self, shards: dict[str, str], earlier: Iterable[ObjectRecord], views: int, now: float) -> None:
        self._begun, self._views = now, views
        self._shards, self._left = dict(shards), Counter(shards.values())
        self._ok, self._bytes, self._busy = 0, 0, 0.0
        self._failed: Counter[str] = Counter()
        self._phases: Counter[str] = Counter()
        for record in earlier:
            self._count(record)
        self._before = self._ok, self._failed.total()
        self._last: dict[str, float] = {}  # shard in progress -> time of its latest record
        self._nodes: dict[str, list[float]] = {}  # name -> objects, busy seconds, seconds with a shard assigned
        self._recent: deque[list[float]] = deque()  # start of the bucket, objects, objects with views

    def add(self, record: ObjectRecord, now: float) -> str | None:
        """Count a record.

        Args:
            record: Record of an object that was just processed.
            now: Current time, in seconds since the epoch.

        Returns:
            Name of the shard that this record completes, or None.
        """
        shard = self._shards.pop(record.uid, None)
        if shard is None:  # a restarted shard yields its first records a second time
            return None
        self._count(record)
        node = self._nodes.setdefault(record.node, [0, 0.0, 0.0])
        node[0] += 1
        node[1] += record.seconds
        node[2] += max(now - self._last.get(shard, now - record.seconds), 0.0)
        self._last[shard] = now
        if not self._recent or now - self._recent[-1][0] >= BUCKET_S:
            self._recent.append([now // BUCKET_S * BUCKET_S, 0, 0])
        self._recent[-1][1] += 1
        self._recent[-1][2] += record.status == "ok"
        self._left[shard] -= 1
        if self._left[shard]:
            return None
        del self._last[shard], self._left[shard]
        return shard

    @property
    def complete(self) -> bool:
        """Return whether all objects are counted."""
        return not self._shards

    def progress(self, now: float, state: State, started: float | None = None, wandb: str = "") -> Progress:
        """Return the progress at the time `now`.

        Args:
            now: Current time, in seconds since the epoch.
            state: State of the run.
            started: Start of the first session, by default the start of this one.
            wandb: Id of the W&B run, empty without one.
        """
        done = self._ok + self._failed.total()
        seconds = now - self._begun
        ok, failed = self._ok - self._before[0], self._failed.total() - self._before[1]
        recent, recent_ok, span = self._lately(now)
        pace = _rate(recent, span) or _rate(ok + failed, seconds)
        left = 0.0 if not self._shards else len(self._shards) / pace if pace else None
        known = sum(self._phases.values())
        phases = {**self._phases, "other": max(self._busy - known, 0.0)} if self._busy else {}
        return Progress(
            state,
            round(self._begun if started is None else started, 3),
            round(now, 3),
            total=done + len(self._shards),
            ok=self._ok,
            failed=dict(self._failed.most_common()),
            views=self._ok * self._views,
            bytes=self._bytes,
            seconds=round(seconds, 3),
            objects_per_second=_rate(ok + failed, seconds),
            views_per_second=_rate(ok * self._views, seconds),
            recent_objects_per_second=_rate(recent, span),
            recent_views_per_second=_rate(recent_ok * self._views, span),
            seconds_left=left,
            phases={name: Phase(value / done, value / max(self._busy, known)) for name, value in phases.items()},
            nodes={name: _node(*values) for name, values in sorted(self._nodes.items())},
            wandb=wandb,
        )

    def _count(self, record: ObjectRecord) -> None:
        if record.status == "ok":
            self._ok += 1
        else:
            self._failed[record.reason] += 1
        self._bytes += record.bytes
        self._busy += record.seconds
        self._phases.update(record.phases)

    def _lately(self, now: float) -> tuple[float, float, float]:
        """Return the objects and the objects with views of the last `WINDOW_S` seconds, and the seconds covered."""
        since = now // BUCKET_S * BUCKET_S - WINDOW_S + BUCKET_S
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        span = now - max(since, self._begun)
        return sum(bucket[1] for bucket in self._recent), sum(bucket[2] for bucket in self._recent), span


def write(root: str, progress: Progress) -> None:
    """Write `progress.json` at `root` atomically."""
    write_atomically(f"{root}/progress.json", json.dumps(asdict(progress), indent=1).encode())


def read(root: str, now: float) -> Progress:
    """Return the progress of the run at `root`.

    The counts come from `progress.json`, or from the committed shards where the file is missing or its run is stale.

    Args:
        root: Output folder or URL of the run.
        now: Current time, in seconds since the epoch.

    Raises:
        UserError: `root` is not the output of a rendering, or its `progress.json` is invalid.
    """
    fields = read_fields(root)
    if fields is None:
        return _committed(root, now)
    try:
        nodes = {name: Node(**node) for name, node in fields.pop("nodes").items()}
        phases = {name: Phase(**phase) for name, phase in fields.pop("phases").items()}
        progress = Progress(**fields, nodes=nodes, phases=phases)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root}/progress.json: not a valid progress file ({error!r}); delete it") from error
    if progress.state != "running" or now - float(progress.updated or 0) <= STALE_AFTER_S:
        return progress
    # Objects of uncommitted shards were lost with the run, so the counts of progress.json are too high.
    known = _committed(root, now)
    return replace(
        known,
        state="finished" if known.state == "finished" else "stale",
        started=progress.started,
        updated=progress.updated,
        wandb=progress.wandb,
    )


def read_fields(root: str) -> dict[str, Any] | None:
    """Return the fields of `progress.json` at `root`, or None where the file is missing.

    Raises:
        UserError: The file is not valid JSON or lacks a field.
    """
    contents = read_file(f"{root}/progress.json")
    if contents is None:
        return None
    try:
        fields = json.loads(contents)
        float(fields["started"]), float(fields["updated"]), str(fields["wandb"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root}/progress.json: not a valid progress file ({error!r}); delete it") from error
    return fields


def _committed(root: str, now: float) -> Progress:
    plan, manifests = read_plan(root), find_manifests(root, "views")
    if plan is None and not manifests:
        raise UserError(f"path={root}: neither progress.json nor shards; give the output of pipeline.render")
    counted = Tally({}, records(manifests), (plan or {}).get("renderer.views", 0), now).progress(now, "stopped")
    # The plan of an unfinished pipeline.pack of a tar has no number of objects.
    total = counted.done if plan is None else plan.get("objects")
    state: State = "finished" if counted.done == total else "stopped"
    return replace(counted, total=total or counted.done, state=state, updated=None, seconds_left=None)


def records(manifests: Iterable[ShardManifest]) -> Iterable[ObjectRecord]:
    """Return the records of all objects in the shards, in order."""
    return (record for manifest in manifests for record in manifest.records)


def _node(objects: float, busy: float, present: float) -> Node:
    return Node(int(objects), round(busy, 3), min(1.0, busy / present) if present else 0.0)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
