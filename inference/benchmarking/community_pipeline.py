"""Run diffusers' community pipeline of Zero-1-to-3 with the weights and the noise of this project, to compare with."""

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from conf.options import UserError, first_line
from inference.config import BenchmarkConfig, Sampler
from inference.poses import Turn
from training.model.zero123 import Zero123


def community_pipeline(
    file: Path, model: Zero123, config: BenchmarkConfig
) -> Callable[[Image.Image, Turn], Image.Image]:
    """Return a function that samples one view with the community pipeline and the model's weights.

    Raises:
        UserError: The file cannot be executed, or the pipeline does not support the model or the sampler.
    """
    if not isinstance(model.vae, AutoencoderKL) or config.sampling.sampler is not Sampler.ddim:
        raise UserError(
            "community: the pipeline supports only sampling.sampler=ddim and checkpoints with Stable Diffusion's parts"
        )
    # The pipeline has one precision for all parts; the method `to` of diffusers' models would print a warning.
    projection = nn.Module.to(copy.deepcopy(model.cc_projection), model.unet.dtype)
    scheduler = Float32NoiseScheduler.from_config(model.scheduler.config)
    pipeline = _pipeline_class(file)(
        model.vae, model.image_encoder, model.unet, scheduler, None, None, projection, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    sampling, size = config.sampling, model.latent_size
    latent = torch.empty(1, model.latent_channels, size, size, device=model.device, dtype=model.unet.dtype)

    def call(picture: Image.Image, turn: Turn) -> Image.Image:
        generator = torch.Generator().manual_seed(sampling.seed)
        return pipeline(
            latents=float32_noise(latent, generator),
            input_imgs=picture,
            prompt_imgs=picture,
            poses=[list(turn)],
            height=model.resolution,
            width=model.resolution,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            eta=sampling.eta,
            generator=generator,
        ).images[0]

    return call


class Float32NoiseScheduler(DDIMScheduler):
    """DDIM that draws its noise in float32 for samples of any precision, as `NovelView` does.

    A seed gives other random numbers in float16 than in float32 with some releases of torch (2.11).
    """

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the sample of the previous timestep."""
        noise = float32_noise(sample, generator)
        return super().step(model_output, timestep, sample, eta, variance_noise=noise, return_dict=return_dict)


def float32_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return standard normal noise, drawn in float32, of the shape, device and precision of a tensor."""
    return randn_tensor(like.shape, generator=generator, device=like.device, dtype=torch.float32).to(like.dtype)


def _pipeline_class(file: Path) -> Any:
    """Execute the file of the community pipeline, and return its class."""
    if not hasattr(transformers, "CLIPFeatureExtractor"):
        # The name of the class when the file was written.
        transformers.CLIPFeatureExtractor = transformers.CLIPImageProcessorPil  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("community_pipeline", file)
    if spec is None or spec.loader is None:
        raise UserError(f"community={file}: is not a Python file")
    module = sys.modules["community_pipeline"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.Zero1to3StableDiffusionPipeline
    except FileNotFoundError:
        raise UserError(f"community={file}: there is no such file") from None
    except ImportError as error:
        raise UserError(f"community={file}: needs another package ({error}); install it") from error
    except Exception as error:  # the file is code of others
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"community={file}: has no Zero-1-to-3 pipeline ({reason}); give diffusers' file") from error
