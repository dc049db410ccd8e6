"""Build HTML for the web page. All text that comes from outside is escaped."""

import base64
import io
from html import escape

import torch
from PIL import Image

from inference.novel_view import NovelView
from inference.poses import Turn
from inference.web.jobs import Progress
from inference.web.service import ViewRequest
from training.model.hardware.device import dtype_name

WELCOME = "Upload a picture of one object to begin."
CAPTIONS = "<div class='captions'><p>Picture</p><p>Input of the model</p></div>"
THUMBNAIL_PX = 256


def header(checkpoint: str, novel_view: NovelView) -> str:
    """Return the title with the checkpoint, its resolution, the device and the number format."""
    model = novel_view.model
    cuda = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if cuda else "CPU"
    facts = (checkpoint, f"{model.resolution} × {model.resolution}", f"{device}, {dtype_name(model.unet.dtype)}")
    return f"""<header><div><h1>Novel views</h1><p>See the object of one picture from other cameras.</p></div>
<ul>{"".join(f"<li>{escape(fact)}</li>" for fact in facts)}</ul></header>"""


def cutout(picture: Image.Image | None) -> str:
    """Return the input of the model, or an empty frame."""
    if picture is None:
        return "<figure class='card empty'></figure>"
    return f"<figure class='card'><img src='{data_url(picture)}' alt='The input of the model'/></figure>"


def view(picture: Image.Image | None = None, turn: Turn = (0, 0, 0), preview: bool = False) -> str:
    """Return a view with its turn and, unless it is a preview, a link to download it; without one, an empty frame."""
    if picture is None:
        return f"<figure class='card empty'>{CAMERA_ICON}<p>The new view appears here.</p></figure>"
    polar, azimuth, radius = turn
    name = f"view_{polar:+g}_{azimuth:+g}_{radius:+g}.png"
    url = data_url(picture)
    label = f"Δpolar {signed(polar)}°, Δazimuth {signed(azimuth)}°, Δradius {signed(radius)}"
    link = "" if preview else f"<a download='{name}' href='{url}'>PNG</a>"
    kind = "preview" if preview else "final"
    return f"""<figure class='card {kind}'><img src='{url}' alt='The object after {label}'/>
<figcaption><span>{label}</span>{link}</figcaption></figure>"""


def message(sentence: str) -> str:
    """Return a status message."""
    return f"<p role='status'>{escape(sentence)}</p>"


def busy(task: str, progress: Progress | None = None) -> str:
    """Return a status message with a progress bar and, once steps are reported, the time left."""
    if progress is None:
        return f"<p role='status'>{escape(task)} …</p><div class='bar waiting'><i></i></div>"
    percent = 100 * progress.done / progress.total
    return f"""<p role='status'>{escape(task)} <span>step {progress.done} of {progress.total},
{duration(progress.seconds_left)} left</span></p><div class='bar'><i style='width:{percent:.1f}%'></i></div>"""


def finished(request: ViewRequest, seconds: float) -> str:
    """Return the status message of a finished request: its time and its settings."""
    sampling = request.sampling
    subject = f"{request.views} views" if request.views > 1 else "View"
    settings = f"{sampling.steps} steps of {sampling.sampler}, guidance {sampling.guidance:g}, seed {sampling.seed}"
    return f"<p role='status'>{subject} in {duration(seconds)} <span>{settings}</span></p>"


def reconstructed(request: ViewRequest, faces: int, seconds: float) -> str:
    """Return the status message of a finished 3D model: its time and its size."""
    settings = f"{faces} faces, {request.sampling.steps} steps of {request.sampling.sampler} for each view"
    return f"<p role='status'>3D model in {duration(seconds)} <span>{settings}</span></p>"


def thumbnail(cutout: Image.Image) -> Image.Image:
    """Return the object's bounding box, scaled down for the camera control."""
    small = cutout.crop(cutout.getchannel("A").getbbox())
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return small


def data_url(picture: Image.Image) -> str:
    """Return the picture as a data URL, PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def duration(seconds: float) -> str:
    """Return a duration such as "3.1 s" or "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def signed(number: float) -> str:
    """Return a number with its sign, "0" for zero."""
    return f"{number:+.4g}".replace("-", "−") if number else "0"


CAMERA_ICON = """<svg viewBox="0 0 120 90" aria-hidden="true"><path d="
M34 26h12l6-9h26l6 9h10a8 8 0 0 1 8 8v34a8 8 0 0 1-8 8
H26a8 8 0 0 1-8-8V34a8 8 0 0 1 8-8h8z"/><circle cx="62" cy="49" r="16"/></svg>"""
