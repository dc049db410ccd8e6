"""The object of a photograph without its background: by its own alpha, plain white, or a segmentation model.

The models are U²-Net (arXiv 2005.09007) and IS-Net (arXiv 2203.03041) as rembg publishes and feeds them.
"""

import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pooch
from numpy.typing import NDArray
from PIL import Image

from conf.options import UserError
from inference.preprocess.photograph import PictureError
from training.model.picture import Background, on_white

if TYPE_CHECKING:
    import onnxruntime

RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
MODELS = {  # files of that release and their checksums in rembg's source
    "u2netp": ("u2netp.onnx", "md5:8e83ca70e441ab06c318d82300c84806"),
    "isnet": ("isnet-general-use.onnx", "md5:fc16ebd8b0c10d971d3513d564d01e29"),
}
ISNET_SIDE = 1024
ASKED_AGAIN = 600  # seconds until a server that could not be reached is asked again, not at each picture of a folder
MOST_BYTES = 2**30  # of a model
MOST_SIDE = 2048  # of a picture that is cut out: bounds time and memory, and is more than any model sees
OPAQUE = 128  # alpha from which on a pixel is the object's
LEAST_SHARE = 0.001  # of a picture's pixels that make an object, or a background
WHITE_LEVELS = 12  # plain white is off by so much at most: the noise of JPEG, no shadow
LEAST_CONTRAST = 0.1  # of a model's mask, which is a probability; where nothing is found it stays far below
FAINT = 0.1  # a mask's values up to here are nothing, and from 1 - FAINT on all: closer to the truth (docs/log.md)
SPECK = 0.02  # of the object's area: smaller pieces are dust and mistakes
NO_OBJECT = "shows no object that the model finds; remove its background by hand, or give cutout=none"

Colours = NDArray[np.uint8]  # [H, W, 3]
Alpha = NDArray[np.float32]  # [H, W], from 0 to 1


class NoSegmenter(UserError):
    """The segmentation model cannot be downloaded, read or run, whatever the picture."""


def remove_background(photograph: Image.Image, cutout: str) -> Image.Image:
    """Return a picture as RGBA, straight alpha, transparent outside the object; at most 2048 pixels wide and high.

    Args:
        photograph: RGB, or RGBA with straight alpha.
        cutout: `auto` keeps an alpha that has an object and a background, takes plain white as background without a
            model, and segments all other pictures with u2netp. `none` keeps the picture. Else `u2netp`, `isnet` or the
            path of an .onnx file.

    Raises:
        PictureError: The picture is blank, or no object is found in it.
        NoSegmenter: The segmentation model cannot be downloaded, read or run.
    """
    whole = photograph.convert("RGBA")
    whole.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BICUBIC)
    white = on_white(whole, Background.composite)
    if np.ptp(np.asarray(white), axis=(0, 1)).max() <= 2:
        raise PictureError("is blank, of one colour or transparent everywhere; give a picture that shows an object")
    if cutout == "none" or (cutout == "auto" and outlines(np.asarray(whole.getchannel("A")) >= OPAQUE)):
        return whole
    colours, unmixed = np.asarray(white), remove_white
    alpha = white_alpha(colours) if cutout == "auto" else None
    if alpha is None:
        alpha, unmixed = segmenter("u2netp" if cutout == "auto" else cutout)(colours), remove_spill
    alpha = remove_specks(alpha)
    found = (alpha >= 0.5).mean()
    if found < LEAST_SHARE:
        raise PictureError(NO_OBJECT)
    if found > 1 - LEAST_SHARE:
        raise PictureError("shows no background around an object; give cutout=none to use the whole picture")
    cut = Image.fromarray(unmixed(colours, alpha))
    cut.putalpha(Image.fromarray((alpha * 255).round().astype(np.uint8)))
    return cut


def outlines(object_HW: NDArray[np.bool_]) -> bool:
    """Whether a mask has an object and a background."""
    return LEAST_SHARE <= object_HW.mean() <= 1 - LEAST_SHARE


def white_alpha(colours: Colours) -> Alpha | None:
    """Alpha of what stands on plain white; None where the picture's edge is not white.

    White without a way to the edge is the object's. Along the outline a pixel is a mixture of white and the colour
    nearby that differs most from it.
    """
    darkness = 255 - colours.min(axis=2)
    edge = np.concatenate([darkness[0], darkness[-1], darkness[:, 0], darkness[:, -1]])
    if (edge > WHITE_LEVELS).mean() > 0.02:
        return None
    white = np.pad(darkness <= WHITE_LEVELS, 1, constant_values=True).astype(np.uint8)
    pieces = cv2.connectedComponents(white, connectivity=4)[1]
    background = (pieces == pieces[0, 0])[1:-1, 1:-1]
    near = np.ones((5, 5), np.uint8)
    outline = cv2.dilate(background.astype(np.uint8), near) > 0
    mixture = darkness / np.maximum(cv2.dilate(darkness, near), 1).astype(np.float32)
    return np.where(background, 0, np.where(outline, mixture, 1)).astype(np.float32)


def remove_white(colours: Colours, alpha: Alpha) -> Colours:
    """The colours that give these when alpha mixes them with white, exactly."""
    darkness = (255 - colours.astype(np.float32)) / np.maximum(alpha, 1 / 255)[..., None]
    return (255 - darkness.clip(0, 255).round()).astype(np.uint8)


