"""A photograph as the model knows its training renders: one object on white, in the middle, of their size."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Prepared:
    """The square RGB picture that the model is shown, and the object as it was cut out (RGBA, straight alpha)."""

    image: Image.Image
    cutout: Image.Image


def prepare(photograph: Image.Image, cutout: str, fill: float | None, resolution: int) -> Prepared:
    """The object of a picture with its background gone, framed as in training."""
    side = max(photograph.size)
    canvas = Image.new("RGBA", (side, side), "white")
    whole = photograph.convert("RGBA")
    canvas.alpha_composite(whole, ((side - whole.width) // 2, (side - whole.height) // 2))
    return Prepared(canvas.convert("RGB").resize((resolution, resolution), Image.Resampling.BICUBIC), whole)
