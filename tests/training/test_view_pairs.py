import json
import logging
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from conf.options import UserError
from pipeline.shards import Marker, Record, npy_bytes, read_markers, read_samples, write_shard
from rendering.cameras import relative_pose
from tests.training.dots import sample_of_dots, views_of_dots, webp, write_dots
from training.config import DataConfig
from training.data import (
    Shard,
    ViewPairs,
    choose_pairs,
    fixed_pairs,
    share,
    split,
    training_batches,
    validation_batches,
)
from training.model.picture import Background, decode, on_white


def config(root, **options) -> DataConfig:
    return replace(DataConfig(path=str(root), batch_size=4, workers=0), **options)


def shards_of(root) -> tuple[Shard, ...]:
    return tuple(Shard(m.name, tuple(m.uids)) for m in read_markers(str(root), "views"))


def pairs_of(root, resolution=32, pairs=2, epochs=1, seed=0, **options) -> list:
    return list(ViewPairs(config(root), shards_of(root), resolution, seed, pairs, epochs=epochs, **options))


def key(pair) -> bytes:
    """Two pairs are the same when every number of theirs is."""
    return b"".join(pair[name].numpy().tobytes() for name in ("condition", "target", "pose"))


# ---- which pairs


def test_pairs_are_two_different_views_and_repeat_with_seed_epoch_and_uid():
    pairs = choose_pairs(0, 0, "a", views=3, pairs=200)
    assert {c for c, _ in pairs} == {t for _, t in pairs} == {0, 1, 2}
    assert all(c != t for c, t in pairs)
    assert pairs == choose_pairs(0, 0, "a", 3, 200)
    assert all(pairs != choose_pairs(*other, 3, 200) for other in [(1, 0, "a"), (0, 1, "a"), (0, 0, "b")])


def test_a_stream_replays_and_every_epoch_is_another(dots):
    first = [key(pair) for pair in pairs_of(dots, epochs=2)]
    assert first == [key(pair) for pair in pairs_of(dots, epochs=2)]
    assert len(first) == 2 * 12 * 2
    assert set(first[:24]) != set(first[24:])
    assert first != [key(pair) for pair in pairs_of(dots, epochs=2, seed=1)]


def test_pictures_and_pose_belong_together(tmp_path):
    """Each pair's two pictures are found among the views by their pixels, its pose follows from their cameras."""
    write_dots(tmp_path, objects=3, views=5)
    for pair in pairs_of(tmp_path):
        found = []
        for seed in range(3):
            pictures, cameras = views_of_dots(seed, views=5)
            pixels = [torch.from_numpy(decode(webp(p), 32, Background.composite)) for p in pictures]
            where = [
                next((i for i, p in enumerate(pixels) if torch.equal(p, as_bytes(pair[name]))), None)
                for name in ("condition", "target")
            ]
            if None not in where:
                found.append(relative_pose(cameras[where[1]], cameras[where[0]]))
        assert len(found) == 1
        assert pair["pose"].tolist() == pytest.approx(found[0].tolist(), abs=1e-6)


def as_bytes(picture):
    assert picture.dtype == torch.float32 and picture.min() >= -1 and picture.max() <= 1
    return ((picture + 1) * 127.5).round().byte().permute(1, 2, 0)


# ---- who trains on what


def markers(*names) -> list[Marker]:
    return [Marker("views-000000", 0, "", tuple(Record(name, "ok") for name in names))]


def test_split_is_by_hash_not_by_place():
    names = [f"object-{i}" for i in range(2000)]
    halves = split(markers(*names), 0.1)
    held = set(halves.validation[0].uids)
    assert 150 < len(held) < 250
    assert held.isdisjoint(halves.training[0].uids) and len(held) + len(halves.training[0].uids) == 2000
    # The same objects in another order, in other shards, next to others, are on the same side.
    some = names[500:100:-1]
    two = [replace(markers(*some[:150])[0], name="a"), replace(markers(*some[150:])[0], name="b")]
    assert {uid for shard in split(two, 0.1).validation for uid in shard.uids} == held & set(some)
    # A larger share keeps what a smaller one held out.
    assert held < set(split(markers(*names), 0.3).validation[0].uids)


def test_split_of_few_objects_leaves_no_side_empty():
    for fraction in (0.01, 0.99):
        halves = split(markers("a", "b"), fraction)
        assert [len(halves.training[0].uids), len(halves.validation[0].uids)] == [1, 1]
    assert split(markers("a", "b"), 0.0).validation == ()
    assert split(markers("a"), 0.0).training[0].uids == ("a",)


def test_split_takes_only_objects_that_were_rendered():
    marker = Marker("views-000000", 0, "", (Record("a", "ok"), Record("b", "failed", "timeout"), Record("c", "ok")))
    halves = split([marker], 0.5)
    assert {halves.training[0].uids, halves.validation[0].uids} == {("a",), ("c",)}


