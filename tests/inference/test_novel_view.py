"""NovelView: views do not depend on the other poses, the layout of the checkpoint or the batch.

`community.npz` holds what diffusers' community pipeline (examples/community/pipeline_zero1to3.py) drew on a CPU from
the weights of `originals` at reduced width: every eighth pixel of two poses, 4 steps, guidance 3, one generator of
seed 7 for each, the picture as below; once with eta 0 and once with eta 1.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.testing import CompileCounterWithBackend

import inference.novel_view
from conf.options import UserError
from inference import NovelView, Prepared
from inference.config import Sampling
from inference.novel_view import to_image
from tests.support.originals import TINY, convert, noise, original_state, write_original

COMMUNITY = np.load(Path(__file__).with_name("community.npz"))
QUICK = Sampling(steps=4)
POSES = [[10, 20, 0], [0, 90, 0.1], [-20, 180, 0], [30, -60, 0], [5, 5, 0]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An original checkpoint of two levels."""
    return write_original(tmp_path_factory.mktemp("original") / "105000.ckpt", original_state(TINY))


def pixels(images):
    return np.stack([np.asarray(image, dtype=float) for image in images])


def test_poses_are_turns_in_degrees(novel_view, prepared):
    still, around, behind, back = (
        pixels(novel_view(prepared, [pose], QUICK)) for pose in ([0, 0, 0], [0, 360, 0], [0, 180, 0], [0, 0, 0.5])
    )
    np.testing.assert_allclose(around, still, atol=1)
    assert np.abs(behind - still).max() > 3
    assert np.abs(back - still).max() > 3


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver", "euler"])
def test_a_view_does_not_depend_on_the_other_poses(novel_view, prepared, monkeypatch, sampler):
    together = pixels(novel_view(prepared, POSES, QUICK, sampler=sampler))
    monkeypatch.setitem(inference.novel_view.MAX_BATCH, "cpu", 2)
    np.testing.assert_allclose(pixels(novel_view(prepared, POSES, QUICK, sampler=sampler)), together, atol=1)
    np.testing.assert_allclose(pixels(novel_view(prepared, POSES[:1], QUICK, sampler=sampler))[0], together[0], atol=1)


