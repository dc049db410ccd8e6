"""The report of a reconstruction: input, mesh, views, sources of the colours, scores, as one HTML page."""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.meshes.textured_mesh import TexturedMesh
from inference.reconstruction.output_folder import COMMAND, Result
from inference.reconstruction.turntable import turntable
from inference.views.media import FRAMES_PER_SECOND
from pipeline.html import page, picture, table, views_figure

MAP_VIEWS, MAP_PX = 4, 256


def report_page(result: Result, frames: Sequence[Image.Image]) -> bytes:
    """Return the page of a result; `frames` are the pictures of the turning mesh."""
    check = result.surface.check
    rows = [
        ("elevation of the input camera", f"{result.elevation:.0f}°"),
        ("faces", check.faces),
        ("watertight", "yes" if check.watertight else "no"),
        ("mesh against the field's renders", f"{result.surface.agreement_db:.1f} dB"),
        *((SCORES.get(name, name), f"{value:.1f} dB") for name, value in result.field.scores.items()),
        *((TRUTH[name], f"{value:.4f}") for name, value in result.truth.items()),
    ]
    seconds = [(stage, f"{value:.1f}") for stage, value in result.seconds.items()]
    body = [
        f"<h1>{escape(result.name)}</h1>",
        "<div class='orbits'>",
        figure(picture(webp(result.field.views.pictures[0]), "webp", "input"), "input"),
        figure(picture(animated(frames), "webp", "the mesh, turning"), "mesh"),
        "</div>",
        "<h2>Seen and invented</h2>",
        "<p class='soft'>Green: coloured by the picture. Blue: by drawn views. Orange: seen by no view.</p>",
        views_figure([webp(pixels) for pixels in map_pictures(result.surface.sources)], "sources of the colours", ""),
        "<h2>Views</h2><p class='soft'>The input, and the views that the field was fitted to.</p>",
        views_figure([webp(pixels) for pixels in result.field.views.pictures], "views", ""),
        "<h2>Renders of the field</h2>",
        views_figure([webp(pixels) for pixels in result.field.renders.pictures], "renders", ""),
        "<h2>Numbers</h2>",
        table(("", ""), rows),
        table(("stage", "seconds"), seconds),
    ]
    return page(f"Zero-1-to-3: {result.name}", "\n".join(body), COMMAND)


SCORES = {
    "consistency_db": "views that a fit to the others predicts",
    "views_db": "fit against its views",
    "photograph_db": "fit against the input",
}
TRUTH = {
    "iou": "volume IoU with the true mesh",
    "chamfer": "Chamfer distance to the true mesh",
    "hull_iou": "the same IoU of the visual hull of the true views",
    "hull_chamfer": "the same distance of the visual hull of the true views",
    "sphere_iou": "the same IoU of a sphere of the true volume",
    "sphere_chamfer": "the same distance of a sphere of the true volume",
}


def figure(image: str, caption: str) -> str:
    """Return an HTML figure."""
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def map_pictures(sources: TexturedMesh) -> NDArray[np.uint8]:
    """Return pictures of the mesh that shows the sources of its colours, from four sides."""
    return np.stack([np.asarray(image) for image in turntable(sources, MAP_VIEWS, MAP_PX)])


def webp(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture as WebP."""
    contents = io.BytesIO()
    Image.fromarray(pixels).save(contents, "WEBP", quality=90)
    return contents.getvalue()


def animated(frames: Sequence[Image.Image]) -> bytes:
    """Return an animated WebP that loops forever."""
    contents, (first, *others) = io.BytesIO(), frames
    first.save(
        contents, "WEBP", save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0, quality=85
    )
    return contents.getvalue()
