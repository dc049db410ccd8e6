"""The layout of the original's checkpoints: Stable Diffusion's `ldm`, with OpenAI's CLIP.

`model.diffusion_model.*` U-Net; `model_ema.*` its average, names without dots; `first_stage_model.*` autoencoder;
`cond_stage_model.model.visual.*` image encoder; `cc_projection.*`. One function per part maps names of tensors in
diffusers (or transformers) to these names, for both reading and writing.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from conf.options import UserError
from training.model.checkpoints.untrusted_file import Weights
from training.model.conditioning import CCProjection

UNET, EMA, VAE = "model.diffusion_model.", "model_ema.", "first_stage_model."
CLIP, PROJECTION = "cond_stage_model.model.visual.", "cc_projection."

# Other tensors in released checkpoints: noise schedule, counters of the average, loss of the autoencoder, text tower of
# CLIP. Any tensor that is neither here nor part of the model is refused, since its effect is unknown.
SKIPPED = re.compile(
    r"betas|(sqrt_|log_|sqrt_recip_|sqrt_recipm1_|sqrt_one_minus_|log_one_minus_)?alphas_cumprod(_prev)?|"
    r"posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|"
    r"model_ema\.(decay|num_updates)|first_stage_model\.loss\..+|cond_stage_model\.(mean|std|transformer\..+)|"
    r"cond_stage_model\.(.+\.)?(positional_embedding|text_projection(\.weight)?|logit_scale|token_embedding\.weight|"
    r"ln_final\.(weight|bias)|text_model\..+)|cond_stage_model\.model\.transformer\..+"
)

Names = Mapping[
    str, tuple[str, int | None]
]  # name in diffusers -> original name, and the third of it where q, k and v are stacked


def ldm_names(part: nn.Module) -> Names:
    """Return the original's names of the tensors of a part.

    Raises:
        UserError: The original's layout has no such part.
    """
    state = part.state_dict()
    match part:
        case UNet2DConditionModel() if not part.config["class_embed_type"]:
            attention = ["CrossAttn" in kind for kind in part.config["down_block_types"]]
            layers = part.config["layers_per_block"]
            return {key: (UNET + unet_name(key, layers, attention), None) for key in state}
        case AutoencoderKL():
            levels = len(part.config["block_out_channels"])
            return {key: (VAE + autoencoder_name(key, levels), None) for key in state}
        case CLIPVisionModelWithProjection():
            return {key: (CLIP + name, third) for key in state for name, third in [image_encoder_name(key)]}
        case CCProjection():
            return {key: (key.replace("projection.", PROJECTION), None) for key in state}
    raise UserError(f"the original's layout has no place for a {type(part).__name__}; choose a folder as the target")


def ema_name(name: str) -> str:
    """Return the name of the moving average of a tensor of the U-Net."""
    return EMA + name.removeprefix("model.").replace(".", "")


# ---- the U-Net

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(key: str, layers: int, attention: list[bool]) -> str:
    """Return the original's name of a tensor of the U-Net.

    Args:
        key: Name in diffusers.
        layers: Residual blocks per level.
        attention: Whether a level has attention, finest first.
    """
    match key.split("."):
        case ["conv_in", *rest]:
            words = ["input_blocks.0.0", *rest]
        case ["time_embedding", layer, *rest]:
            words = [{"linear_1": "time_embed.0", "linear_2": "time_embed.2"}[layer], *rest]
        case ["down_blocks", level, "downsamplers", _, _, *rest]:
            words = [f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.op", *rest]
        case ["down_blocks", level, kind, i, *rest]:
            words = [f"input_blocks.{int(level) * (layers + 1) + int(i) + 1}", *_unet_layer(kind, rest)]
        case ["mid_block", "resnets", i, *rest]:
            words = [f"middle_block.{2 * int(i)}", *_unet_layer("resnets", rest)[1:]]
        case ["mid_block", "attentions", _, *rest]:
            words = ["middle_block.1", *rest]
        case ["up_blocks", level, "upsamplers", _, _, *rest]:
            words = [f"output_blocks.{int(level) * (layers + 1) + layers}"]
            words += ["2" if attention[-1 - int(level)] else "1", "conv", *rest]
        case ["up_blocks", level, kind, i, *rest]:
            words = [f"output_blocks.{int(level) * (layers + 1) + int(i)}", *_unet_layer(kind, rest)]
        case [layer, *rest]:
            words = [{"conv_norm_out": "out.0", "conv_out": "out.2"}[layer], *rest]
    return ".".join(words)


def _unet_layer(kind: str, rest: list[str]) -> list[str]:
    return ["1", *rest] if kind == "attentions" else ["0", RESNET[rest[0]], *rest[1:]]


def unet_config(unet: Weights) -> dict[str, Any]:
    """Return the configuration of the U-Net that follows from the shapes; Stable Diffusion v1 has 8 heads."""
    channels, attention, i = [0], [False], 1
    while True:
        if f"input_blocks.{i}.0.op.weight" in unet:
            channels, attention = [*channels, 0], [*attention, False]
        elif f"input_blocks.{i}.0.out_layers.3.weight" in unet:
            channels[-1] = unet.shape(f"input_blocks.{i}.0.out_layers.3.weight", 4)[0]
            attention[-1] = f"input_blocks.{i}.1.norm.weight" in unet
        else:
            break
        i += 1
    return {
        "sample_size": 32,
        "in_channels": unet.shape("input_blocks.0.0.weight", 4)[1],
        "out_channels": unet.shape("out.2.weight", 4)[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": i // len(channels) - 1,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "cross_attention_dim": unet.shape("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "attention_head_dim": 8,  # diffusers' old name for the number of heads
    }


# ---- the autoencoder

ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}


def autoencoder_name(key: str, levels: int) -> str:
    """Return the original's name of a tensor of the autoencoder, which has so many levels."""
    match key.replace("to_out.0", "to_out").replace("conv_shortcut", "nin_shortcut").split("."):
        case [side, ("down_blocks" | "up_blocks") as side_blocks, level, kind, i, *rest]:
            # The original counts the decoder's levels from the finest, diffusers from the coarsest.
            at = int(level) if side_blocks == "down_blocks" else levels - 1 - int(level)
            end = {"resnets": ["block", i], "downsamplers": ["downsample"], "upsamplers": ["upsample"]}[kind]
            words = [side, side_blocks.removesuffix("_blocks"), str(at), *end, *rest]
        case [side, "mid_block", "resnets", i, *rest]:
            words = [side, "mid", f"block_{int(i) + 1}", *rest]
        case [side, "mid_block", "attentions", _, layer, *rest]:
            words = [side, "mid.attn_1", ATTENTION[layer], *rest]
        case words:
            words = ["norm_out" if word == "conv_norm_out" else word for word in words]
    return ".".join(words)