def test_views_depend_on_the_seed(novel_view, prepared):
    first, again, other = (pixels(novel_view(prepared, [[0, 45, 0]], QUICK, seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_settings_are_given_by_name_and_validated(novel_view, prepared):
    named = novel_view(prepared, POSES[:1], steps=3, sampler="euler", unconditional="trained", guidance=2.0, seed=5)
    typed = novel_view(prepared, POSES[:1], Sampling(3, 2.0, None, "trained", "euler", seed=5))
    np.testing.assert_array_equal(pixels(named), pixels(typed))
    counted = novel_view(prepared, POSES[:1], steps=np.int64(3), guidance=np.float32(2), seed=np.int64(5))
    python = novel_view(prepared, POSES[:1], steps=3, guidance=2, seed=5)
    np.testing.assert_array_equal(pixels(counted), pixels(python))
    for settings, sentence in [
        ({"seed": 1.5}, "sampling.seed=1.5: "),
        ({"steps": 2.5}, "sampling.steps=2.5: "),
        ({"guidance": "3"}, "sampling.guidance=3: "),
        ({"image_guidance": "3"}, "sampling.image_guidance=3: "),
        ({"eta": None}, "sampling.eta=None: "),
        ({"sampler": "heun"}, "sampling.sampler=heun: "),
        ({"unconditional": "nothing"}, "sampling.unconditional=nothing: "),
        ({"steps": 0}, "sampling.steps=0: "),
        ({"steps": 1}, "sampling.steps=1: "),  # ddim would begin at timestep 1
        ({"eta": float("nan")}, "sampling.eta=nan: "),
    ]:
        with pytest.raises(UserError, match=sentence):
            novel_view(prepared, POSES[:1], **settings)


@pytest.mark.parametrize(
    "poses",
    [
        *([], 5, None, "left", [[0, 1, 2], [0, 1]], [[0, 1, 2], 3], [["0", "1", "2"]]),
        *([[0, float("nan"), 0]], [[0, float("inf"), 0]], [[0, 1]], [0, 1, 2], [[0, 0, 0]] * 10_000),
    ],
)
def test_invalid_poses_are_refused(novel_view, prepared, poses):
    with pytest.raises(UserError, match="poses: "):
        novel_view(prepared, poses, QUICK)


def test_the_picture_is_encoded_once(tiny, monkeypatch):
    """One encoding serves all poses and batches, and later calls with an `EncodedImage`."""
    monkeypatch.setitem(inference.novel_view.MAX_BATCH, "cpu", 2)
    model, calls, quick = NovelView.load(tiny, "cpu"), [], Sampling(steps=2)
    for part in (model.model.image_encoder, model.model.vae.encoder):
        part.register_forward_hook(lambda part, given, answer: calls.append(part))
    front = Prepared(teal := Image.new("RGB", (256, 256), "teal"), teal)
    whole = model(front, POSES[:3], quick)
    assert calls == [model.model.vae.encoder, model.model.image_encoder]
    encoded = model.encode(front)
    calls.clear()
    np.testing.assert_array_equal(pixels(model(encoded, POSES[:3], quick)), pixels(whole))
    assert not calls


def test_a_batch_that_does_not_fit_is_halved(novel_view, prepared):
    """A device with memory for two poses (four rows with guidance) samples five; one with less memory fails."""
    novel_view = NovelView(novel_view.model)  # remembers the batch that fitted
    whole, most, rows = pixels(novel_view(prepared, POSES, QUICK)), 4, []

    def memory(part, given):
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("out of memory")
        rows.append(len(given[0]))

    hook = novel_view.model.unet.register_forward_pre_hook(memory)
    try:
        np.testing.assert_allclose(pixels(novel_view(prepared, POSES, QUICK)), whole, atol=1)
        assert set(rows) == {4, 2}
        rows.clear()
        novel_view(prepared, POSES[:4], QUICK)
        assert rows == [4] * 2 * QUICK.steps
        most = 1
        with pytest.raises(UserError, match="too little memory for a single view"):
            novel_view(prepared, POSES, QUICK)
    finally:
        hook.remove()


def test_views_whose_decoding_does_not_fit_are_denoised_once(novel_view, prepared):
    """A device whose memory decodes one view at a time; one that decodes none fails."""
    novel_view = NovelView(novel_view.model)
    whole, most, rows = pixels(novel_view(prepared, POSES, QUICK)), 1, []
    decode = novel_view.model.vae.decode

    def limited(latents):
        if len(latents) > most:
            raise torch.OutOfMemoryError("out of memory")
        return decode(latents)

    hook = novel_view.model.unet.register_forward_pre_hook(lambda part, given: rows.append(len(given[0])))
    novel_view.model.vae.decode = limited
    try:
        for _ in range(2):
            np.testing.assert_allclose(pixels(novel_view(prepared, POSES, QUICK)), whole, atol=1)
        assert sum(rows) == 2 * len(POSES) * QUICK.steps * 2  # with guidance a view has two rows
        most = 0
        with pytest.raises(UserError, match="too little memory for a single view"):
            novel_view(prepared, POSES, QUICK)
    finally:
        hook.remove()
        del novel_view.model.vae.decode


def test_progress_is_reported(novel_view, prepared, monkeypatch):
    monkeypatch.setitem(inference.novel_view.MAX_BATCH, "cpu", 2)
    progress = []
    novel_view(prepared, POSES[:3], QUICK, on_step=lambda done, total: progress.append((done, total)))
    assert progress == [(n, 12) for n in (2, 4, 6, 8, 9, 10, 11, 12)]


def test_bfloat16_views_are_close_to_float32(folder, novel_view, prepared):
    half = NovelView.load(folder, "cpu", "bfloat16")
    assert half.model.unet.dtype == torch.bfloat16
    full = pixels(novel_view(prepared, POSES, QUICK, eta=0.0))
    difference = np.abs(pixels(half(prepared, POSES, QUICK, eta=0.0)) - full).mean()
    assert 0 < difference < 4
    assert np.abs(np.roll(full, 1, axis=0) - full).mean() > 4 * difference  # poses differ by far more


def test_bfloat16_views_repeat_and_depend_little_on_the_batch(folder, prepared, monkeypatch):
    half = NovelView.load(folder, "cpu", "bfloat16")
    together = pixels(half(prepared, POSES, QUICK))
    np.testing.assert_array_equal(pixels(half(prepared, POSES, QUICK)), together)
    monkeypatch.setitem(inference.novel_view.MAX_BATCH, "cpu", 1)
    deviation = np.abs(pixels(half(prepared, POSES, QUICK)) - together)
    assert deviation.mean() < 0.5 and np.abs(np.roll(together, 1, axis=0) - together).mean() > 4


@torch._dynamo.config.patch(recompile_limit=1)
def test_more_batch_sizes_are_compiled_than_torch_is_set_to_allow(folder, prepared):
    """The backend `eager` traces as torch.compile does, without building kernels, which takes minutes on a CPU."""
    compiled, graphs = NovelView.load(folder, "cpu", compile=True), CompileCounterWithBackend("eager")
    compiled.model.unet.compile(dynamic=False, backend=graphs)
    try:
        for count in (1, 2):
            compiled(prepared, POSES[:count], steps=2, guidance=1.0)
        assert graphs.frame_count == 2
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("able", [{}, {"avx512_bf16": True}, {"amx_bf16": True}])
def test_auto_is_bfloat16_on_cpus_with_units_for_it_except_for_pixel_models(tiny, folder, monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    model, pixel = (NovelView.load(source, "cpu").model for source in (tiny, folder))
    assert model.unet.dtype == (torch.bfloat16 if able else torch.float32)
    parts = (model.vae, model.image_encoder, model.cc_projection.projection.weight, pixel.unet)
    assert {part.dtype for part in parts} == {torch.float32}


def test_a_prepared_picture_that_is_not_square_rgb_is_refused(novel_view, front):
    for image in (front.crop((0, 0, 16, 8)), front.convert("RGBA")):
        with pytest.raises(UserError, match="give a square RGB one"):
            novel_view(Prepared(image, image), POSES[:1], QUICK)


def test_every_layout_gives_equal_views(tiny, tmp_path):
    """The original's file, the community's folder and threestudio's, of the same weights."""
    image = to_image(torch.tanh(noise("front", 1, 3, 256, 256))[0])
    front = Prepared(image, image)
    sources = (
        tiny,
        convert(tiny, tmp_path / "ours"),
        convert(tiny, tmp_path / "threestudio", layout="threestudio"),
        convert(tiny, tmp_path / "back.ckpt"),
    )
    first, *others = (
        pixels(NovelView.load(source, "cpu")(front, [[20, 45, 0]], steps=2, eta=0.0)) for source in sources
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_views_equal_those_of_the_community_pipeline(tmp_path):
    """The mean difference is below 1/255."""
    model = NovelView.load(
        write_original(tmp_path / "105000.ckpt", original_state()), device="cpu", precision="float32"
    )
    front = to_image(torch.tanh(noise("front", 1, 3, 256, 256))[0])
    encoded, poses = model.encode(Prepared(front, front)), [[30, 45, 0.1], [-20, 200, 0]]
    for eta in (0, 1):
        ours = pixels(model(encoded, poses, steps=4, guidance=3.0, eta=float(eta), seed=7))[:, ::8, ::8]
        difference = np.abs(ours - COMMUNITY[f"eta_{eta}"]).mean(axis=(1, 2, 3))
        assert (difference < 1).all()
        assert (np.abs(ours[::-1] - COMMUNITY[f"eta_{eta}"]).mean(axis=(1, 2, 3)) > 1).all()  # the other pose
