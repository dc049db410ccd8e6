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
from pipeline.samples import npy_bytes, read_samples
from pipeline.shards import ObjectRecord, ShardManifest, write_shard
from rendering.cameras import camera_centre, look_at_origin, relative_pose
from tests.support.dots import draw_dots, sample_of_dots, views_of_dots, webp, write_dots
from tests.support.view_pairs import config, key, shards_of
from training.config import DataConfig, DataKind
from training.data.batches import collate, fixed_pairs, training_batches, validation_batches
from training.data.pair_stream import PairStream
from training.data.sources import Source
from training.data.split import Shard, share, split
from training.data.stream_state import StreamState, merged
from training.data.view_pairs import choose_pairs
from training.model.picture import Background, as_floats, decode, on_white


def pairs_of(root, resolution=32, pairs=2, epochs=1, seed=0, **options) -> list:
    return list(PairStream(config(root), shards_of(root), resolution, seed, pairs, epochs=epochs, **options))


# ---- which pairs


def test_pairs_have_two_different_views():
    counts = Counter(choose_pairs(np.random.default_rng(0), views=3, pairs=6000))
    assert set(counts) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert all(850 < count < 1150 for count in counts.values()), "every couple is as likely as another"
    assert choose_pairs(np.random.default_rng(7), 12, 20) == choose_pairs(np.random.default_rng(7), 12, 20)


def test_a_stream_repeats_with_its_seed_and_epochs_differ(dots):
    first = [key(pair) for pair in pairs_of(dots, epochs=2)]
    assert first == [key(pair) for pair in pairs_of(dots, epochs=2)]
    assert len(first) == 2 * 12 * 2
    assert set(first[:24]) != set(first[24:])
    assert first != [key(pair) for pair in pairs_of(dots, epochs=2, seed=1)]


def test_pose_of_a_pair_matches_its_images(tmp_path):
    """The two images of a pair are identified among the views by their pixels; the pose follows from their cameras."""
    write_dots(tmp_path, objects=3, views=5)
    for pair in pairs_of(tmp_path):
        found = []
        for seed in range(3):
            pictures, cameras = views_of_dots(seed, views=5)
            pixels = [decode(webp(p), 32, Background.composite) for p in pictures]
            where = [
                next((i for i, p in enumerate(pixels) if np.array_equal(p, pair[name])), None)
                for name in ("condition", "target")
            ]
            if None not in where:
                found.append(relative_pose(cameras[where[1]], cameras[where[0]]))
        assert len(found) == 1
        assert pair["pose"].tolist() == pytest.approx(found[0].tolist(), abs=1e-6)


def test_reflected_pairs_show_the_mirror_image_of_the_object(tmp_path):
    """Half of the pairs equal views of the object, half views of its mirror image, drawn from mirrored cameras."""
    write_dots(tmp_path, objects=1, views=6, resolution=64)
    rng, mirror = np.random.default_rng(0), np.array([1, -1, 1])
    points, colours = rng.uniform(-0.5, 0.5, (8, 3)), rng.integers(0, 256, (8, 3))
    cameras = views_of_dots(0, views=6)[1]
    mirrored = [look_at_origin(camera_centre(camera) * mirror) for camera in cameras]
    drawn = [draw_dots(points, colours, camera, 64) for camera in cameras]
    drawn += [draw_dots(points * mirror, colours, camera, 64) for camera in mirrored]
    pixels = np.stack([decode(webp(picture), 64, Background.composite) for picture in drawn]).astype(float)
    cameras = [*cameras, *mirrored]
    reflections = 0
    for pair in PairStream(config(tmp_path, reflect=True), shards_of(tmp_path), 64, 0, 400, epochs=1):
        distances = [np.abs(pixels - pair[name]).mean(axis=(1, 2, 3)) for name in ("target", "condition")]
        target, condition = (int(distance.argmin()) for distance in distances)
        assert max(distance.min() for distance in distances) < 2 < 4 < min(np.partition(d, 1)[1] for d in distances)
        expected = relative_pose(cameras[target], cameras[condition])
        assert pair["pose"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert (target < 6) == (condition < 6)
        reflections += target >= 6
    assert 150 < reflections < 250


def test_reflection_leaves_the_choice_of_views_and_validation_as_they_are(dots):
    plain, reflected = ([*PairStream(config(dots, reflect=r), shards_of(dots), 32, 0, 8, epochs=1)] for r in (0, 1))
    same = [key(a) == key(b) for a, b in zip(plain, reflected, strict=True)]
    assert any(same) and not all(same)
    assert all(np.array_equal(a["pose"][2:], b["pose"][2:]) for a, b in zip(plain, reflected, strict=True))
    shards = shards_of(dots)
    for batches in (validation_batches, lambda *a: [fixed_pairs(*a, count=8)]):
        a, b = ([*batches(config(dots, reflect=r), shards, 32, 0)] for r in (False, True))
        assert all(torch.equal(x["target"], y["target"]) for x, y in zip(a, b, strict=True))


def test_latents_cannot_be_reflected():
    with pytest.raises(UserError, match="data.reflect"):
        DataConfig(path="x", kind=DataKind.latents, reflect=True)


def test_batches_hold_bytes_that_the_model_converts_to_floats(dots):
    pairs = pairs_of(dots)[:5]
    batch = collate(pairs)
    assert batch["condition"].shape == (5, 3, 32, 32) and batch["condition"].dtype is torch.uint8
    assert batch["target"][3, 1, 4, 5] == pairs[3]["target"][4, 5, 1]
    assert batch["pose"].shape == (5, 4) and batch["slot"].tolist() == [0, 1, 2, 3, 4]
    floats = as_floats(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8))
    assert floats.flatten().tolist() == pytest.approx([-1, 1, -0.6]) and torch.equal(as_floats(floats), floats)


