"""Variants of the same training step for `training.benchmark`: ours, a plain loop, and those in between."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from training.config import OptimizerConfig
from training.model.attention import attend_to_one_token
from training.model.zero123 import Pairs, Zero123
from training.optimization.acceleration import allow_tensor_cores, prepare
from training.optimization.ema import Ema
from training.optimization.optimizer import adamw

WARM_UP_STEPS = 2  # not timed: they allocate the optimiser's state, autotune convolutions and compile


@dataclass(frozen=True)
class Variant:
    """The optimisations of a training step."""

    name: str
    latents: bool  # cached latents; else both encoders run at every step
    one_token: bool  # the shortcut of training.model.attention
    fused_attention: bool  # torch's scaled_dot_product_attention
    fused_optimizer: bool  # one kernel for AdamW
    foreach_average: bool  # training.optimization.ema; else diffusers' EMAModel, weight by weight
    autotune: bool  # cuDNN times its convolution algorithms
    channels_last: bool
    products: bool  # fused and split as in training.model.fused_projections
    compile: bool
    checkpointing: bool  # of activations


OURS = Variant("ours", True, True, True, True, True, True, True, True, True, False)
# The defaults of diffusers' own training scripts.
PLAIN = Variant("plain", False, False, True, False, False, False, False, False, False, False)
SWITCHES = (
    "latents", "one_token", "fused_optimizer", "foreach_average", "autotune", "products", "channels_last", "compile",
)  # fmt: skip


def ablations(ours: Variant) -> list[Variant]:
    """Return ours without each optimisation, ours with checkpointing, and plain with them added one by one."""
    parts = [part for part in (*SWITCHES, "fused_attention") if getattr(ours, part)]
    alone = [replace(ours, name=f"ours without {part}", **{part: False}) for part in parts]
    alone.append(replace(ours, name="ours with checkpointing", checkpointing=True))
    steps = [PLAIN]
    for part in parts:
        if part != "fused_attention":
            steps.append(replace(steps[-1], name=f"… + {part}", **{part: True}))
    return [*alone, *steps[1:-1]]  # the first and last are plain and ours


def begin(model: Zero123, variant: Variant, batch: int, dtype: torch.dtype, seed: int) -> Callable[[int], Tensor]:
    """Return the training step of a variant, a function of the step's number that returns the loss.

    The step trains on random pairs on the model's device. The model is set up in place; optimiser and average are new.

    Args:
        model: The model.
        variant: The variant.
        batch: Pairs per step.
        dtype: Type that the step computes in.
        seed: Seed of pairs, timesteps and noise.
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
    model.zero_grad()  # left by a block that ran out of memory
    optimizer = adamw(model, options, fused=variant.fused_optimizer)
    trained = [part for part in (unet, model.image_encoder) if any(p.requires_grad for p in part.parameters())]
    update_average = _average(trained, options.ema_decay, variant.foreach_average)
    generator = torch.Generator(device).manual_seed(seed)
    pairs, encoded = _pairs(model, batch, generator), _encoded(model, batch, generator)

    def step(number: int) -> Tensor:
        noise = torch.Generator(device).manual_seed(seed + number)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            if variant.latents:
                losses, _ = model.latent_losses(*encoded, model.pose(pairs), noise)
            else:
                losses, _ = model.losses(pairs, noise)
            loss = losses.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        update_average()
        return loss.detach()

    return step


def _average(trained: list[nn.Module], decay: float, foreach: bool) -> Callable[[], None]:
    """Return the function that updates the moving average of the weights of trained modules."""
    if foreach:
        average = Ema(trained, decay)
        average.begin()
        return average.update
    weights = [weight for module in trained for weight in module.parameters()]
    shadow = EMAModel(weights, decay)
    return lambda: shadow.step(weights)


@dataclass(frozen=True)
class Block:
    """Result of consecutive steps."""

    seconds: float  # per step
    peak_bytes: int | None  # memory of torch's allocator; None on a CPU
    loss: float  # of the last step


def measure(model: Zero123, variant: Variant, batch: int, dtype: torch.dtype, steps: int, seed: int) -> Block:
    """Time `steps` steps of a variant, after some to warm up.

    Raises:
        torch.OutOfMemoryError: The batch does not fit into memory.
    """
    device = model.device
    cuda = device.type == "cuda"
    _release()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    step = begin(model, variant, batch, dtype, seed)
    for number in range(WARM_UP_STEPS):
        step(number)
    _synchronize(device)
    start = clock(device)
    for number in range(WARM_UP_STEPS, WARM_UP_STEPS + steps):
        loss = step(number)
    _synchronize(device)
    seconds = (clock(device) - start) / steps
    return Block(seconds, torch.cuda.max_memory_allocated(device) if cuda else None, float(loss))


def clock(device: torch.device) -> float:
    """Return a time in seconds; CPU time for a single CPU thread, which other load affects little."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def _pairs(model: Zero123, batch: int, generator: torch.Generator) -> Pairs:
    shape = (2, batch, 3, model.resolution, model.resolution)
    images = torch.rand(shape, generator=generator, device=model.device) * 2 - 1
    pose = torch.randn(batch, 4, generator=generator, device=model.device)
    return {"target": images[0], "condition": images[1], "pose": pose, "condition_polar": pose[:, 0]}


def _encoded(model: Zero123, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return random latents and embeddings in the shapes of latent shards."""
    shape = (2, batch, model.latent_channels, model.latent_size, model.latent_size)
    target, condition = torch.randn(shape, generator=generator, device=model.device)
    width = model.image_encoder.config.projection_dim
    return target, condition, torch.randn(batch, width, generator=generator, device=model.device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _release() -> None:
    """Free the memory of the previous block, whose graph may be held by reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