@dataclass(frozen=True)
class Segmenter:
    """A model of input `[1, 3, S, S]`; one of side 1024 is fed as IS-Net, of another as U²-Net."""

    name: str
    session: "onnxruntime.InferenceSession"
    side: int

    def __call__(self, colours: Colours) -> Alpha:
        size = (self.side, self.side)
        small = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS), np.float32)
        (mask,) = self._run(normalised(small, isnet=self.side == ISNET_SIDE).transpose(2, 0, 1)[None])
        low, high = float(mask.min()), float(mask.max())
        if not high - low >= LEAST_CONTRAST:
            raise PictureError(NO_OBJECT)
        scaled = Image.fromarray((mask - low) / (high - low)).resize(
            (colours.shape[1], colours.shape[0]), Image.Resampling.BILINEAR
        )
        return ((np.asarray(scaled) - FAINT) / (1 - 2 * FAINT)).clip(0, 1)

    def _run(self, input_1CHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output, `[1, S, S]`."""
        outputs = self.session.get_outputs()
        try:
            mask = self.session.run([outputs[0].name], {self.session.get_inputs()[0].name: input_1CHW})[0]
        except Exception as error:  # onnxruntime's have no common class
            raise NoSegmenter(f"cutout={self.name}: the model fails ({one_line(error)}); give another one") from error
        if np.shape(mask) != (1, 1, self.side, self.side) or not np.isfinite(mask).all():
            shape = f"[1, 1, {self.side}, {self.side}]"
            raise NoSegmenter(f"cutout={self.name}: the output is not a mask {shape} of finite numbers; give another")
        return np.asarray(mask[0], np.float32)


def normalised(colours: NDArray[np.float32], isnet: bool) -> NDArray[np.float32]:
    """Colours `[S, S, 3]` of 0 to 255 as rembg gives them to its models: divided by their largest, then whitened."""
    mean, deviation = ((0.5,) * 3, (1.0,) * 3) if isnet else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return ((colours / max(float(colours.max()), 1e-6) - mean) / deviation).astype(np.float32)


@functools.lru_cache(maxsize=1)
def segmenter(cutout: str) -> Segmenter:
    """Load an untrusted segmentation model, from memory, so that it cannot name other files to be read.

    Raises:
        NoSegmenter: It cannot be downloaded, is not an ONNX model, keeps weights in other files, or has another input.
    """
    file = Path(cutout)
    if cutout in MODELS:
        had = attempted(cutout, int(monotonic() // ASKED_AGAIN))
        if isinstance(had, NoSegmenter):
            raise had
        file = had
    if file.suffix.lower() != ".onnx" or not file.is_file():
        raise NoSegmenter(f"cutout={cutout}: must be auto, {', '.join(MODELS)}, none or the path of an .onnx file")
    if file.stat().st_size > MOST_BYTES:
        raise NoSegmenter(f"cutout={cutout}: has more than {MOST_BYTES >> 20} MB; give a smaller model")
    # Read at the import; without it onnxruntime 1.29 and later tell their maker about models and machine.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same mask on any machine
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # errors come as exceptions
    with tempfile.TemporaryDirectory() as empty:  # where weights in files beside it would be looked for
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no common class
            if "xternal data" in str(error):
                raise NoSegmenter(
                    f"cutout={cutout}: keeps its weights in other files; give a model in one file"
                ) from error
            raise NoSegmenter(
                f"cutout={cutout}: is not a model that onnxruntime runs ({one_line(error)}); give another"
            ) from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    match shape:
        case [1 | None | str(), 3, int(height), int(width)] if height == width and 1 <= width <= 2048:
            return Segmenter(cutout, session, width)
    raise NoSegmenter(f"cutout={cutout}: takes {shape}; give a model of float32 [1, 3, S, S], as U²-Net and IS-Net")


@functools.lru_cache(maxsize=len(MODELS))
def attempted(name: str, period: int) -> Path | NoSegmenter:
    """Return the result of `downloaded`, or its error: one attempt in each `period`."""
    try:
        return download_model(name)
    except NoSegmenter as error:
        return error


def download_model(name: str) -> Path:
    """Return the path of a model of rembg's release in the user's cache; download it the first time."""
    file, checksum = MODELS[name]
    cache = Path(pooch.os_cache("zero-1-to-3"))
    pooch.get_logger().setLevel("WARNING")
    try:
        http = pooch.HTTPDownloader(progressbar=True, timeout=30)
        return Path(pooch.retrieve(RELEASE + file, checksum, file, cache, downloader=http))
    except (OSError, ValueError) as error:
        raise NoSegmenter(
            f"cutout={name}: the model cannot be downloaded ({type(error).__name__}); put {RELEASE}{file} at "
            f"{cache / file}, or give cutout=<path>.onnx, or cutout=none and a picture without background"
        ) from error


def remove_specks(alpha: Alpha) -> Alpha:
    """The same without pieces that are small beside the largest."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((alpha > 0).astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= SPECK * areas[1:].max(initial=0)
    kept[0] = False
    return np.where(kept[pieces], alpha, 0).astype(np.float32)


def remove_spill(colours: Colours, alpha: Alpha) -> Colours:
    """The object's own colours where the outline mixes them with the background's: blur fusion (arXiv 2006.14970)."""
    image, mask = colours.astype(np.float32), alpha[..., None]
    front = back = image
    for side in (90, 6):
        share = cv2.blur(alpha, (side, side))[..., None]
        seen = cv2.blur(front * mask, (side, side)) / (share + 1e-5)
        hidden = cv2.blur(back * (1 - mask), (side, side)) / (1 - share + 1e-5)
        front, back = np.clip(seen + mask * (image - mask * seen - (1 - mask) * hidden), 0, 255), hidden
    return np.where(mask == 1, colours, front.round()).astype(np.uint8)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