@pytest.mark.parametrize(
    ("names", "fraction", "sentence"),
    [((), 0.1, "hold no object"), (("a",), 0.1, "one object cannot be split"), (("a", "b"), 1.0, "below 1")],
)
def test_split_refuses(names, fraction, sentence):
    with pytest.raises(UserError, match=sentence):
        split(markers(*names), fraction)


def test_split_leaves_out_what_has_a_verdict_and_what_is_there_twice():
    records = [
        Record("a", "ok", mesh="1"), Record("b", "ok", verdicts=("flat", "plain"), mesh="2"), Record("c", "ok"),
        Record("d", "ok", mesh="1"), Record("e", "ok", verdicts=("clipped",)), Record("f", "ok"),
    ]  # fmt: skip
    shards = [Marker("views-000000", 0, "", tuple(records[:3])), Marker("views-000001", 0, "", tuple(records[3:]))]

    def chosen(without, fraction=0.0) -> str:
        halves = split(shards, fraction, without)
        return "".join(sorted(uid for shard in halves.training + halves.validation for uid in shard.uids))

    assert chosen([]) == "abcdef"
    assert chosen(["plain"]) == "acdef"
    assert chosen(["duplicate"]) == "abcef", "the first of a mesh stays; to have no mesh is to be no duplicate"
    assert chosen(["clipped", "flat", "duplicate"]) == chosen(["clipped", "flat", "duplicate"], 0.3) == "acf"
    assert [shard.name for shard in split(shards, 0.0, ["flat"]).training] == ["views-000000", "views-000001"]
    blank = [Marker("views-000000", 0, "", (Record("a", "ok", verdicts=("nearly_blank",)),))]
    with pytest.raises(UserError, match="data.without=nearly_blank leaves no object of 1"):
        split(blank, 0.0, ["nearly_blank"])
    with pytest.raises(UserError, match="data.without=ugly: there is no such word; choose from nearly_blank, "):
        DataConfig(path="x", without=["ugly"])


@pytest.mark.parametrize("sizes", [[5], [3, 1, 4], [1] * 9, [2, 7]])
@pytest.mark.parametrize("consumers", [1, 2, 4])
def test_shares_cover_everything_exactly_once(sizes, consumers):
    shards = [Shard(f"s{i}", tuple(f"{i}-{j}" for j in range(n))) for i, n in enumerate(sizes)]
    shares = [share(shards, k, consumers) for k in range(consumers)]
    seen = Counter((shard.name, uid) for part in shares for shard in part for uid in shard.uids)
    assert seen == Counter((shard.name, uid) for shard in shards for uid in shard.uids)
    assert all(shares)


@pytest.mark.parametrize(("objects", "per_shard"), [(12, 4), (12, 12), (5, 5)])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 4), (2, 2)])
def test_ranks_and_workers_deal_an_epoch_exactly_once(tmp_path, objects, per_shard, ranks, workers):
    write_dots(tmp_path, objects, per_shard)
    shards, options = shards_of(tmp_path), config(tmp_path, workers=workers)
    expected = Counter(key(pair) for pair in pairs_of(tmp_path, pairs=2))
    dealt: Counter = Counter()
    for rank in range(ranks):
        pairs = ViewPairs(options, shards, 32, 0, 2, epochs=1, rank=rank, ranks=ranks)
        loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=workers)
        dealt.update(key(pair) for pair in loader)
    assert dealt == expected


def test_more_workers_than_objects_do_not_hang(tmp_path):
    write_dots(tmp_path, objects=2)
    batches = training_batches(config(tmp_path, workers=4), shards_of(tmp_path), 32, 0, 0, 0, 1)
    assert batches.num_workers == 2
    assert len(list(islice(batches, 5))) == 5
    with pytest.raises(UserError, match="2 training objects cannot feed 3 devices"):
        training_batches(config(tmp_path), shards_of(tmp_path), 32, 0, 0, 0, 3)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_continued_stream_goes_on_where_the_first_stopped(dots, workers):
    def stream(taken):
        return training_batches(config(dots, workers=workers), shards_of(dots), 32, 0, taken, 0, 1)

    whole = [key(batch) for batch in islice(stream(0), 40)]  # more than one epoch, which has 12 batches
    for taken in (1, 5, 12, 25):
        assert [key(batch) for batch in islice(stream(taken), 10)] == whole[taken : taken + 10]


def test_validation_batches_are_the_same_each_time(dots):
    batches = validation_batches(config(dots, validation_pairs=3), shards_of(dots), 32, 0, 0, 1)
    first, again = ([key(batch) for batch in batches] for _ in range(2))
    assert first == again and len(first) == 9


def test_fixed_pairs_come_from_different_objects(dots):
    pairs = fixed_pairs(config(dots), shards_of(dots), 32, 0, 12)
    assert pairs["condition"].shape == (12, 3, 32, 32) and pairs["pose"].shape == (12, 4)
    assert len({picture.numpy().tobytes() for picture in pairs["condition"]}) == 12