# ---- who trains on what


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


@pytest.mark.parametrize(("objects", "per_shard"), [(12, 4), (12, 12), (5, 5)])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 4), (2, 2)])
def test_ranks_and_workers_read_every_pair_of_an_epoch_once(tmp_path, objects, per_shard, ranks, workers):
    write_dots(tmp_path, objects, per_shard)
    shards, options = shards_of(tmp_path), config(tmp_path, workers=workers)
    expected = Counter(key(pair) for pair in pairs_of(tmp_path, pairs=2))
    read_pairs: Counter = Counter()
    for rank in range(ranks):
        pairs = PairStream(options, shards, 32, 0, 2, epochs=1, rank=rank, ranks=ranks)
        loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=workers)
        read_pairs.update(key(pair) for pair in loader)
    assert read_pairs == expected


def test_more_workers_than_objects_do_not_hang(tmp_path):
    write_dots(tmp_path, objects=2)
    batches = training_batches(config(tmp_path, workers=4), shards_of(tmp_path), 32, 0)
    assert batches.num_workers == 2
    assert len(list(islice(batches, 5))) == 5
    with pytest.raises(UserError, match="2 training objects .* 3 devices"):
        training_batches(config(tmp_path), shards_of(tmp_path), 32, 0, ranks=3)


def walk(loader, batches: int, rank=0, ranks=1) -> tuple[list[bytes], list[StreamState]]:
    """Return a number of batches of a rank, and the stream state after each."""
    keys, places = [], [loader.dataset.stream_state]
    for batch in islice(loader, batches):
        keys.append(key(batch))
        places.append(places[-1].after(batch["slot"], rank, ranks))
    return keys, places


@pytest.fixture(scope="module")
def damaged_shards(tmp_path_factory) -> tuple[DataConfig, tuple[Shard, ...]]:
    """Thirteen objects in four shards; of one shard the tar is gone, of another two objects are damaged."""
    root = tmp_path_factory.mktemp("damaged_shards")
    write_dots(root, objects=9, per_shard=3)
    (root / "views-000001.tar").unlink()
    samples = [(f"half-{i}", sample_of_dots(i) | ({"cameras.npy": b""} if i < 2 else {})) for i in range(4)]
    write_shard(str(root), "views-000003", samples, [ObjectRecord(uid, "ok") for uid, _ in samples])
    return config(root, max_bad_rate=1.0, pairs_per_object=3), shards_of(root)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_resumed_stream_continues_exactly_despite_dropped_objects(damaged_shards, workers):
    options, shards = replace(damaged_shards[0], workers=workers), damaged_shards[1]
    whole, places = walk(training_batches(options, shards, 32, 0), 40)
    assert len(set(whole)) == 40
    for done in (1, 5, 12, 25):
        saved = StreamState.from_dict(json.loads(json.dumps(places[done].as_dict())))
        assert saved == places[done] and saved.batches == done
        keys, there = walk(training_batches(options, shards, 32, 0, saved), 10)
        assert keys == whole[done : done + 10]
        assert there == places[done : done + 11]


