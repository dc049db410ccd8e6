"""The stream of view pairs: which pairs, in which order, on which reader, resumed, and with damaged objects."""

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
from pipeline.shards import ObjectRecord, write_shard
from rendering.cameras import relative_pose
from tests.support.dots import sample_of_dots, views_of_dots, webp, write_dots
from tests.support.view_pairs import config, key, shards_of
from training.config import DataConfig
from training.data.batches import collate, fixed_pairs, training_batches, validation_batches
from training.data.pair_stream import PairStream
from training.data.split import Shard
from training.data.stream_state import StreamState, merged
from training.data.view_pairs import choose_pairs
from training.model.picture import Background, as_floats, decode


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


def test_batches_hold_bytes_that_the_model_converts_to_floats(dots):
    pairs = pairs_of(dots)[:5]
    batch = collate(pairs)
    assert batch["condition"].shape == (5, 3, 32, 32) and batch["condition"].dtype is torch.uint8
    assert batch["target"][3, 1, 4, 5] == pairs[3]["target"][4, 5, 1]
    assert batch["pose"].shape == (5, 4) and batch["slot"].tolist() == [0, 1, 2, 3, 4]
    floats = as_floats(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8))
    assert floats.flatten().tolist() == pytest.approx([-1, 1, -0.6]) and torch.equal(as_floats(floats), floats)


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


def read_batches(loader, batches: int, rank=0, ranks=1) -> tuple[list[bytes], list[StreamState]]:
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
    whole, places = read_batches(training_batches(options, shards, 32, 0), 40)
    assert len(set(whole)) == 40
    for done in (1, 5, 12, 25):
        saved = StreamState.from_dict(json.loads(json.dumps(places[done].as_dict())))
        assert saved == places[done] and saved.batches == done
        keys, there = read_batches(training_batches(options, shards, 32, 0, saved), 10)
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
    whole, places = read_batches(training_batches(replace(options, workers=4), shards, 32, 0), 24)
    for ranks, workers in ((2, 2), (4, 0), (4, 1)):
        some = replace(options, workers=workers)
        loaders = [training_batches(some, shards, 32, 0, StreamState(), rank, ranks) for rank in range(ranks)]
        parts = [read_batches(loader, 24 // ranks, rank, ranks) for rank, loader in enumerate(loaders)]
        assert [batch for step in zip(*(keys for keys, _ in parts), strict=True) for batch in step] == whole
        # The merged states of the ranks are the state of the run, from which another number of ranks resumes.
        together = merged(there[12 // ranks] for _, there in parts)
        assert together == places[12]
        one = read_batches(training_batches(replace(options, workers=4), shards, 32, 0, together), 12)[0]
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


def test_samples_have_the_documented_files(dots):
    uid, sample = next(read_samples(dots, "views-000000"))
    assert uid == "dots-000" and json.loads(sample["meta.json"]) == {}
