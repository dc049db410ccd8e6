"""Training on several folders of shards at once."""

import hashlib
import json
import re
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.options import UserError
from inference.config import ReportConfig, Sampling
from inference.report import main as report
from pipeline.samples import npy_array, npy_bytes, read_samples
from pipeline.shards import ObjectRecord, ShardManifest, write_shard
from rendering.cameras import relative_pose
from tests.support.dots import sample_of_dots, write_dots
from tests.support.finetune import configured, train
from tests.support.small_run import SMALL, losses
from tests.support.view_pairs import config, key
from training.config import DataKind, EncodeConfig
from training.data.batches import fixed_pairs, training_batches, validation_batches
from training.data.pair_stream import PairStream
from training.data.sources import Source, pairs_of_weight, source_roots, training_sources
from training.data.split import share, split
from training.data.stream_state import StreamState
from training.data.view_pairs import choose_pairs
from training.encode import main as encode
from training.model.picture import decode
from training.run_config import record_run, require_same_run

META = json.dumps({"source": "", "license": ""}).encode()


def write(root, uids: list[str], first: int, per_shard: int, resolution: int = 32) -> str:
    """Write view shards of dots, which differ by `first`."""
    for index, start in enumerate(range(0, len(uids), per_shard)):
        chosen = uids[start : start + per_shard]
        samples = [
            (uid, {**sample_of_dots(first + start + i, 4, resolution), "meta.json": META})
            for i, uid in enumerate(chosen)
        ]
        write_shard(str(root), f"views-{index:06d}", samples, [ObjectRecord(uid, "ok") for uid in chosen])
    return str(root)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str, str]:
    """Three sources with equal names of shards; `same` is an object of the first and the second."""
    root = tmp_path_factory.mktemp("sources")
    return (
        write(root / "a", ["a0", "a1", "same", "a3", "a4"], 0, 3),
        write(root / "b", ["same", "b1", "b2", "b3"], 10, 2),
        write(root / "c", ["c0", "c1"], 20, 2),
    )


@pytest.fixture(scope="module")
def path(folders) -> str:
    return ",".join(folders)


def shards_of(options):
    return split(training_sources(options), 0.0).training


def rng(*words) -> np.random.Generator:
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4"))


def documented(roots, seed, epoch, pairs_per_object, resolution=32) -> list[bytes]:
    """Return the keys of the pairs of one epoch of one reader, by the words of docs/conventions.md."""
    shards = [(source, root, n) for source, root in enumerate(roots) for n in range(9)]
    shards = [(s, root, n, dict(read_samples(root, f"views-{n:06d}"))) for s, root, n in shards if exists(root, n)]
    keys = []
    for place in rng(seed, epoch).permutation(len(shards)):
        source, _, number, samples = shards[place]
        count = pairs_per_object[source]
        views = {uid: choose_pairs(rng(seed, epoch, uid), 4, count) for uid in samples}
        deck = [(uid, views[uid][turn]) for uid in samples for turn in range(count)]
        words = [seed, epoch, f"{number:06d}", *([source] if source else [])]
        for card in rng(*words).permutation(len(deck)):
            uid, (condition, target) = deck[card]
            cameras = npy_array(samples[uid]["cameras.npy"])
            images = [decode(samples[uid][f"{view:03d}.webp"], resolution) for view in (condition, target)]
            pose = relative_pose(cameras[target], cameras[condition]).astype(np.float32)
            keys.append(key({"condition": images[0], "target": images[1], "pose": pose}))
    return keys


def exists(root, number) -> bool:
    return Path(root, f"views-{number:06d}.tar").exists()


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize(
    ("sources", "weights", "pairs"), [(1, [], [3]), (3, [], [3, 3, 3]), (3, [1, 2, 0.5], [3, 6, 2])]
)
def test_pairs_and_their_order_are_the_documented_ones(folders, sources, weights, pairs, cache_mb):
    roots = folders[:sources]
    options = config(",".join(roots), weights=weights, cache_mb=cache_mb)
    stream = PairStream(options, shards_of(options), 32, 7, 3, weights, epochs=3)
    expected = [documented(roots, 7, epoch, pairs) for epoch in range(3)]
    assert [key(pair) for pair in stream] == list(chain(*expected))
    assert len(expected[0]) == sum(n * count for n, count in zip((5, 4, 2), pairs, strict=False))
    assert expected[0] != expected[1]


def test_a_weight_multiplies_the_pairs_of_an_object():
    for pairs, weight, expected in ((4, 1, 4), (4, 0.5, 2), (3, 0.5, 2), (4, 0.01, 1), (4, 2.5, 10), (1, 0.4, 1)):
        assert pairs_of_weight(pairs, weight) == expected


