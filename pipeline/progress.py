"""How far a rendering is: figures added up from records alone, and `progress.json`, where they lie beside the shards.

Times are seconds since the epoch. Nothing here asks a worker or looks at a clock.
"""

import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from conf.options import UserError
from pipeline.shards import ObjectRecord, ShardManifest, find_markers, read_plan
from pipeline.storage import read_file, write_atomically

State = Literal["running", "finished", "stopped", "stale"]
WINDOW, BUCKET = 300.0, 10.0  # seconds that "recent" spans, and the grain in which they are kept
SILENCE = 60.0  # seconds without a word after which a run is taken for dead; it writes every few seconds


@dataclass(frozen=True)
class Phase:
    """Mean seconds per object, and the share of all seconds."""

    seconds: float
    share: float


@dataclass(frozen=True)
class Node:
    """`busy`: seconds with objects; `utilisation`: their share of the time that its workers had a shard in hand."""

    objects: int
    busy: float
    utilisation: float


@dataclass(frozen=True)
class Progress:
    """`total`, `ok`, `failed`, `views`, `bytes` and `phases` are of all sessions of a run, the rates, `seconds` and
    `nodes` of the current one. `seconds_left` is None where nothing is known yet."""

    state: State
    started: float
    updated: float
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
        return self.ok + sum(self.failed.values())


class Tally:
    """Adds up records, each at the same small cost.

    `shards` names the shard of each object that is still to come, `earlier` are the records of former sessions,
    `views` is how many an object that succeeded has.
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
        self._last: dict[str, float] = {}  # shard in hand -> when its last record came
        self._nodes: dict[str, list[float]] = {}  # name -> objects, busy seconds, seconds with a shard in hand
        self._recent: deque[list[float]] = deque()  # start of a bucket, objects, those of them with views

    def add(self, record: ObjectRecord, now: float) -> str | None:
        """Count a record as it comes; the name of its shard where it is the last of it."""
        shard = self._shards.pop(record.uid, None)
        if shard is None:  # a shard that was begun anew tells of its first objects twice
            return None
        self._count(record)
        node = self._nodes.setdefault(record.node, [0, 0.0, 0.0])
        node[0] += 1
        node[1] += record.seconds
        node[2] += max(now - self._last.get(shard, now - record.seconds), 0.0)
        self._last[shard] = now
        if not self._recent or now - self._recent[-1][0] >= BUCKET:
            self._recent.append([now // BUCKET * BUCKET, 0, 0])
        self._recent[-1][1] += 1
        self._recent[-1][2] += record.status == "ok"
        self._left[shard] -= 1
        if self._left[shard]:
            return None
        del self._last[shard], self._left[shard]
        return shard

    @property
    def complete(self) -> bool:
        return not self._shards

    def progress(self, now: float, state: State, started: float | None = None, wandb: str = "") -> Progress:
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
        """Objects and objects with views of the last WINDOW, and how many seconds that is."""
        since = now // BUCKET * BUCKET - WINDOW + BUCKET
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        span = now - max(since, self._begun)
        return sum(bucket[1] for bucket in self._recent), sum(bucket[2] for bucket in self._recent), span


def write(root: str, progress: Progress) -> None:
    write_atomically(f"{root}/progress.json", json.dumps(asdict(progress), indent=1).encode())


def read(root: str, now: float) -> Progress:
    """What `progress.json` says; where there is none, or its run has died, what the committed shards say.

    Raises:
        UserError: the root is no run.
    """
    fields = read_fields(root)
    if fields is None:
        return _committed(root, now)
    try:
        nodes = {name: Node(**node) for name, node in fields.pop("nodes").items()}
        phases = {name: Phase(**phase) for name, phase in fields.pop("phases").items()}
        progress = Progress(**fields, nodes=nodes, phases=phases)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root}/progress.json is none of this program's ({error!r}); delete it") from error
    if progress.state != "running" or now - progress.updated <= SILENCE:
        return progress
    # What had not been committed when it died is lost, whatever was written last.
    known = _committed(root, now)
    return replace(
        known,
        state="finished" if known.state == "finished" else "stale",
        started=progress.started,
        updated=progress.updated,
        wandb=progress.wandb,
    )


def read_fields(root: str) -> dict[str, Any] | None:
    """The bare contents of `progress.json`, or None where there is none."""
    contents = read_file(f"{root}/progress.json")
    if contents is None:
        return None
    try:
        fields = json.loads(contents)
        float(fields["started"]), float(fields["updated"]), str(fields["wandb"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root}/progress.json is none of this program's ({error!r}); delete it") from error
    return fields


def _committed(root: str, now: float) -> Progress:
    plan, markers = read_plan(root), find_markers(root, "views")
    if plan is None and not markers:
        raise UserError(f"{root} is no rendering: it has neither progress.json nor shards; name the output of one")
    plan = plan or {}
    counted = Tally({}, records(markers), plan.get("renderer.views", 0), now).progress(now, "stopped")
    total = plan.get("objects", counted.done)
    return replace(counted, total=total, state="finished" if counted.done == total else "stopped", seconds_left=None)


def records(markers: Iterable[ShardManifest]) -> Iterable[ObjectRecord]:
    return (record for marker in markers for record in marker.records)


def _node(objects: float, busy: float, present: float) -> Node:
    return Node(int(objects), round(busy, 3), min(1.0, busy / present) if present else 0.0)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
