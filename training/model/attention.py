"""Cross-attention to a single context token, as Zero-1-to-3 has it, without what a single token makes idle."""

from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


class OneTokenAttention:
    """`to_out(to_v(context))`, the same for every pixel: the softmax over one score is 1, whatever the score."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """Pixels `[B, N, C]` and the token `[B, 1, D]` to `[B, 1, C]`, which the block adds to each pixel."""
        assert encoder_hidden_states.shape[1] == 1, "one context token"
        linear, dropout = attn.to_out
        return dropout(linear(attn.to_v(encoder_hidden_states)))


def attend_to_one_token(unet: UNet2DConditionModel, shortcut: bool = True) -> UNet2DConditionModel:
    """Let the cross-attention of `unet` take the shortcut, or (`shortcut=False`) diffusers' general way.

    Both compute the same function. Queries, keys and the norm in front of the queries have no influence on it, so
    their gradient is zero; with the shortcut they do not learn at all (without it weight decay shrinks them, and the
    rounding errors of fused attention, which Adam blows up to whole steps, stir them).
    """
    processor = OneTokenAttention if shortcut else AttnProcessor2_0
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock) and block.attn2 is not None:
            block.attn2.set_processor(processor())  # type: ignore[arg-type]  # diffusers means any callable
            for part in idle_parts(block):
                part.requires_grad_(not shortcut)
    return unet


def idle_parts(block: BasicTransformerBlock) -> list[nn.Module]:
    """What decides nothing in a block that attends to one token."""
    assert block.attn2 is not None
    return [block.norm2, block.attn2.to_q, block.attn2.to_k]