def test_held_out_objects_and_fixed_pairs_ignore_weights(path):
    options = config(path, weights=[1, 3, 1], validation_pairs=2)
    shards = shards_of(options)
    assert sum(len(batch["pose"]) for batch in validation_batches(options, shards, 32, 0)) == 2 * 11
    images = fixed_pairs(options, shards, 32, 0, 11)["condition"]
    assert len({image.numpy().tobytes() for image in images}) == 11


def test_readers_share_the_objects_of_shards_of_equal_names(path):
    shards = shards_of(config(path))
    assert len({shard.name for shard in shards}) == 2 and len(shards) == 5
    for readers in (2, 7):
        shares = [share(shards, reader, readers) for reader in range(readers)]
        objects = Counter((shard.root, shard.name, uid) for part in shares for shard in part for uid in shard.uids)
        assert objects == Counter((shard.root, shard.name, uid) for shard in shards for uid in shard.uids)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_several_sources_continues_exactly(path, workers):
    options = config(path, weights=[1, 2, 0.5], workers=workers, pairs_per_object=2)
    shards = shards_of(options)
    loader = training_batches(options, shards, 32, 0)
    whole, state = [], loader.dataset.stream_state
    for batch in islice(loader, 20):
        whole.append(key(batch))
        state = state.after(batch["slot"], 0, 1)
        if len(whole) == 9:
            saved = StreamState.from_dict(json.loads(json.dumps(state.as_dict())))
    assert [key(batch) for batch in islice(training_batches(options, shards, 32, 0, saved), 11)] == whole[9:]


def test_latents_of_several_sources_have_the_order_of_their_views(folders, tmp_path):
    roots = []
    for root in folders:
        target = str(tmp_path / root[-1])
        for number in range(2):
            if not exists(root, number):
                continue
            samples = [
                (uid, {
                    "moments.npy": npy_bytes(np.ones((4, 8, 2, 2), np.float16)),
                    "embedding.npy": npy_bytes(np.ones((4, 3), np.float16)),
                    "cameras.npy": sample["cameras.npy"],
                })
                for uid, sample in read_samples(root, f"views-{number:06d}")
            ]  # fmt: skip
            write_shard(target, f"latents-{number:06d}", samples, [ObjectRecord(uid, "ok") for uid, _ in samples])
        roots.append(target)
    views, latents = config(",".join(folders)), config(",".join(roots), kind=DataKind.latents)
    batches = [islice(training_batches(options, shards_of(options), 32, 0), 12) for options in (views, latents)]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["pose"], other["pose"]) and torch.equal(one["slot"], other["slot"])


# ---- the split


def test_objects_of_equal_uid_are_on_the_same_side(folders):
    sources = training_sources(config(",".join(folders)))
    for fraction in (0.1, 0.3, 0.5, 0.7, 0.9):
        halves = split(sources, fraction)
        training, held_out = (
            Counter(uid for shard in shards for uid in shard.uids) for shards in (halves.training, halves.validation)
        )
        assert not set(training) & set(held_out)
        assert (training + held_out)["same"] == 2 and (training + held_out).total() == 11
    alone = split(training_sources(config(folders[0])), 0.5).validation
    assert {uid for shard in alone for uid in shard.uids} <= {
        uid for shard in split(sources, 0.5).validation for uid in shard.uids
    }, "the hash decides, not the other sources"


def test_verdicts_exclude_an_object_from_its_source_only_and_duplicates_from_the_later_one():
    first = [ObjectRecord("x", "ok", verdicts=("flat",)), ObjectRecord("y", "ok", mesh="1")]
    later = [ObjectRecord("x", "ok"), ObjectRecord("y", "ok", mesh="1"), ObjectRecord("z", "ok", mesh="1")]
    sources = [
        Source(root, (ShardManifest("views-000000", 0, "", tuple(records)),))
        for root, records in (("a", first), ("b", later))
    ]

    def kept(*exclude) -> list[tuple[str, str]]:
        return [(shard.root, uid) for shard in split(sources, 0.0, exclude).training for uid in shard.uids]

    assert kept("flat") == [("a", "y"), ("b", "x"), ("b", "y"), ("b", "z")]
    assert kept("duplicate") == [("a", "x"), ("a", "y"), ("b", "x")]


# ---- a run


