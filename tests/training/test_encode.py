"""Latent shards give the losses and pairs of their view shards; latents of other encoders are refused."""

import csv
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from conf.command import register
from conf.options import UserError
from pipeline import verify
from pipeline.config import VerifyConfig
from pipeline.samples import npy_array, npy_bytes, read_samples
from pipeline.shards import ObjectRecord, find_manifests, read_manifests, write_shard
from tests.support.command import PROJECT, command
from tests.support.dots import sample_of_dots
from tests.support.finetune import train
from tests.support.small_model import SMALL, mean_loss
from tests.support.small_run import SMALL as WORDS
from training.config import DataConfig, DataKind, EncodeConfig, FinetuneConfig
from training.data.batches import fixed_pairs, training_batches
from training.data.encoding import plan_jobs
from training.data.latents import encode_shard, identity, require_fitting
from training.data.pair_stream import PairStream
from training.data.sources import read_sources
from training.data.split import Shard, split
from training.encode import main
from training.model.architecture import build, build_encoders
from training.model.checkpoints.checkpoint import load, save
from training.model.picture import Background, decode
from training.model.zero123 import Prediction


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> str:
    """Seven objects in three shards, one of them flat, one a duplicate, one damaged, one never rendered."""
    root = str(tmp_path_factory.mktemp("views"))
    marks = {1: {"verdicts": ("flat",)}, 2: {"mesh": "m"}, 4: {"mesh": "m"}}
    for shard, numbers in enumerate([(0, 1, 2), (3, 4), (5, 6)]):
        samples = [(f"dots-{i}", sample_of_dots(i)) for i in numbers]
        if shard == 1:
            samples[0][1]["002.webp"] = b"no picture"
        records = [ObjectRecord(f"dots-{i}", "ok", **marks.get(i, {})) for i in numbers]
        write_shard(
            root, f"views-00000{shard}", samples, [*records, ObjectRecord(f"lost-{shard}", "failed", "timeout")]
        )
    return root


@pytest.fixture(scope="module")
def latents(views, tmp_path_factory) -> str:
    """The latent shards of the views, encoded without Ray."""
    return encoded(EncodeConfig(views, str(tmp_path_factory.mktemp("latents")), model=SMALL, device="cpu"))


def encoded(config: EncodeConfig) -> str:
    for job in plan_jobs(config, read_manifests(config.path, "views")):
        list(encode_shard(job))
    return config.output


def all_samples(root, kind="latents"):
    return {uid: sample for m in read_manifests(str(root), kind) for uid, sample in read_samples(str(root), m.name)}


def bytes_of(root) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.tar"))}


# ---- what is written


