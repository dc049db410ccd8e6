"""Cross-attention to a single context token, as in Zero-1-to-3, without the operations that then have no effect."""

from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


class OneTokenAttention:
    """Attention processor that returns `to_out(to_v(context))` for every pixel: a softmax over one score is 1."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Return `[B, 1, C]`, which the block adds to each pixel.

        Args:
            attn: Cross-attention layer.
            hidden_states: Pixels `[B, N, C]`.
            encoder_hidden_states: Context token `[B, 1, D]`.
        """
        assert encoder_hidden_states.shape[1] == 1, "one context token"
        linear, dropout = attn.to_out
        return dropout(linear(attn.to_v(encoder_hidden_states)))


def attend_to_one_token(unet: UNet2DConditionModel, shortcut: bool = True) -> UNet2DConditionModel:
    """Set the cross-attention of `unet` to `OneTokenAttention`, or (`shortcut=False`) to that of diffusers.

    Both compute the same function. Queries, keys and the norm before the queries do not affect it, so their gradient
    is zero. With the shortcut they are not trained at all; without it weight decay shrinks them, and Adam turns the
    rounding errors of fused attention into full steps.
    """
    processor = OneTokenAttention if shortcut else AttnProcessor2_0
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock) and block.attn2 is not None:
            block.attn2.set_processor(processor())  # type: ignore[arg-type]  # diffusers accepts any callable
            for part in idle_parts(block):
                part.requires_grad_(not shortcut)
    return unet


def idle_parts(block: BasicTransformerBlock) -> list[nn.Module]:
    """Return the modules of a block that have no effect with a single context token."""
    assert block.attn2 is not None
    return [block.norm2, block.attn2.to_q, block.attn2.to_k]