def test_a_run_of_several_sources_resumes_and_is_reported(folders, path, tmp_path, capsys):
    words = [
        "data.weights=[1,2,0.5]",
        "data.validation_fraction=0.3",
        "trainer.log_every=1",
        "trainer.validate_every=2",
    ]
    assert train(path, tmp_path / "whole", *words, "trainer.max_steps=2") == 0
    assert f"{folders[1]}: " in capsys.readouterr().out
    for steps in (1, 2):
        assert train(path, tmp_path / "run", *words, f"trainer.max_steps={steps}") == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    held_out = (tmp_path / "run/validation.txt").read_text().split()
    assert held_out == (tmp_path / "whole/validation.txt").read_text().split()
    assert 0 < len(held_out) == len(set(held_out)) < 11
    one = folders[1]
    for views in (path, one):
        page = tmp_path / "report.html"
        report(ReportConfig(views, str(tmp_path / "run"), str(page), rows=4, sampling=Sampling(steps=2)))
        shown = set(re.findall(r"(\w+): sampled", page.read_text()))
        assert shown and shown <= set(held_out) & {"same", "b1", "b2", "b3", *(held_out if views == path else [])}
    for other in (",".join(reversed(folders)), ",".join(folders[:2]), one):
        with pytest.raises(UserError, match="^data.path=.*the run in .* has data.path=") as caught:
            train(other, tmp_path / "run", "data.validation_fraction=0.3")
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=r"^data.weights=\[1.0, 1.0, 1.0\]: "):
        train(path, tmp_path / "run", "data.weights=[1,1,1]", "data.validation_fraction=0.3")


def test_sources_written_another_way_are_the_same_run(folders, tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folders[1])
    monkeypatch.chdir(tmp_path)

    def begin(path, *words) -> None:
        config = configured(f"data.path={path}", *SMALL, *words)
        require_same_run(run, config)
        record_run(run, config)

    begin(f"{folders[0]},{folders[1]}")
    begin(f"{folders[0]}/, link", "data.weights=[1,1]")
    begin(f"{folders[0]},./link/.")
    with pytest.raises(UserError, match="^data.path="):
        begin(f"link,{folders[0]}")
    with pytest.raises(UserError, match="^data.weights="):
        begin(f"{folders[0]},link", "data.weights=[1,2]")


# ---- what a user can get wrong


def test_a_folder_with_a_comma_in_its_name_is_one_source(tmp_path, monkeypatch):
    write_dots(tmp_path / "a,b", objects=2)
    assert source_roots(str(tmp_path / "a,b")) == [str(tmp_path / "a,b")]
    assert source_roots("a, s3://bucket/b") == ["a", "s3://bucket/b"]
    monkeypatch.setenv("HOME", "/home/me")
    assert source_roots("a,~/b") == ["a", "/home/me/b"]


@pytest.mark.parametrize(
    ("path", "weights", "sentence"),
    [
        ("{a},nowhere", [], "^nowhere: "),
        ("{a},{empty}", [], "empty: no finished views shard"),
        ("{a},{failed}", [], "^data.path: no object of .*failed was rendered"),
        ("{a},{large}", [], "^data.path: .*/a 32 × 32, .*large 48 × 48; "),
        ("{a},,{b}", [], "^data.path=.*: a name between the commas is empty"),
        ("{a},{b},{a}/", [], "^data.path=.*/a and .*/a/ are one folder; "),
        ("{a},{a}", [], "^data.path=.*/a twice; "),
        ("{a},{link}", [], "^data.path=.*/a and .*link are one folder; "),
        ("{a},{b}", [1.0], r"^data.weights=\[1.0\]: 1 weight for 2 sources"),
        ("{a}", [1.0, 2.0], r"^data.weights=\[1.0, 2.0\]: 2 weights for 1 source in"),
    ],
)
def test_mistakes_about_sources_are_one_sentence(path, weights, sentence, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(folders[0])
    write_shard(str(tmp_path / "failed"), "views-000000", [], [ObjectRecord("x", "failed", "timeout")])
    write(tmp_path / "large", ["x"], 0, 1, resolution=48)
    places = dict(zip("abc", folders, strict=True)) | {
        name: str(tmp_path / name) for name in ("empty", "link", "failed", "large")
    }
    with pytest.raises(UserError, match=sentence) as caught:
        training_sources(config(path.format(**places), weights=weights))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(weight):
    with pytest.raises(UserError, match="^data.weights=.*above 0"):
        config("a,b", weights=[1.0, weight])


def test_sources_are_encoded_one_by_one(path, tmp_path):
    with pytest.raises(UserError, match="^path=.*on its own"):
        encode(EncodeConfig(path, str(tmp_path), device="cpu"))
    assert not list(tmp_path.iterdir())