def autoencoder_config(vae: Weights) -> dict[str, Any]:
    """Return the configuration of the autoencoder that follows from the shapes of its tensors."""
    channels: list[int] = []
    layers = 0
    while f"encoder.down.{len(channels)}.block.0.conv1.weight" in vae:
        channels.append(vae.shape(f"encoder.down.{len(channels)}.block.0.conv1.weight", 4)[0])
    while f"encoder.down.0.block.{layers}.conv1.weight" in vae:
        layers += 1
    return {
        "in_channels": vae.shape("encoder.conv_in.weight", 4)[1],
        "out_channels": vae.shape("decoder.conv_out.weight", 4)[0],
        "block_out_channels": tuple(channels),
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": layers,
        "latent_channels": vae.shape("post_quant_conv.weight", 4)[0],
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }


# ---- the image encoder

VISION = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding": "conv1",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.encoder.layers": "transformer.resblocks",
    "vision_model.post_layernorm": "ln_post",
    "visual_projection.weight": "proj",
    ".layer_norm": ".ln_",
    ".mlp.fc1": ".mlp.c_fc",
    ".mlp.fc2": ".mlp.c_proj",
    ".self_attn": ".attn",
}
VISION_TOWER = re.compile(
    r"(?P<prefix>cond_stage_model\.(.+\.)?)((?P<openai>visual)|vision_model\.embeddings)\.class_embedding"
)
QKV = re.compile(r"\.([qkv])_proj\.")


def image_encoder_name(key: str) -> tuple[str, int | None]:
    """Return the original's name of a tensor of the image encoder, and its third of q, k and v stacked (else None)."""
    for transformers_name, openai_name in VISION.items():
        key = key.replace(transformers_name, openai_name)
    if found := QKV.search(key):
        return QKV.sub(".in_proj_", key), "qkv".index(found[1])
    return key, None


def rename_image_encoder(weights: Weights) -> Weights:
    """Rename an image encoder with another prefix under `cond_stage_model`, or with the names of transformers.

    Raises:
        UserError: A layer lacks some of its queries, keys and values.
    """
    tensors = dict(weights.tensors)
    if any(name.startswith(CLIP) for name in tensors):
        return weights
    found = next((match for name in tensors if (match := VISION_TOWER.fullmatch(name))), None)
    if found is None:
        return weights
    prefix = found["prefix"]
    tower = {name.removeprefix(prefix): tensors.pop(name) for name in [*tensors] if _is_vision_tower(name, prefix)}
    if found["openai"]:
        return replace(weights, tensors=tensors | {CLIP + k.removeprefix("visual."): t for k, t in tower.items()})
    thirds: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tower.items():
        name, third = image_encoder_name(key)
        if third is not None:
            thirds.setdefault(name, {})[third] = tensor
        elif not key.endswith(".position_ids"):
            tensors[CLIP + name] = tensor.T if name == "proj" else tensor
    for name, pieces in thirds.items():
        if len(pieces) < 3 or len({piece.shape[1:] for piece in pieces.values()}) > 1:
            raise UserError(f"{weights.path} is incomplete: {prefix}{name} needs q, k and v of one shape")
        tensors[CLIP + name] = torch.cat([pieces[i] for i in range(3)])
    return replace(weights, tensors=tensors)


def _is_vision_tower(name: str, prefix: str) -> bool:
    return name.startswith(tuple(prefix + part for part in ("visual.", "vision_model.", "visual_projection.")))


def image_encoder_config(clip: Weights) -> CLIPVisionConfig:
    """Return the configuration that follows from the shapes; OpenAI's CLIP has heads of width 64 and QuickGELU."""
    width, _, _, patch = clip.shape("conv1.weight", 4)
    layers = 0
    while f"transformer.resblocks.{layers}.ln_1.weight" in clip:
        layers += 1
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=clip.shape("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        image_size=patch * round((clip.shape("positional_embedding", 2)[0] - 1) ** 0.5),
        patch_size=patch,
        projection_dim=clip.shape("proj", 2)[1],
        hidden_act="quick_gelu",
    )
