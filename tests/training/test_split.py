"""The split of objects into training and validation, and their division among readers."""

from collections import Counter

import pytest

from conf.options import UserError
from pipeline.shards import ObjectRecord, ShardManifest
from training.config import DataConfig
from training.data.sources import Source
from training.data.split import Shard, share, split


def source(*shards: ShardManifest) -> list[Source]:
    return [Source("views", shards)]


def manifest(*names, shard="views-000000") -> ShardManifest:
    return ShardManifest(shard, 0, "", tuple(ObjectRecord(name, "ok") for name in names))


def test_split_depends_on_the_hash_only():
    names = [f"object-{i}" for i in range(2000)]
    halves = split(source(manifest(*names)), 0.1)
    held = set(halves.validation[0].uids)
    assert 150 < len(held) < 250
    assert held.isdisjoint(halves.training[0].uids) and len(held) + len(halves.training[0].uids) == 2000
    # An object stays in its set when the order, its shard or the other objects change.
    some = names[500:100:-1]
    two = source(manifest(*some[:150], shard="a"), manifest(*some[150:], shard="b"))
    assert {uid for shard in split(two, 0.1).validation for uid in shard.uids} == held & set(some)
    # A larger fraction keeps the validation objects of a smaller one.
    assert held < set(split(source(manifest(*names)), 0.3).validation[0].uids)


def test_split_of_few_objects_leaves_no_set_empty():
    for fraction in (0.01, 0.99):
        halves = split(source(manifest("a", "b")), fraction)
        assert [len(halves.training[0].uids), len(halves.validation[0].uids)] == [1, 1]
    assert split(source(manifest("a", "b")), 0.0).validation == ()
    assert split(source(manifest("a")), 0.0).training[0].uids == ("a",)


def test_split_contains_only_rendered_objects():
    mixed = ShardManifest(
        "views-000000",
        0,
        "",
        (ObjectRecord("a", "ok"), ObjectRecord("b", "failed", "timeout"), ObjectRecord("c", "ok")),
    )
    halves = split(source(mixed), 0.5)
    assert {halves.training[0].uids, halves.validation[0].uids} == {("a",), ("c",)}


@pytest.mark.parametrize(
    ("names", "fraction", "sentence"),
    [((), 0.1, "data.path"), (("a",), 0.1, "data.validation_fraction=0.1"), (("a", "b"), 1.0, "fraction=1.0")],
)
def test_invalid_splits_are_refused(names, fraction, sentence):
    with pytest.raises(UserError, match=sentence):
        split(source(manifest(*names)), fraction)


def test_split_excludes_verdicts_and_duplicates():
    records = [
        ObjectRecord("a", "ok", mesh="1"),
        ObjectRecord("b", "ok", verdicts=("flat", "plain"), mesh="2"),
        ObjectRecord("c", "ok"),
        ObjectRecord("d", "ok", mesh="1"),
        ObjectRecord("e", "ok", verdicts=("clipped",)),
        ObjectRecord("f", "ok"),
    ]
    shards = source(
        ShardManifest("views-000000", 0, "", tuple(records[:3])),
        ShardManifest("views-000001", 0, "", tuple(records[3:])),
    )

    def chosen(without, fraction=0.0) -> str:
        halves = split(shards, fraction, without)
        return "".join(sorted(uid for shard in halves.training + halves.validation for uid in shard.uids))

    assert chosen([]) == "abcdef"
    assert chosen(["plain"]) == "acdef"
    assert chosen(["duplicate"]) == "abcef", "the first of a mesh stays; to have no mesh is to be no duplicate"
    assert chosen(["clipped", "flat", "duplicate"]) == chosen(["clipped", "flat", "duplicate"], 0.3) == "acf"
    assert [shard.name for shard in split(shards, 0.0, ["flat"]).training] == ["views-000000", "views-000001"]
    blank = source(ShardManifest("views-000000", 0, "", (ObjectRecord("a", "ok", verdicts=("nearly_blank",)),)))
    with pytest.raises(UserError, match="^data.exclude=nearly_blank: .*1"):
        split(blank, 0.0, ["nearly_blank"])
    with pytest.raises(UserError, match="^data.exclude=ugly: .*nearly_blank"):
        DataConfig(path="x", exclude=["ugly"])


@pytest.mark.parametrize("sizes", [[5], [3, 1, 4], [1] * 9, [2, 7]])
@pytest.mark.parametrize("consumers", [1, 2, 4])
def test_shares_cover_every_object_once(sizes, consumers):
    shards = [Shard("views", f"s{i}", tuple(f"{i}-{j}" for j in range(n))) for i, n in enumerate(sizes)]
    shares = [share(shards, k, consumers) for k in range(consumers)]
    seen = Counter((shard.name, uid) for part in shares for shard in part for uid in shard.uids)
    assert seen == Counter((shard.name, uid) for shard in shards for uid in shard.uids)
    assert all(shares)
