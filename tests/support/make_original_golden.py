"""Write `tests/training/original.npz` anew: results of the original's code for weights that follow from their names.

    python -m tests.support.make_original_golden zero123 CLIP tests/training/original.npz

The first two arguments are checkouts of the repositories cvlab-columbia/zero123 and openai/CLIP. Their code is
executed, and needs the package kornia 0.6; packages that it imports and these computations do not use are replaced. The
widths are those of `tests.support.originals.REDUCED`. Floating point sums differ between machines and numbers
of threads, by up to 1e-5 of an array's norm; `tests/training/test_ldm_names.py` compares at 1e-4.
"""

import hashlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import lightning.pytorch
import numpy as np
import torch
from omegaconf import OmegaConf

from tests.support.originals import noise, rule

UNUSED = ["carvekit.api.high", "taming.modules.vqvae.quantize", "torchvision", "torchvision.utils", "cv2"]
PARTS = (
    "model.diffusion_model.",
    "model_ema.",
    "first_stage_model.",
    "cond_stage_model.model.visual.",
    "cc_projection.",
)
COUNTERS = ("model_ema.decay", "model_ema.num_updates")


def import_original(zero123: Path, clip: Path) -> None:
    """Make `ldm` importable, with a reduced CLIP in place of the weights that it downloads."""
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    sys.modules["pytorch_lightning"] = lightning.pytorch
    sys.modules["pytorch_lightning.utilities.distributed"] = lightning.pytorch.utilities.rank_zero
    spec = spec_from_file_location("clip_model", clip / "clip/model.py")
    assert spec and spec.loader
    code = module_from_spec(spec)
    spec.loader.exec_module(code)

    def load(**_: Any) -> tuple[torch.nn.Module, None]:
        return code.CLIP(768, 224, 2, 128, 14, 77, 100, 64, 1, 1), None

    sys.modules["clip"] = ModuleType("clip")
    sys.modules["clip"].load = load  # type: ignore[attr-defined]
    sys.path.insert(0, str(zero123 / "zero123"))


def build(zero123: Path) -> tuple[torch.nn.Module, str]:
    """Return the original's LatentDiffusion with weights by `rule`, and the sha256 of their names and shapes."""
    from ldm.util import instantiate_from_config

    config = OmegaConf.load(zero123 / "zero123/configs/sd-objaverse-finetune-c_concat-256.yaml").model
    config.params.unet_config.params.model_channels = 32
    config.params.first_stage_config.params.ddconfig.ch = 32
    model = instantiate_from_config(config).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if name.startswith(PARTS) and name not in COUNTERS}
    model.load_state_dict({name: rule(name, shape) for name, shape in shapes.items()}, strict=False)
    lines = sorted(f"{name} {[*shape]}" for name, shape in shapes.items())
    return model, hashlib.sha256("\n".join(lines).encode()).hexdigest()


def results(model: Any) -> dict[str, torch.Tensor]:
    """Return parts of what the model computes for two pictures."""
    from ldm.models.diffusion.ddim import DDIMSampler

    class Sampler(DDIMSampler):
        def register_buffer(self, name: str, attr: Any) -> None:  # the original's moves tensors to a GPU
            setattr(self, name, attr)

    pictures, pose, noisy = torch.tanh(noise("pictures", 2, 3, 64, 64)), noise("pose", 2, 4), noise("noisy", 2, 4, 8, 8)
    timesteps = torch.tensor([7, 801])
    embedding = model.get_learned_conditioning(pictures)
    context = model.cc_projection(torch.cat([embedding, pose[:, None]], dim=-1))
    posterior = model.encode_first_stage(pictures)
    condition = {"c_concat": [posterior.mode()], "c_crossattn": [context]}
    null = {name: [torch.zeros_like(tensor) for tensor in tensors] for name, tensors in condition.items()}
    guidance = {"unconditional_guidance_scale": 3.0, "unconditional_conditioning": null}
    found = {
        "clip_input": model.cond_stage_model.preprocess(pictures)[:, :, ::37, ::37],
        "embedding": embedding[:, 0, ::5],
        "context": context[:, 0, ::5],
        "moments": posterior.parameters[..., ::2, ::2],
        "decoded": model.decode_first_stage(noisy)[:, :, ::7, ::7][..., ::2, ::2],
        "noise_last": model.apply_model(noisy, timesteps, condition)[..., ::2, ::2],
    }
    with model.ema_scope():
        found["noise"] = model.apply_model(noisy, timesteps, condition)[..., ::2, ::2]
        latent, _ = Sampler(model).sample(4, 2, [4, 8, 8], condition, eta=0.0, x_T=noisy, **guidance)
        found["ddim_0"] = latent[..., ::2, ::2]
    return found


def loss(model: Any) -> torch.Tensor:
    """Return the loss of four pairs with given random numbers, the last layer scaled by 20."""
    model.model.diffusion_model.out[2].weight.mul_(20)
    batch = {
        "image_target": torch.tanh(noise("four", 4, 3, 64, 64)).permute(0, 2, 3, 1),
        "image_cond": torch.tanh(noise("four_condition", 4, 3, 64, 64)).permute(0, 2, 3, 1),
        "T": noise("four_pose", 4, 4),
    }
    with (
        patch("torch.randn", lambda *_, **__: noise("latent", 4, 4, 8, 8)),
        patch("torch.randn_like", lambda *_, **__: noise("noise", 4, 4, 8, 8)),
        patch("torch.rand", lambda *_, **__: torch.tensor([0.5, 0.02, 0.07, 0.12])),
        patch("torch.randint", lambda *_, **__: torch.tensor([7, 300, 801, 999])),
    ):
        return model.shared_step(batch)[0]


if __name__ == "__main__":
    import_original(Path(sys.argv[1]), Path(sys.argv[2]))
    original, names = build(Path(sys.argv[1]))
    with torch.no_grad():
        arrays = {name: tensor.numpy() for name, tensor in (results(original) | {"loss": loss(original)}).items()}
    np.savez_compressed(sys.argv[3], names=names, **arrays)
