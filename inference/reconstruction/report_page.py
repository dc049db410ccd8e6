"""Write the report of a reconstruction as one HTML page: input, mesh, views, sources of the colours, scores."""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.meshes.textured_mesh import TexturedMesh
from inference.reconstruction.fitted_field import ShownGuess
from inference.reconstruction.output_folder import COMMAND, Result
from inference.reconstruction.surface.baking import FIELD, PHOTOGRAPH, VIEWS, source_texture
from inference.reconstruction.turntable import turntable
from inference.views.media import FRAMES_PER_SECOND
from pipeline.html import page, picture, table, views_figure

MAP_VIEWS, MAP_PX = 4, 256
STYLE = """<style>
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; align-items: start; margin-top: 1.5rem; }
.pair img { width: 100%; display: block; background: #fff; border: 1px solid var(--line); border-radius: 12px; }
.maps .sheet { grid-template-columns: repeat(4, 1fr); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; list-style: none; }
.legend i { display: inline-block; width: .9em; height: .9em; border-radius: 3px; margin-right: .45em;
            vertical-align: -.1em; }
.tables { display: flex; flex-wrap: wrap; align-items: start; gap: 0 4rem; }
@media (max-width: 700px) { .pair { grid-template-columns: 1fr; } .pair figure:first-child img { max-width: 12rem; }
  .maps .sheet { grid-template-columns: repeat(2, 1fr); } }
</style>"""
SOURCES = ("visible in the picture", "visible in sampled views only", "visible in no view: colour of the field")
SCORES = {
    "consistency_db": "Agreement of the drawn views with each other",
    "views_db": "Agreement of the fit with its views",
    "photograph_db": "Agreement of the fit with the input",
}
TRUTH = {
    "iou": "Volume IoU with the true mesh",
    "chamfer": "Chamfer distance to the true mesh, longest side 1",
    "hull_iou": "IoU of the visual hull of the true views",
    "hull_chamfer": "Chamfer distance of that hull",
    "sphere_iou": "IoU of a sphere of the true volume",
    "sphere_chamfer": "Chamfer distance of that sphere",
}


def report_page(result: Result, frames: Sequence[Image.Image]) -> bytes:
    """Return the page of a result; `frames` are the pictures of the turning mesh."""
    field = result.field
    body = [
        STYLE,
        f"<h1>{escape(Path(result.name).name)}</h1>",
        f"<p class='soft'>Reconstructed from one picture in {sum(result.seconds.values()):.0f} seconds.</p>",
        "<div class='pair'>",
        figure(picture(webp(field.views.pictures[0]), "webp", "input"), "Input"),
        figure(picture(animated(frames), "webp", "the mesh, turning"), "Mesh"),
        "</div>",
        *guesses_section(field.guesses),
        "<h2>Sources of the surface</h2>",
        legend(),
        "<div class='maps'>",
        views_figure(
            [webp(pixels) for pixels in map_pictures(result.surface.sources)],
            "From the front, then each quarter turn",
            "",
        ),
        "</div>",
        "<h2>Views</h2>",
        views_figure(
            [webp(pixels) for pixels in field.views.pictures], "The input, and the views that were fitted", ""
        ),
        views_figure([webp(pixels) for pixels in field.renders.pictures], "The fit from the same cameras", ""),
        "<h2>Numbers</h2>",
        "<div class='tables'>",
        table(("", ""), numbers(result)),
        table(("stage", "seconds"), [(stage.capitalize(), f"{value:.1f}") for stage, value in result.seconds.items()]),
        "</div>",
    ]
    return page(f"Zero-1-to-3: {Path(result.name).name}", "\n".join(body), COMMAND)


def guesses_section(guesses: Sequence[ShownGuess]) -> list[str]:
    """Return HTML that shows the guesses one above the other, if there are several."""
    if len(guesses) < 2:
        return []
    lines = ["<h2>Guesses</h2>", "<p class='soft'>Sets of views from different noise. The first was fitted.</p>"]
    for guess in guesses:
        caption = f"its views agree to {guess.consistency_db:.1f} dB"
        lines.append(views_figure([webp(pixels) for pixels in guess.pictures], f"Seed {guess.seed}:", caption))
    return lines


def legend() -> str:
    """Return the legend of the maps of sources."""
    colours = source_texture(np.array([PHOTOGRAPH, VIEWS, FIELD], dtype=np.uint8))[:, :3]
    items = zip(colours.tolist(), SOURCES, strict=True)
    lines = [f"<li><i style='background: rgb{tuple(colour)}'></i>{text}</li>" for colour, text in items]
    return f"<ul class='legend'>{''.join(lines)}</ul>"


def numbers(result: Result) -> list[tuple[str, str]]:
    """Return the measures of a result in words, with their values."""
    check = result.surface.check
    return [
        ("Elevation of the input camera", f"{result.elevation:.0f}° above the horizon"),
        ("Faces", f"{check.faces:,}"),
        ("Watertight", "yes, printable" if check.watertight else "no"),
        ("Parts", str(check.components)),
        ("Agreement of the mesh with the fit", f"{result.surface.agreement_db:.1f} dB"),
        *((SCORES.get(name, name), f"{value:.1f} dB") for name, value in result.field.scores.items()),
        *((TRUTH[name], f"{value:.3f}") for name, value in result.truth.items()),
    ]


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
