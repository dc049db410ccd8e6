"""Matrix products of a U-Net's transformer blocks, cut so that a compiled step moves fewer bytes.

diffusers multiplies by queries', keys' and values' weights one after the other, and by both halves of the gated
feed-forward's at once. The other way round the same numbers come out: one product in place of three reads its input
once, and two halves that were never one tensor need not be joined again in the backward pass.
"""

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

# An adapter such as LoRA, which wraps a layer, would be passed over.
ADAPTED = "weights are read from plain layers: cut_products(unet, cut=False) before adapters are added"


class JoinedSelfAttention:
    """Attention of pixels to each other, with one product for queries, keys and values."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, **_: object
    ) -> Tensor:
        """Pixels `[B, N, C]` to `[B, N, C]`."""
        batch, pixels, width = hidden_states.shape
        layers = attn.to_q, attn.to_k, attn.to_v
        assert all(type(layer) is nn.Linear for layer in layers), ADAPTED
        weight = torch.cat([layer.weight for layer in layers])
        joined = linear(hidden_states, weight).view(batch, pixels, 3, attn.heads, width // attn.heads)
        query, key, value = (part.transpose(1, 2) for part in joined.unbind(2))  # [B, heads, N, C / heads]
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, pixels, width)
        to_out, dropout = attn.to_out
        return dropout(to_out(attended))


class HalvedGEGLU(GEGLU):
    """x·gelu(gate), where x and gate are a product each."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        assert type(self.proj) is nn.Linear, ADAPTED
        (weight, gate_weight), (bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return linear(hidden_states, weight, bias) * gelu(linear(hidden_states, gate_weight, gate_bias))


def fuse_projections(unet: UNet2DConditionModel, cut: bool = True) -> UNet2DConditionModel:
    """Let the blocks of `unet` multiply this way, or (`cut=False`) diffusers'. Its weights keep names and values.

    Not for ZeRO-3, which gathers the weights of a layer when that layer is called: here layers are read.
    """
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.attn1.set_processor(JoinedSelfAttention() if cut else AttnProcessor2_0())  # type: ignore[arg-type]
            block.ff.net[0].__class__ = HalvedGEGLU if cut else GEGLU
    return unet