# ---- damage


def with_damage(root, **entries) -> None:
    """Four good objects and, in the same shard, one whose sample has other entries."""
    samples = [(f"good-{i}", sample_of_dots(i)) for i in range(4)]
    samples.append(("bad", {**sample_of_dots(9), **entries}))
    write_shard(str(root), "views-000000", samples, [Record(uid, "ok") for uid, _ in samples])


@pytest.mark.parametrize(
    "entries",
    [
        {f"{i:03d}.webp": b"no picture" for i in range(4)},
        {f"{i:03d}.webp": webp(views_of_dots(0)[0][0])[:-40] for i in range(4)},
        {"cameras.npy": b"no array"},
        {"cameras.npy": npy_bytes(np.zeros((3, 3, 4)))},
        {"cameras.npy": npy_bytes(np.full((4, 3, 4), np.nan))},
        {f"{i:03d}.webp": webp(Image.new("RGBA", (5000, 2))) for i in range(4)},
    ],
    ids=["pictures", "cut pictures", "cameras", "too few cameras", "cameras of nan", "giant"],
)
def test_a_damaged_sample_is_dropped_counted_and_named(tmp_path, entries, caplog):
    with_damage(tmp_path, **entries)
    pairs = ViewPairs(config(tmp_path), shards_of(tmp_path), 32, 0, 2, epochs=3)
    with caplog.at_level(logging.WARNING):
        dealt = list(pairs)
    assert len(dealt) == 3 * 2 * 4
    assert all(pair["condition"].min() < pair["condition"].max() for pair in dealt), "no picture is invented"
    assert pairs.dropped.item() == 1
    assert [record.message.split(":")[0] for record in caplog.records] == ["dropped bad"]


def test_drops_in_workers_are_counted(tmp_path):
    with_damage(tmp_path, **{"cameras.npy": b"no array"})
    pairs = ViewPairs(config(tmp_path), shards_of(tmp_path), 32, 0, 2, epochs=1)
    assert len(list(torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=2))) == 8
    assert pairs.dropped.item() == 1


def test_a_cut_off_shard_loses_only_its_end(tmp_path, caplog):
    write_dots(tmp_path, objects=8)
    path = tmp_path / "views-000001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pairs = ViewPairs(config(tmp_path), shards_of(tmp_path), 32, 0, 1, epochs=1)
    dealt = len(list(pairs))
    assert 4 <= dealt < 8 and pairs.dropped.item() == 8 - dealt
    assert "dropped dots-007: 'dots-007' is missing from its shard" in caplog.text


def test_data_without_one_readable_object_is_refused(tmp_path):
    write_dots(tmp_path, objects=4)
    (tmp_path / "views-000000.tar").unlink()
    with pytest.raises(UserError, match="no object of .* can be read"):
        next(iter(ViewPairs(config(tmp_path), shards_of(tmp_path), 32, 0, 1)))


def test_only_the_chosen_views_are_decoded(tmp_path):
    # All but two views of the object are damaged, and the pairs that avoid them go through.
    sample = sample_of_dots(0, views=4)
    sample["002.webp"] = sample["003.webp"] = b"no picture"
    write_shard(str(tmp_path), "views-000000", [("a", sample)], [Record("a", "ok")])
    dealt = pairs_of(tmp_path, pairs=60)
    expected = [pair for pair in choose_pairs(0, 0, "a", 4, 60) if max(pair) < 2]
    assert len(dealt) == len(expected) > 0


# ---- pictures

PIXELS = np.array([[[1.0, 0.0, 0.0, 0.0], [0.2, 0.4, 0.6, 0.5], [0.1, 0.2, 0.3, 1.0]]], dtype=np.float32)


def test_white_composite_by_hand():
    expected = [[1, 1, 1], [0.6, 0.7, 0.8], [0.1, 0.2, 0.3]]
    assert on_white(PIXELS, Background.composite)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_the_originals_white_keeps_straight_colours():
    expected = [[1, 1, 1], [0.2, 0.4, 0.6], [0.1, 0.2, 0.3]]
    assert on_white(PIXELS, Background.original)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_decoding_composites_exactly_and_resizes_smoothly():
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 255))
    picture.putpixel((0, 0), (255, 0, 51, 0))
    picture.putpixel((1, 1), (255, 0, 51, 102))
    pixels = decode(webp(picture), 2, Background.composite)
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 0]], [[0, 0, 0], [255, 153, 173]]]
    stripes = Image.fromarray(np.tile(np.uint8([[0, 255]]), (64, 32))).convert("RGBA")
    small = decode(webp(stripes), 8, Background.composite)
    assert small.shape == (8, 8, 3) and np.abs(small[:, 1:-1].astype(int) - 128).max() <= 8  # grey, not aliased


def test_the_contract_names_views_and_cameras(dots):
    uid, sample = next(read_samples(dots, "views-000000"))
    assert uid == "dots-000" and json.loads(sample["meta.json"]) == {}
