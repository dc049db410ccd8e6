"""Ways to take the same training step, which `training.benchmark` compares: ours, a plain loop, and those between."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from training.acceleration import allow_tensor_cores, prepare
from training.config import OptimizerConfig
from training.ema import Ema
from training.model.attention import attend_to_one_token
from training.model.zero123 import Pairs, Zero123
from training.optimizer import adamw

WARM_UP = 2  # steps that are not timed: they allocate the optimiser's state, choose convolutions, compile


@dataclass(frozen=True)
class Variant:
    """What a step is made of."""

    name: str
    latents: bool  # pairs come encoded; else autoencoder and image encoder run at every step
    one_token: bool  # the shortcut of training.model.attention
    fused_attention: bool  # torch's scaled_dot_product_attention
    fused_optimizer: bool  # one kernel for AdamW
    foreach_average: bool  # training.ema; else diffusers' EMAModel, a weight at a time
    autotune: bool  # cuDNN tries its convolutions
    channels_last: bool
    products: bool  # cut as in training.model.fused_projections
    compile: bool
    checkpointing: bool  # of activations


OURS = Variant("ours", True, True, True, True, True, True, True, True, True, False)
# What diffusers' own training scripts do by default.
PLAIN = Variant("plain", False, False, True, False, False, False, False, False, False, False)
SWITCHES = (
    "latents", "one_token", "fused_optimizer", "foreach_average", "autotune", "products", "channels_last", "compile",
)  # fmt: skip


def ablations(ours: Variant) -> list[Variant]:
    """Each part of ours left out alone, activations checkpointed, and the plain loop on its way to ours."""
    parts = [part for part in (*SWITCHES, "fused_attention") if getattr(ours, part)]
    alone = [replace(ours, name=f"ours without {part}", **{part: False}) for part in parts]
    alone.append(replace(ours, name="ours with checkpointing", checkpointing=True))
    steps = [PLAIN]
    for part in parts:
        if part != "fused_attention":
            steps.append(replace(steps[-1], name=f"… + {part}", **{part: True}))
    return [*alone, *steps[1:-1]]  # the ends are measured anyway


def begin(model: Zero123, variant: Variant, batch: int, dtype: torch.dtype, seed: int) -> Callable[[int], Tensor]:
    """The step of a variant, as a function of its number, over made-up pairs that lie on the model's device.

    The model is set up in place, and changed by each step; optimiser and average are new.
    """
    options, device = OptimizerConfig(), model.device
    unet = attend_to_one_token(model.unet, shortcut=variant.one_token)
    allow_tensor_cores(variant.autotune)
    prepare(unet, variant.channels_last, variant.compile, variant.checkpointing, variant.products)
    if not variant.fused_attention:
        for block in unet.modules():
            if isinstance(block, BasicTransformerBlock):
                block.attn1.set_processor(AttnProcessor())
    model.train()
    model.zero_grad()  # of a block that did not fit
    optimizer = adamw(model, options, fused=variant.fused_optimizer)
    follow = _average(unet, options.ema_decay, variant.foreach_average)
    draw = torch.Generator(device).manual_seed(seed)
    pairs, encoded = _pairs(model, batch, draw), _encoded(model, batch, draw)

    def step(number: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed + number)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            if variant.latents:
                losses, _ = model.latent_losses(*encoded, model.pose(pairs), generator)
            else:
                losses, _ = model.losses(pairs, generator)
            loss = losses.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        follow()
        return loss.detach()

    return step


def _average(unet: UNet2DConditionModel, decay: float, foreach: bool) -> Callable[[], None]:
    """What lets the averaged weights follow the U-Net's."""
    if foreach:
        average = Ema(unet, decay)
        average.begin()
        return average.update
    shadow = EMAModel(unet.parameters(), decay)
    return lambda: shadow.step(unet.parameters())


@dataclass(frozen=True)
class Block:
    """Some steps in a row."""

    seconds: float  # of one step
    peak_bytes: int | None  # of memory; None where torch does not count it
    loss: float  # of the last step


def measure(model: Zero123, variant: Variant, batch: int, dtype: torch.dtype, steps: int, seed: int) -> Block:
    """Time `steps` steps after some to warm up.

    Raises:
        torch.OutOfMemoryError: the batch does not fit.
    """
    device = model.device
    cuda = device.type == "cuda"
    _release()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    step = begin(model, variant, batch, dtype, seed)
    for number in range(WARM_UP):
        step(number)
    _wait(device)
    begun = clock(device)
    for number in range(WARM_UP, WARM_UP + steps):
        loss = step(number)
    _wait(device)
    seconds = (clock(device) - begun) / steps
    return Block(seconds, torch.cuda.max_memory_allocated(device) if cuda else None, float(loss))


def clock(device: torch.device) -> float:
    """Seconds; of one thread on a CPU those that it worked, so that other work beside it counts little."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def _pairs(model: Zero123, batch: int, generator: torch.Generator) -> Pairs:
    shape = (2, batch, 3, model.resolution, model.resolution)
    pictures = torch.rand(shape, generator=generator, device=model.device) * 2 - 1
    pose = torch.randn(batch, 4, generator=generator, device=model.device)
    return {"target": pictures[0], "condition": pictures[1], "pose": pose, "condition_polar": pose[:, 0]}


def _encoded(model: Zero123, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """As latent shards give them; what the numbers are does not matter to the time."""
    shape = (2, batch, model.latent_channels, model.latent_size, model.latent_size)
    target, condition = torch.randn(shape, generator=generator, device=model.device)
    width = model.image_encoder.config.projection_dim
    return target, condition, torch.randn(batch, width, generator=generator, device=model.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _release() -> None:
    """Memory of the block before, whose graph may lie in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