def test_a_latent_sample_holds_moments_and_embedding_of_each_view(views, latents, model):
    seen, made = all_samples(views, "views"), all_samples(latents)
    assert list(made) == [uid for uid in seen if uid != "dots-3"]
    for uid, sample in made.items():
        assert set(sample) == {"moments.npy", "embedding.npy", "cameras.npy", "meta.json"}
        assert sample["cameras.npy"] == seen[uid]["cameras.npy"] and sample["meta.json"] == seen[uid]["meta.json"]
        moments, embedding = npy_array(sample["moments.npy"]), npy_array(sample["embedding.npy"])
        assert (moments.shape, moments.dtype) == ((4, 24, 8, 8), np.float16)
        assert (embedding.shape, embedding.dtype) == ((4, 16), np.float16)
        picture = torch.from_numpy(decode(seen[uid]["002.webp"], 16).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            parameters = model.vae.encode(picture).latent_dist.parameters[0]
            expected = model.embed(picture)[0]
        np.testing.assert_allclose(moments[2], parameters, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(embedding[2], expected, rtol=1e-3, atol=1e-3)


def test_verify_checks_latent_shards(latents, tmp_path, capsys):
    assert verify.main(VerifyConfig(latents)) == 0
    assert "0 of 3 shards damaged; 6 objects" in capsys.readouterr().out
    for manifest in read_manifests(latents, "latents"):
        samples = list(read_samples(latents, manifest.name))
        samples[0][1]["embedding.npy"] = npy_bytes(npy_array(samples[0][1]["embedding.npy"])[1:])
        write_shard(str(tmp_path), manifest.name, samples, manifest.records)
    assert verify.main(VerifyConfig(str(tmp_path))) == 1
    printed = capsys.readouterr().out
    assert (
        "latents-000000: dots-0: cameras of shape (4, 3, 4) with moments of (4, 24, 8, 8) and embeddings of" in printed
    )


def test_records_keep_verdicts_and_name_the_missing_file(views, latents):
    records = {record.uid: record for manifest in read_manifests(latents, "latents") for record in manifest.records}
    assert set(records) == {f"dots-{i}" for i in range(7)}, "what was never rendered is no object of this stage"
    assert (records["dots-3"].status, records["dots-3"].reason) == ("failed", "unreadable")
    assert "cannot identify image file" in records["dots-3"].detail
    for without in ([], ["flat"], ["duplicate"]):
        halves = [split(read_sources(*of), 0.3, without) for of in ((views, "views"), (latents, "latents"))]
        seen, made = ({uid for shard in half.training for uid in shard.uids} for half in halves)
        assert seen - {"dots-3"} == made
        assert "dots-1" not in made if "flat" in without else True


def test_a_missing_tar_fails_only_its_objects(views, tmp_path):
    for manifest in read_manifests(views, "views"):
        write_shard(str(tmp_path / "views"), manifest.name, list(read_samples(views, manifest.name)), manifest.records)
    (tmp_path / "views/views-000002.tar").unlink()
    output = encoded(EncodeConfig(str(tmp_path / "views"), str(tmp_path / "out"), model=SMALL, device="cpu"))
    reasons = {r.uid: r.reason for m in find_manifests(output, "latents") for r in m.records if r.status == "failed"}
    assert reasons == {"dots-3": "unreadable", "dots-5": "missing", "dots-6": "missing"}


def test_latents_that_overflow_float16_are_refused(views, tmp_path):
    huge = build_encoders(SMALL)[1]
    huge.visual_projection.weight.data.mul_(1e9)
    huge.save_pretrained(tmp_path / "clip")
    shape = replace(SMALL, image_encoder=str(tmp_path / "clip"))
    output = encoded(EncodeConfig(views, str(tmp_path / "out"), model=shape, device="cpu"))
    reasons = [record.reason for manifest in find_manifests(output, "latents") for record in manifest.records]
    assert reasons.count("overflow") == 6
    assert not all_samples(output)


# ---- the command


@pytest.mark.slow
def test_a_resumed_command_writes_the_same_bytes_under_ray(views, latents, tmp_path):
    output = tmp_path / "latents"
    words = [word for word in WORDS if word.startswith("model") and "unet" not in word]
    words += [f"path={views}", f"output={output}", "model.encoder.projection=16", "model.encoder.width=16"]
    words += ["model.encoder.layers=1", "model.encoder.heads=2", "device=cpu", "max_failure_rate=0.2"]
    begun = EncodeConfig(views, str(output), model=SMALL, device="cpu", max_failure_rate=0.2)
    list(encode_shard(plan_jobs(begun, read_manifests(views, "views"))[0]))  # a run that was stopped after one shard
    done = command("training.encode", *words, "cluster.workers=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "4 objects to encode in 2 shards; starting Ray"
    assert done.stdout.splitlines()[1] == "1 of 7 objects have no latents: 1 unreadable"
    assert done.stdout.splitlines()[-1] == f"latents of 6 objects in {output}"
    assert "  dots-3: unreadable: UnidentifiedImageError(" in done.stderr
    assert bytes_of(output) == bytes_of(Path(latents)) and len(bytes_of(output)) == 3
    # `retry` encodes the shard of the unreadable object again.
    again = command("training.encode", *words, "cluster.workers=1", "retry=unreadable")
    assert again.stdout.splitlines()[0] == "2 objects to encode in 1 shards; starting Ray"
    assert bytes_of(output) == bytes_of(Path(latents)) and again.returncode == 0


def test_a_complete_output_is_reported_and_other_settings_are_refused(views, latents, capsys):
    begun = EncodeConfig(views, latents, model=SMALL, device="cpu", max_failure_rate=0.2)
    assert main(begun) == 0
    printed = capsys.readouterr().out
    assert "1 of 7 objects have no latents: 1 unreadable" in printed and "starting Ray" not in printed
    assert main(replace(begun, max_failure_rate=0.1)) == 1
    for change, named in (
        ({"seed": 1}, "encoders="),
        ({"model": replace(SMALL, resolution=32)}, "resolution=16, now 32"),
        ({"background": Background.original}, "background=composite, now original"),
    ):
        with pytest.raises(UserError, match=f"{named}"):
            main(replace(begun, **change))


def test_other_view_shards_are_refused(views, latents, tmp_path):
    write_shard(str(tmp_path), "views-000000", [("a", sample_of_dots(0))], [ObjectRecord("a", "ok")])
    with pytest.raises(UserError, match="objects=7, now 1"):
        main(EncodeConfig(str(tmp_path), latents, model=SMALL, device="cpu"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["device=tpu"], "^device=tpu: "),
        (["retry=[slow]"], "^retry=slow: .*missing, unreadable, overflow"),
        (["batch_size=0"], "^batch_size=0: "),
        pytest.param(
            ["device=cuda"],
            "^device=cuda: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one"),
        ),
        (["model=tiny"], "nowhere: no such folder; give the output of the previous stage"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(words, sentence):
    with pytest.raises(UserError, match=sentence):
        main(composed("encoding", EncodeConfig, "path=nowhere", *words))


def composed(stage, config, *words):
    name = config.__name__.removesuffix("Config").lower()
    register(config, name, {})
    with initialize_config_dir(str(PROJECT / "conf" / stage), version_base="1.3"):
        return OmegaConf.to_object(compose(name, list(words)))


@pytest.mark.parametrize("model", ["tiny", "zero123"])
def test_encode_and_finetune_build_the_same_encoders(model):
    trained = composed("training", FinetuneConfig, "data.path=x", f"model={model}").model
    given = composed("encoding", EncodeConfig, "path=x", f"model={model}").model
    assert asdict(given) == asdict(trained)


# ---- who may train on it


def test_encoders_built_alone_equal_those_of_the_model(tmp_path):
    model = build(SMALL, seed=3)
    assert identity(model.vae, model.image_encoder) == identity(*build_encoders(SMALL, seed=3))
    assert identity(model.vae, model.image_encoder) != identity(*build_encoders(SMALL, seed=4))
    save(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert identity(again.vae, again.image_encoder) == identity(model.vae, model.image_encoder)
    again.image_encoder.visual_projection.weight.data[0, 0] += 1e-3
    assert identity(again.vae, again.image_encoder) != identity(model.vae, model.image_encoder)


@pytest.mark.parametrize(
    ("seed", "options", "background", "sentence"),
    [
        (1, {}, Background.composite, "^data.path=.*encoder"),
        (0, {"resolution": 32}, Background.composite, "resolution=16.*32"),
        (0, {}, Background.original, "^data.background=original: .*composite"),
    ],
)
def test_latents_of_another_encoder_are_refused(latents, seed, options, background, sentence):
    require_fitting(latents, build(SMALL), Background.composite)
    with pytest.raises(UserError, match=sentence):
        require_fitting(latents, build(replace(SMALL, **options), seed), background)


def test_latents_without_a_record_of_their_encoders_are_refused(tmp_path):
    for plan, fault in (("{}", "resolution=None.*16"), ("[1]", "plan.json: not a valid plan")):
        (tmp_path / "plan.json").write_text(plan)
        with pytest.raises(UserError, match=fault):
            require_fitting(str(tmp_path), build(SMALL), Background.composite)


# ---- the same training


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """A narrow Stable Diffusion: an AutoencoderKL that downsamples 8×, a CLIP vision model, a U-Net."""
    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    levels = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "scaling_factor": 0.18215}
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    AutoencoderKL(**levels, down_block_types=down, up_block_types=up, latent_channels=4).save_pretrained(folder / "vae")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = CLIPVisionConfig(**tower, image_size=28, patch_size=14, projection_dim=24)
    CLIPVisionModelWithProjection(clip).save_pretrained(folder / "image_encoder")
    UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, attention_head_dim=2, norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    return replace(SMALL, resolution=32, patch=None, prediction=Prediction.epsilon, pretrained=str(folder))


@pytest.mark.parametrize("kind", ["tiny", "stable diffusion"])
def test_loss_from_latents_equals_loss_from_views(views, kind, stable_diffusion, tmp_path):
    shape = SMALL if kind == "tiny" else stable_diffusion
    encoded(EncodeConfig(views, str(tmp_path), model=shape, device="cpu", batch_size=3))
    model = build(shape)
    require_fitting(str(tmp_path), model, Background.composite)
    torch.nn.init.normal_(model.unet.conv_in.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.cc_projection.projection.weight, generator=torch.Generator().manual_seed(0))
    batches = []
    for root, name in ((views, "views"), (str(tmp_path), "latents")):
        config = DataConfig(path=root, kind=DataKind(name), batch_size=16, workers=0)
        shards = [Shard(root, m.name, tuple(u for u in m.uids if u != "dots-3")) for m in read_manifests(root, name)]
        batches.append(list(islice(training_batches(config, shards, model.resolution, seed=0), 3)))
    for seed, (online, cached) in enumerate(zip(*batches, strict=True)):
        assert torch.equal(online["pose"], cached["pose"]) and torch.equal(online["slot"], cached["slot"])
        with torch.no_grad():
            losses = [model.losses(b, torch.Generator().manual_seed(seed), drop=0.1) for b in (online, cached)]
        assert torch.equal(losses[0][1], losses[1][1]), "the same timesteps"
        torch.testing.assert_close(losses[0][0], losses[1][0], rtol=2e-3, atol=1e-5)
        assert losses[0][0].mean().item() == pytest.approx(losses[1][0].mean().item(), rel=5e-4)
        other = model.losses(online, torch.Generator().manual_seed(seed + 1), drop=0.1)[0]
        assert not torch.allclose(losses[0][0], other, rtol=0.05), "another generator, another loss"
        shown = zip(model.pictures(online), model.pictures(cached), strict=True)
        if kind == "tiny":  # its autoencoder loses nothing
            assert all(torch.allclose(a, b, atol=1e-3) for a, b in shown)


def with_last(array, value):
    changed = array.copy()
    changed.reshape(-1)[-1] = value
    return changed


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("moments.npy", lambda moments: npy_bytes(moments[1:])),
        ("moments.npy", lambda moments: npy_bytes(moments[:, :-1])),
        ("moments.npy", lambda moments: npy_bytes(moments[..., :4])),
        ("moments.npy", lambda moments: npy_bytes(moments.astype(np.float32))),
        ("moments.npy", lambda moments: npy_bytes(np.stack([with_last(view, np.nan) for view in moments]))),
        ("embedding.npy", lambda embedding: npy_bytes(np.stack([with_last(view, -np.inf) for view in embedding]))),
        ("embedding.npy", lambda embedding: npy_bytes(embedding)[:-1]),
        ("embedding.npy", lambda embedding: b""),
    ],
    ids=["too few", "odd", "another size", "another type", "nan", "infinite", "cut", "empty"],
)
def test_damaged_latents_are_dropped(latents, tmp_path, name, harm):
    manifest = read_manifests(latents, "latents")[0]
    samples = list(read_samples(latents, manifest.name))
    samples[1][1][name] = harm(npy_array(samples[1][1][name]))
    write_shard(str(tmp_path), manifest.name, samples, manifest.records)
    config = DataConfig(path=str(tmp_path), kind=DataKind.latents, batch_size=9, workers=0, max_bad_rate=0.7)
    # The undamaged object is read first, so that its shape is the expected one.
    for seed in range(100):
        loader = training_batches(config, [Shard(str(tmp_path), manifest.name, tuple(manifest.uids))], 16, seed)
        first = next(iter(PairStream(config, [Shard(str(tmp_path), manifest.name, tuple(manifest.uids))], 16, seed, 4)))
        if first["condition"].shape == (24, 8, 8):
            break
    batches = list(islice(loader, 4))
    assert loader.dataset.dropped == 1
    assert all(torch.isfinite(batch[part]).all() for batch in batches for part in ("target", "condition", "embedding"))


def test_no_encoder_runs_in_a_step_from_latents(latents, model):
    shards = [Shard(latents, manifest.name, tuple(manifest.uids)) for manifest in read_manifests(latents, "latents")]
    config = DataConfig(path=latents, kind=DataKind.latents, batch_size=2, workers=0)
    batch = next(iter(training_batches(config, shards, 16, seed=0)))
    model.vae.encode = model.image_encoder.forward = None  # neither can be called
    assert mean_loss(model, batch, torch.Generator().manual_seed(0)).item() > 0
    assert fixed_pairs(config, shards, 16, 0, 5)["embedding"].shape == (5, 16)


def test_finetuning_on_views_and_on_latents_has_the_same_losses(views, tmp_path):
    """The damaged object, which a run on views would drop, is left out."""
    good = tmp_path / "views"
    for manifest in read_manifests(views, "views"):
        samples = [item for item in read_samples(views, manifest.name) if item[0] != "dots-3"]
        write_shard(str(good), manifest.name, samples, [r for r in manifest.records if r.uid != "dots-3"])
    begun = composed("training", FinetuneConfig, *WORDS, "data.path=x").model
    encoded(EncodeConfig(str(good), str(tmp_path / "latents"), model=begun, device="cpu"))
    losses = []
    for kind in ("views", "latents"):
        words = [f"data.kind={kind}", "trainer.max_steps=2", "trainer.log_every=1", "trainer.validate_every=2"]
        train(tmp_path / kind, tmp_path / f"run-{kind}", *words)
        assert (tmp_path / f"run-{kind}/samples/000002.png").exists()
        with (tmp_path / f"run-{kind}/metrics.csv").open(newline="") as file:
            losses.append([float(row["loss"] or row["val_loss"]) for row in csv.DictReader(file)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) == 3
    assert len({(tmp_path / f"run-{kind}/validation.txt").read_text() for kind in ("views", "latents")}) == 1
    with pytest.raises(UserError, match="no finished latents shard"):
        train(tmp_path / "views", tmp_path / "other", "data.kind=latents")
    with pytest.raises(UserError, match="^data.path=.*encoder"):
        train(tmp_path / "latents", tmp_path / "other", "data.kind=latents", "seed=1")
