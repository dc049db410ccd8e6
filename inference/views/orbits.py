"""Sample orbits: views of a picture's object from all sides, as a strip of pictures and as an animation."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from inference.config import Sampling
from inference.novel_view import NovelView
from inference.poses import orbit_turns
from inference.preprocess.framing import Prepared
from inference.views.media import FRAMES_PER_SECOND, enlarged
from pipeline.html import picture

SIDE_PX = 192  # of the animation


@dataclass(frozen=True)
class OrbitInput:
    """A picture to sample an orbit from.

    Attributes:
        name: The object or the picture.
        picture: The prepared picture.
        elevation: Of the picture's camera, degrees above the horizon.
    """

    name: str
    picture: Prepared
    elevation: float


@dataclass(frozen=True)
class Orbit:
    """Views of one object on a circle around it.

    Attributes:
        name: The object or the picture.
        input: The picture that the views are sampled from, prepared.
        views: Views at equal steps of the azimuth; the first is that of the input camera.
    """

    name: str
    input: Image.Image
    views: tuple[Image.Image, ...]


def sample_orbits(model: NovelView, inputs: Sequence[OrbitInput], count: int, sampling: Sampling) -> list[Orbit]:
    """Sample an orbit of `count` views for each picture."""
    orbits, turns = [], orbit_turns(count)
    for number, shown in enumerate(inputs, 1):
        bar = f"orbit {number} of {len(inputs)}"
        views = model(shown.picture, turns, sampling, elevation=shown.elevation, bar=bar)
        orbits.append(Orbit(shown.name, shown.picture.image, tuple(views)))
    return orbits


def orbit_figure(orbit: Orbit) -> str:
    """Return an HTML figure: the input, the animation, and the views side by side."""
    animation = picture(animated(orbit.views), "webp", f"{orbit.name}, turning")
    views = "".join(picture(_webp(view), "webp", f"{orbit.name}, view {i}") for i, view in enumerate(orbit.views))
    return (
        f"<figure class='orbit'><div class='cells'><div>{picture(_webp(orbit.input), 'webp', f'{orbit.name}: input')}"
        f"<span>input</span></div><div>{animation}<span>sampled</span></div></div>"
        f"<div class='sheet'>{views}</div><figcaption><b>{escape(orbit.name)}</b></figcaption></figure>"
    )


def animated(views: Sequence[Image.Image]) -> bytes:
    """Return an animated WebP that loops forever."""
    first, *others = [enlarged(view, SIDE_PX) for view in views]
    buffer, duration = io.BytesIO(), 1000 // FRAMES_PER_SECOND
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=85)
    return buffer.getvalue()


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()
