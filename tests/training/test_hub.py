"""Models on the Hugging Face hub, served by a small server on the loopback interface."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file

from conf.options import UserError
from tests.support.command import command
from tests.support.model_hub import TOKEN, ModelHub, Repository, serving
from tests.support.originals import assert_same, averaged, convert, weights
from tests.support.small_model import SMALL
from tests.support.small_run import SMALL as SMALL_RUN
from training.config import ConvertConfig
from training.convert import main as convert_main
from training.model.architecture import build, build_encoders
from training.model.checkpoints.hub import hub_uri, local_path, pinned
from training.model.checkpoints.pretrained import load_posed, read, read_frozen
from training.model.conditioning import PoseVector


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, an empty cache and an empty working folder."""
    with serving(ModelHub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        yield hub


@pytest.fixture
def models(hub, folder, source) -> ModelHub:
    """`org/folder` in diffusers' layout, with unneeded files; `org/files`, two files of the original's layout."""
    whole = Repository()
    needed = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    besides = {
        f"{part}/diffusion_pytorch_model{end}": b"?"
        for part in ("unet", "vae")
        for end in (".bin", ".fp16.safetensors")
    }
    besides |= {"safety_checker/model.safetensors": b"?", "README.md": b"?", "pipeline.py": b"raise SystemExit"}
    whole.commit(needed | besides)
    files = Repository()
    files.commit({"105000.ckpt": source.read_bytes(), "sub/165000.ckpt": source.read_bytes(), "zero123-xl.ckpt": b"?"})
    hub.repositories |= {"org/folder": whole, "org/files": files}
    return hub


# ---- what names a model on the hub


@pytest.mark.parametrize(
    ("source", "id", "revision", "path"),
    [
        ("org/name", "org/name", None, ""),
        ("lambdalabs/sd-image-variations-diffusers", "lambdalabs/sd-image-variations-diffusers", None, ""),
        ("org/name@v2.0", "org/name", "v2.0", ""),
        ("org/name@v2.0/unet", "org/name", "v2.0", "unet"),
        ("org/name/105000.ckpt", "org/name", None, "105000.ckpt"),
        ("org/name/sub/folder", "org/name", None, "sub/folder"),
        ("hf://org/name/a.ckpt", "org/name", None, "a.ckpt"),
        ("hf://outputs/name", "outputs/name", None, ""),
        ("https://huggingface.co/org/name/blob/main/a.ckpt", "org/name", "main", "a.ckpt"),
        ("https://huggingface.co/org/name/resolve/v1/a.ckpt?download=true", "org/name", "v1", "a.ckpt"),
    ],
)
def test_hub_sources_are_parsed(hub, source, id, revision, path):
    uri = hub_uri(source)
    assert (uri.id, uri.revision, uri.path_in_repo) == (id, revision, path)
    assert hub.asked == []


@pytest.mark.parametrize(
    "source",
    [
        "name", "/org/name", "./org/name", "../org/name", "~/org/name", "org/name/../x", "org/105000.ckpt",
        "org/a.safetensors", "outputs/run/model", "datasets/org/name", "org /name", "org\\name", "org//name",
        "there/name", "there/name/unet", "there", "s3://bucket/x", "C:/models/x", "",
    ],
)  # fmt: skip
def test_local_paths_send_no_request(hub, source):
    Path("there").mkdir()
    assert hub_uri(source) is None
    assert local_path(source) == Path(source) and pinned(source) == source
    assert hub.asked == []


def test_a_local_folder_takes_precedence_over_the_hub(models, folder, state):
    shutil.copytree(folder, "org/folder")
    assert_same(weights(convert(Path("org/folder"), Path("out"))), averaged(state))
    assert models.asked == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("https://example.com/org/name", "names no model on the Hugging Face hub"),
        ("https://huggingface.co/datasets/org/name", "is a dataset on the Hugging Face hub"),
        ("https://me:hf_abc@huggingface.co/org/name", "set HF_TOKEN instead"),
        ("hf://name", "names no model on the Hugging Face hub"),
    ],
)
def test_addresses_of_other_pages_are_refused(hub, source, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read(source)
    assert "hf_abc" not in str(caught.value) and hub.asked == []


# ---- what is downloaded


def test_only_the_needed_files_of_a_folder_are_downloaded(models, state):
    model = load_posed("org/folder")
    assert torch.equal(model.cc_projection.projection.weight, state["cc_projection.weight"])
    parts = ("cc_projection", "unet", "vae")
    assert sorted(models.downloaded) == sorted(
        [
            "image_encoder/config.json",
            "image_encoder/model.safetensors",
            "model_index.json",
            "scheduler/scheduler_config.json",
        ]
        + [f"{part}/{name}" for part in parts for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    )
    models.downloaded.clear()
    load_posed("org/folder")
    assert models.downloaded == []


def test_reading_the_encoders_does_not_download_the_unet(models):
    assert read_frozen("org/folder").image_encoder is not None
    assert models.downloaded and not any(name.startswith(("unet", "cc_projection")) for name in models.downloaded)


@pytest.mark.parametrize("name", ["org/files/105000.ckpt", "org/files/sub/165000.ckpt", "org/files/sub"])
def test_a_file_in_a_repository_is_read(models, state, name):
    assert main_of(name, "out") == 0
    assert_same(weights(Path("out")), averaged(state))
    assert len(models.downloaded) == 1


def main_of(source: str, target: str, **options) -> int:
    return convert_main(ConvertConfig(source=source, target=target, **options))


def test_shards_and_pickles_are_read_where_nothing_else_exists(hub, folder, state):
    repository, files = Repository(), {}
    for path in folder.rglob("*.safetensors"):
        part, stem = path.parent.name, path.name.split(".")[0]
        tensors, weight_map = load_file(path), {}
        for i, name in enumerate(tensors):
            weight_map[name] = f"{stem}.{i % 2}.bin"
        for shard in {*weight_map.values()}:
            torch.save({n: t for n, t in tensors.items() if weight_map[n] == shard}, path.with_name(shard))
        path.with_name(f"{stem}.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        path.unlink()
        files[f"{part}/{stem}.fp16.bin"] = b"?"
    repository.commit(
        {**{p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}, **files}
    )
    hub.repositories["org/shards"] = repository
    assert main_of("org/shards", "out") == 0
    assert_same(weights(Path("out")), averaged(state))
    assert not any("fp16" in name for name in hub.downloaded)


def test_a_single_file_is_read_and_several_require_a_name(models, source):
    models.repositories["org/one"] = Repository()
    models.repositories["org/one"].commit({"weights.ckpt": source.read_bytes(), "README.md": b"?"})
    assert load_posed("org/one").cc_projection is not None
    with pytest.raises(UserError, match="name one of its files.*105000.ckpt, .*zero123-xl.ckpt"):
        load_posed("org/files")


def test_image_encoder_is_read_from_the_hub(models, folder, state):
    models.repositories["org/clip"] = Repository()
    clip = folder / "image_encoder"
    models.repositories["org/clip"].commit(
        {path.name: path.read_bytes() for path in clip.iterdir()} | {"flax_model.msgpack": b"?"}
    )
    for source in ("org/clip", "org/folder/image_encoder"):
        _, encoder = build_encoders(replace(SMALL, image_encoder=source))
        assert encoder.config.projection_dim == 16
    assert "flax_model.msgpack" not in models.downloaded


def test_training_starts_from_a_model_on_the_hub(models, state):
    model = build(replace(SMALL, resolution=32, patch=None, pretrained="org/folder"))
    assert torch.equal(model.cc_projection.projection.weight, state["cc_projection.weight"])


def test_an_interrupted_download_resumes(models, state, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    models.faults["105000.ckpt"] = ["truncate"]
    assert main_of("org/files/105000.ckpt", "out") == 0
    assert_same(weights(Path("out")), averaged(state))
    assert models.downloaded == ["105000.ckpt"] * 2 and len(models.ranges) == 1


def test_pickles_from_the_hub_are_not_executed(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")
    hub.repositories["org/evil"] = Repository()
    hub.repositories["org/evil"].commit({"evil.ckpt": (tmp_path / "evil.ckpt").read_bytes()})
    with pytest.raises(UserError, match="would be executed, which is refused"):
        read("org/evil")
    assert not (tmp_path / "executed").exists()


# ---- revisions


def test_revisions_are_pinned_to_commits(models, source):
    files = models.repositories["org/files"]
    old, new = files.revisions["main"], files.commit({"105000.ckpt": b"newer"})
    assert pinned("org/files") == f"org/files@{new}"
    assert pinned("org/files@main/105000.ckpt") == f"org/files@{new}/105000.ckpt"
    assert pinned("org/files", recorded=f"org/files@{old}") == f"org/files@{old}"
    assert pinned("org/files@main", recorded=f"org/files@{old}") == f"org/files@{new}"
    assert pinned("org/files/105000.ckpt", recorded=f"org/files@{old}") == f"org/files@{new}/105000.ckpt"
    assert local_path(f"org/files@{old}/105000.ckpt").read_bytes() == source.read_bytes()
    assert local_path("org/files/105000.ckpt").read_bytes() == b"newer"


# ---- what can go wrong


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("org/nothing", "there is neither a local path org/nothing nor a repository org/nothing at 127.0.0.1"),
        ("org/folder@v9", "org/folder has no revision v9"),
        ("org/files/106000.ckpt", "org/files has no 106000.ckpt"),
        ("org/private", "needs HF_TOKEN"),
        ("org/gated", "org/gated is gated: accept its terms"),
    ],
)
def test_missing_repositories_revisions_and_files_are_refused(models, asked, sentence):
    for name in ("private", "gated"):
        models.repositories[f"org/{name}"] = replace(models.repositories["org/folder"], **{name: True})
    with pytest.raises(UserError) as caught:
        read(asked)
    assert sentence in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["private", "gated"])
def test_a_token_gives_access_to_private_and_gated_models(models, monkeypatch, name):
    models.repositories["org/closed"] = replace(models.repositories["org/folder"], **{name: True})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read("org/closed").cc_projection is not None
    assert models.tokens == {f"Bearer {TOKEN}"}


def test_offline_the_cache_is_used_or_an_error_names_it(models, monkeypatch):
    load_posed("org/folder")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(models.asked)
    assert load_posed("org/folder").cc_projection is not None
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        load_posed("org/files/105000.ckpt")
    assert len(models.asked) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert load_posed("org/folder").cc_projection is not None
    with pytest.raises(UserError, match="there is no local path org/name, and 127.0.0.1 cannot be reached"):
        load_posed("org/name")


# ---- Stable-Zero123


def test_stable_zero123_on_the_hub_requires_pose_vector_once(models, source):
    models.repositories["org/stable-zero123"] = Repository()
    models.repositories["org/stable-zero123"].commit({"stable_zero123.ckpt": source.read_bytes()})
    models.repositories["org/stable-zero123-diffusers"] = models.repositories["org/folder"]
    for name in ("org/stable-zero123", "org/stable-zero123-diffusers"):
        with pytest.raises(UserError, match=f"training.convert source={name} .*pose_vector=stable_zero123"):
            load_posed(name)
        with pytest.raises(UserError, match="pose_vector=stable_zero123"):
            main_of(name, "out")
        assert main_of(name, "out", pose_vector=PoseVector.stable_zero123) == 0
        assert load_posed("out").cc_projection.pose_vector == PoseVector.stable_zero123


# ---- commands


def test_commands_read_models_on_the_hub_and_record_no_token(models, dots, tmp_path):
    """huggingface_hub reads its settings from the environment; a run keeps its commit when the repository changes."""
    closed = models.repositories["org/closed"] = replace(models.repositories["org/folder"], private=True)
    env = {"HF_ENDPOINT": models.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    commit, run = closed.revisions["main"], tmp_path / "run"
    converted = command("training.convert", "source=org/closed@main", f"target={tmp_path}/taken", **env)
    assert converted.returncode == 0, converted.stderr
    assert converted.stdout.startswith(f"source: org/closed@{commit}\n") and converted.stderr == ""
    assert (tmp_path / "home/hub/models--org--closed/snapshots").is_dir()
    refused = command("training.convert", "source=org/none", f"target={tmp_path}/none", **env)
    assert refused.returncode == 2 and "org/none" in refused.stderr and len(refused.stderr.splitlines()) == 1

    def finetune(encoder: str, steps: int) -> subprocess.CompletedProcess[str]:
        words = [*SMALL_RUN, f"data.path={dots}", f"output={run}", f"trainer.max_steps={steps}"]
        return command("training.finetune", *words, f"model.image_encoder={encoder}", **env)

    begun = finetune("org/closed/image_encoder", 2)
    assert begun.returncode == 0, begun.stderr
    newer = closed.commit({"image_encoder/config.json": b"{}"})
    continued = finetune("org/closed/image_encoder", 4)
    assert continued.returncode == 0, continued.stderr
    recorded = yaml.safe_load((run / "training.yaml").read_text())
    assert recorded["model"]["image_encoder"] == f"org/closed@{commit}/image_encoder"
    other = finetune("org/closed@main/image_encoder", 6)
    assert other.returncode == 2 and f"image_encoder=org/closed@{newer}/image_encoder" in other.stderr
    for done in (converted, refused, begun, continued, other):
        assert TOKEN not in done.stdout + done.stderr
    written = [path for root in (run, tmp_path / "taken") for path in root.rglob("*") if path.is_file()]
    assert len(written) > 20 and not any(TOKEN.encode() in path.read_bytes() for path in written)
