"""Projections of a U-Net's transformer blocks, fused or split so that a compiled step moves fewer bytes.

diffusers computes queries, keys and values with one matrix product each, and both halves of the gated feed-forward
with one product together. The opposite is faster with equal results: one product for q, k and v reads its input once,
and two halves that never were one tensor need not be concatenated in the backward pass.
"""

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

# An adapter such as LoRA wraps a layer, and would be ignored where the weight of that layer is read.
ADAPTER_ERROR = "weights are read from plain layers: fuse_projections(unet, enabled=False) before adapters are added"


class FusedSelfAttention:
    """Attention processor for self-attention, with one matrix product for queries, keys and values."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, **_: object
    ) -> Tensor:
        """Return the attention output `[B, N, C]` of pixels `[B, N, C]`."""
        batch, pixels, width = hidden_states.shape
        layers = attn.to_q, attn.to_k, attn.to_v
        assert all(type(layer) is nn.Linear for layer in layers), ADAPTER_ERROR
        weight = torch.cat([layer.weight for layer in layers])
        qkv = linear(hidden_states, weight).view(batch, pixels, 3, attn.heads, width // attn.heads)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # [B, heads, N, C / heads]
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, pixels, width)
        to_out, dropout = attn.to_out
        return dropout(to_out(attended))


class SplitGEGLU(nn.Module):
    """GEGLU of diffusers, x·gelu(gate), with one matrix product each for x and gate.

    Args:
        proj: Layer of the GEGLU that is replaced; shared, so that names and values of weights stay.
    """

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return `[B, N, C_out]` for `[B, N, C_in]`."""
        assert type(self.proj) is nn.Linear, ADAPTER_ERROR
        (weight, gate_weight), (bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return linear(hidden_states, weight, bias) * gelu(linear(hidden_states, gate_weight, gate_bias))


def fuse_projections(unet: UNet2DConditionModel, enabled: bool = True) -> UNet2DConditionModel:
    """Fuse and split the projections of `unet` in place, or restore those of diffusers (`enabled=False`).

    Names and values of weights stay. Not for ZeRO-3, which gathers the weights of a layer when the layer is called:
    here weights are read without a call.
    """
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.attn1.set_processor(FusedSelfAttention() if enabled else AttnProcessor2_0())  # type: ignore[arg-type]
            proj: Any = block.ff.net[0].proj
            block.ff.net[0] = SplitGEGLU(proj) if enabled else _geglu(proj)
    return unet


def _geglu(proj: nn.Module) -> GEGLU:
    """Return the GEGLU of diffusers around an existing layer."""
    with torch.device("meta"):
        geglu = GEGLU(1, 1)
    geglu.proj = proj  # type: ignore[assignment]  # an adapter, possibly
    return geglu
