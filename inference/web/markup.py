"""Pieces of HTML for the web page. Whatever comes from outside goes through `escape`."""

import base64
import io
from html import escape

import torch
from PIL import Image

from inference.novel_view import NovelView
from inference.poses import Turn
from inference.web.jobs import Progress
from inference.web.service import ViewRequest

WELCOME = "Drop a picture of one object to begin."
CAPTIONS = "<div class='captions'><p>Photograph</p><p>Shown to the model</p></div>"


def header(checkpoint: str, novel_view: NovelView) -> str:
    """What this is, and which checkpoint draws at which resolution on which device."""
    model = novel_view.model
    cuda = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if cuda else "CPU"
    kind = str(model.unet.dtype).removeprefix("torch.")
    facts = (checkpoint, f"{model.resolution} × {model.resolution}", f"{device}, {kind}")
    return f"""<header><div><h1>Another view</h1><p>One picture of an object in, any other view of it out.</p></div>
<ul>{"".join(f"<li>{escape(fact)}</li>" for fact in facts)}</ul></header>"""


def cutout(picture: Image.Image | None) -> str:
    """What the model is shown."""
    if picture is None:
        return "<figure class='card empty'></figure>"
    return f"<figure class='card'><img src='{data_url(picture)}' alt='The object as the model is shown it'/></figure>"


def view(picture: Image.Image | None = None, turn: Turn = (0, 0, 0), quick: bool = False) -> str:
    """The large picture with a link that takes it away; without one, the place for it."""
    if picture is None:
        return f"<figure class='card empty'>{CAMERA}<p>The object from elsewhere appears here.</p></figure>"
    polar, azimuth, radius = turn
    name = f"view_{polar:+g}_{azimuth:+g}_{radius:+g}.png"
    url = data_url(picture)
    label = f"Δpolar {signed(polar)}°, Δazimuth {signed(azimuth)}°, Δradius {signed(radius)}"
    link = "" if quick else f"<a download='{name}' href='{url}'>PNG</a>"
    kind = "quick" if quick else "whole"
    return f"""<figure class='card {kind}'><img src='{url}' alt='The object after {label}'/>
<figcaption><span>{label}</span>{link}</figcaption></figure>"""


def message(sentence: str) -> str:
    return f"<p role='status'>{escape(sentence)}</p>"


def busy(verb: str, progress: Progress | None = None) -> str:
    """A bar, and how long it will take."""
    if progress is None:
        return f"<p role='status'>{escape(verb)} …</p><div class='bar waiting'><i></i></div>"
    percent = 100 * progress.done / progress.total
    return f"""<p role='status'>{escape(verb)} <span>step {progress.done} of {progress.total},
{duration(progress.seconds_left)} left</span></p><div class='bar'><i style='width:{percent:.1f}%'></i></div>"""


def finished(wish: ViewRequest, seconds: float) -> str:
    """What was done, and how long it took."""
    sampling = wish.sampling
    what = f"{wish.views} views in {duration(seconds)}" if wish.views > 1 else f"Drawn in {duration(seconds)}"
    how = f"{sampling.steps} steps of {sampling.sampler}, guidance {sampling.guidance:g}, seed {sampling.seed}"
    return f"<p role='status'>{what} <span>{how}</span></p>"


def miniature(cutout: Image.Image) -> Image.Image:
    """The object alone, small, for a camera to be moved around: a photograph's cut-out may have megabytes."""
    small = cutout.crop(cutout.getchannel("A").getbbox())
    small.thumbnail((256, 256))
    return small


def data_url(picture: Image.Image) -> str:
    """The picture itself, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def signed(number: float) -> str:
    return f"{number:+.4g}".replace("-", "−") if number else "0"


CAMERA = """<svg viewBox="0 0 120 90" aria-hidden="true"><path d="M34 26h12l6-9h26l6 9h10a8 8 0 0 1 8 8v34a8 8 0 0 1-8 8
H26a8 8 0 0 1-8-8V34a8 8 0 0 1 8-8h8z"/><circle cx="62" cy="49" r="16"/></svg>"""