def test_resuming_reads_no_shard_that_is_already_used(dots, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "training.data.pair_stream.read_samples", lambda root, name: opened.append(name) or read_samples(root, name)
    )
    epochs = 1000 * 12 * 2  # pairs
    stream = PairStream(config(dots), shards_of(dots), 32, 0, 2, stream_state=StreamState(0, (epochs + 9,)))
    assert next(iter(stream))["slot"] == epochs + 9
    assert len(opened) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_the_batches_of_a_run_are_the_same_on_any_number_of_ranks(dots, damaged_shards, damaged):
    options, shards = damaged_shards if damaged else (config(dots), shards_of(dots))
    whole, places = walk(training_batches(replace(options, workers=4), shards, 32, 0), 24)
    for ranks, workers in ((2, 2), (4, 0), (4, 1)):
        some = replace(options, workers=workers)
        loaders = [training_batches(some, shards, 32, 0, StreamState(), rank, ranks) for rank in range(ranks)]
        parts = [walk(loader, 24 // ranks, rank, ranks) for rank, loader in enumerate(loaders)]
        assert [batch for step in zip(*(keys for keys, _ in parts), strict=True) for batch in step] == whole
        # The merged states of the ranks are the state of the run, from which another number of ranks resumes.
        together = merged(there[12 // ranks] for _, there in parts)
        assert together == places[12]
        one = walk(training_batches(replace(options, workers=4), shards, 32, 0, together), 12)[0]
        assert one == whole[12:]


def test_another_number_of_readers_shares_the_used_slots():
    assert StreamState(10, (7, 5, 9)).among(3, 1) == StreamState(10, (7, 5, 9))
    assert StreamState(10, (7, 5, 9)).among(2, 2) == StreamState(10, (10, 11))
    assert StreamState(9, (7, 5)).among(4, 2) == StreamState(8, (3, 3, 3, 3)), "ranks step together"
    assert StreamState().among(4, 2) == StreamState(0, (0, 0, 0, 0))


def test_validation_batches_are_the_same_each_time(dots):
    batches = validation_batches(config(dots, validation_pairs=3), shards_of(dots), 32, 0)
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
    write_shard(str(root), "views-000000", samples, [ObjectRecord(uid, "ok") for uid, _ in samples])


@pytest.mark.parametrize(
    "entries",
    [
        {f"{i:03d}.webp": b"no picture" for i in range(4)},
        {f"{i:03d}.webp": webp(views_of_dots(0)[0][0])[:-40] for i in range(4)},
        {"cameras.npy": b"no array"},
        {"cameras.npy": npy_bytes(np.zeros((3, 3, 4)))},
        {"cameras.npy": npy_bytes(np.full((4, 3, 4), np.nan))},
        {f"{i:03d}.webp": webp(Image.new("RGBA", (5000, 2))) for i in range(4)},
        {"cameras.npy": npy_bytes(np.zeros((4, 3, 4)))[:-200]},
    ],
    ids=["pictures", "cut pictures", "cameras", "too few cameras", "cameras of nan", "giant", "cut cameras"],
)
def test_a_damaged_sample_is_dropped_counted_and_named(tmp_path, entries, caplog):
    with_damage(tmp_path, **entries)
    pairs = PairStream(config(tmp_path), shards_of(tmp_path), 32, 0, 2, epochs=3)
    with caplog.at_level(logging.WARNING):
        read_pairs = list(pairs)
    assert len(read_pairs) == 3 * 2 * 4
    assert all(pair["condition"].min() < pair["condition"].max() for pair in read_pairs), "no picture is invented"
    assert pairs.dropped == 1
    assert [record.message.split(":")[0] for record in caplog.records] == ["dropped bad"]


def test_drops_in_workers_are_counted_once(damaged_shards):
    loader = training_batches(replace(damaged_shards[0], workers=3), damaged_shards[1], 32, 0)
    assert len(list(islice(loader, 60))) == 60  # many epochs, in which every reader reads every object
    assert loader.dataset.dropped == 5


@pytest.mark.parametrize("workers", [0, 3])
def test_too_many_unreadable_objects_end_the_run(damaged_shards, workers):
    loader = training_batches(replace(damaged_shards[0], workers=workers, max_bad_rate=0.3), damaged_shards[1], 32, 0)
    with pytest.raises(UserError) as caught:
        list(islice(loader, 60))
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    # A reader may drop a fifth object before the fourth of another reader is counted.
    counted = ("4", "5") if workers else ("4",)
    assert sentence.startswith(tuple(f"data.max_bad_rate=0.3: {n} of 13 training objects" for n in counted))
    assert str(damaged_shards[0].path) in sentence and "render" in sentence


def test_max_bad_rate_must_be_between_0_and_1():
    with pytest.raises(UserError, match="^data.max_bad_rate=2.0: "):
        DataConfig(path="x", max_bad_rate=2.0)


def test_a_rank_counts_only_objects_that_it_tried_to_read(damaged_shards):
    """Half of the objects that one of four ranks reads first are damaged, fewer than 0.3 of all objects."""
    options = replace(damaged_shards[0], max_bad_rate=0.3)
    ends = 0
    for rank in range(4):
        try:
            list(islice(PairStream(options, damaged_shards[1], 32, 0, 1, rank=rank, ranks=4), 3))
        except UserError:
            ends += 1
    assert 1 <= ends < 4


def test_a_reader_with_only_unreadable_objects_continues_in_the_next_epoch(tmp_path):
    """With as many readers as objects each reads one object per epoch, one of them the damaged one."""
    with_damage(tmp_path, **{"cameras.npy": b"no array"})
    loader = training_batches(config(tmp_path, workers=5, max_bad_rate=0.2), shards_of(tmp_path), 32, 0)
    assert len(list(islice(loader, 20))) == 20 and loader.dataset.dropped == 1


def test_a_truncated_shard_loses_only_its_end(tmp_path, caplog):
    write_dots(tmp_path, objects=8)
    path = tmp_path / "views-000001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pairs = PairStream(config(tmp_path, max_bad_rate=1.0), shards_of(tmp_path), 32, 0, 1, epochs=1)
    read_pairs = len(list(pairs))
    assert 4 <= read_pairs < 8 and pairs.dropped == 8 - read_pairs
    assert "dropped dots-007: 'dots-007' is missing from its shard" in caplog.text


@pytest.mark.parametrize(
    ("objects", "bad", "rate", "ends"), [(1, 1, 0.05, False), (1, 1, 0.0, True), (9, 1, 0.1, False), (9, 2, 0.1, True)]
)
def test_unreadable_validation_objects_are_limited_by_the_rate_rounded_up(tmp_path, objects, bad, rate, ends, caplog):
    samples = [(f"o{i}", sample_of_dots(i) | ({"cameras.npy": b""} if i < bad else {})) for i in range(objects)]
    write_shard(str(tmp_path), "views-000000", samples, [ObjectRecord(uid, "ok") for uid, _ in samples])
    options = config(tmp_path, max_bad_rate=rate, validation_pairs=2)
    batches = validation_batches(options, shards_of(tmp_path), 32, 0)
    if ends:
        with pytest.raises(UserError, match=f"^data.max_bad_rate={rate:g}: {bad} of {objects} validation objects"):
            list(batches)
    else:
        assert sum(len(batch["pose"]) for batch in batches) == 2 * (objects - bad)
    assert {line.split(":")[0] for line in caplog.messages} == {f"dropped o{i}" for i in range(bad)}


@pytest.mark.parametrize("workers", [0, 2])
def test_data_without_one_readable_object_is_refused(tmp_path, workers):
    write_dots(tmp_path, objects=4)
    (tmp_path / "views-000000.tar").unlink()
    loader = training_batches(config(tmp_path, max_bad_rate=1.0, workers=workers), shards_of(tmp_path), 32, 0)
    with pytest.raises(UserError, match="^data.path=.*render"):
        next(iter(loader))


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the shards that are read, in order."""
    names: list[str] = []
    monkeypatch.setattr(
        "training.data.pair_stream.read_samples", lambda root, name: names.append(name) or read_samples(root, name)
    )
    return names


def test_shards_whose_objects_are_cached_are_read_and_decoded_once(dots, opened, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "training.data.pair_stream.decode", lambda data, **options: decoded.append(data) or decode(data, **options)
    )
    expected = [key(pair) for pair in PairStream(config(dots, cache_mb=0), shards_of(dots), 32, 0, 8, epochs=9)]
    assert len(opened) == 9 * 3 and len(decoded) == 2 * len(expected)
    opened.clear(), decoded.clear()
    stream = PairStream(config(dots, cache_mb=1), shards_of(dots), 32, 0, 8, epochs=9)
    assert [key(pair) for pair in stream] == expected
    assert len(opened) == 3 and len(decoded) == len(set(decoded)) == 12 * 4


def test_a_cache_that_is_too_small_holds_what_fits(tmp_path, opened):
    write_dots(tmp_path, objects=8, per_shard=2, resolution=128)
    pixels = 8 * 4 * 3 * 128**2
    assert pixels > 2**20
    streams = [
        PairStream(config(tmp_path, cache_mb=size), shards_of(tmp_path), 128, 0, 6, epochs=5) for size in (0, 1, 3)
    ]
    keys, reads = [], []
    for stream in streams:
        keys.append([key(pair) for pair in stream])
        reads.append(len(opened))
        opened.clear()
    assert keys[0] == keys[1] == keys[2]
    assert reads[0] == 20 > reads[1] > reads[2] == 4


def test_a_damaged_object_does_not_make_its_shard_be_read_again(tmp_path, opened):
    with_damage(tmp_path, **{"cameras.npy": b"no array"})
    pairs = PairStream(config(tmp_path), shards_of(tmp_path), 32, 0, 2, epochs=4)
    assert len(list(pairs)) == 4 * 2 * 4 and pairs.dropped == 1
    assert len(opened) == 1


def test_only_the_chosen_views_are_decoded(tmp_path):
    # All but two views of the object are damaged; pairs of these two are read.
    sample = sample_of_dots(0, views=4)
    sample["002.webp"] = sample["003.webp"] = b"no picture"
    write_shard(str(tmp_path), "views-000000", [("a", sample)], [ObjectRecord("a", "ok")])
    good = {decode(sample[f"00{i}.webp"], 32).tobytes() for i in range(2)}
    read_pairs = pairs_of(tmp_path, pairs=60)
    assert 0 < len(read_pairs) < 30
    assert all({pair["condition"].tobytes(), pair["target"].tobytes()} == good for pair in read_pairs)


# ---- pictures

PIXELS = Image.fromarray(np.array([[[255, 0, 0, 0], [50, 100, 150, 51], [25, 50, 75, 255]]], dtype=np.uint8))


def test_composite_matches_hand_computed_pixels():
    expected = [[255, 255, 255], [214, 224, 234], [25, 50, 75]]  # 50·51/255 + 204, …
    assert np.asarray(on_white(PIXELS, Background.composite))[0].tolist() == expected


def test_original_background_keeps_straight_colours():
    expected = [[255, 255, 255], [50, 100, 150], [25, 50, 75]]
    assert np.asarray(on_white(PIXELS, Background.original))[0].tolist() == expected


def test_composite_rounds_every_colour_and_opacity_to_nearest():
    colour, alpha = (grid.astype(np.uint8) for grid in np.mgrid[:256, :256])
    seen = np.asarray(
        on_white(Image.fromarray(np.stack([colour, colour, colour, alpha], axis=2)), Background.composite)
    )
    exact = (colour.astype(int) * alpha + 255 * (255 - alpha.astype(int))) / 255  # never halfway: 255 is odd
    assert np.array_equal(seen[..., 1], np.round(exact))


def test_a_transparent_view_is_white():
    assert np.asarray(on_white(Image.new("RGBA", (3, 3)), Background.composite)).min() == 255


def test_decoding_composites_exactly_and_resizes_smoothly():
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 255))
    picture.putpixel((0, 0), (255, 0, 51, 0))
    picture.putpixel((1, 1), (255, 0, 51, 102))
    pixels = decode(webp(picture), 2, Background.composite)
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 0]], [[0, 0, 0], [255, 153, 173]]]
    stripes = Image.fromarray(np.tile(np.uint8([[0, 255]]), (64, 32))).convert("RGBA")
    small = decode(webp(stripes), 8, Background.composite)
    assert small.shape == (8, 8, 3) and np.abs(small[:, 1:-1].astype(int) - 128).max() <= 8  # grey, not aliased


def test_samples_have_the_documented_files(dots):
    uid, sample = next(read_samples(dots, "views-000000"))
    assert uid == "dots-000" and json.loads(sample["meta.json"]) == {}
