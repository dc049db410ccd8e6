"""Remove the background of a photograph by its alpha, by its plain white, or with a segmentation model.

The models are U²-Net (arXiv 2005.09007) and IS-Net (arXiv 2203.03041) with the weights and the preprocessing of rembg.
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

from conf.options import UserError, first_line
from inference.preprocess.photograph import PictureError
from training.model.picture import Background, on_white

if TYPE_CHECKING:
    import onnxruntime

RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
MODELS = {  # files of that release and their checksums, from rembg's source
    "u2netp": ("u2netp.onnx", "md5:8e83ca70e441ab06c318d82300c84806"),
    "isnet": ("isnet-general-use.onnx", "md5:fc16ebd8b0c10d971d3513d564d01e29"),
}
ISNET_SIDE_PX = 1024
RETRY_AFTER_S = 600  # before another attempt to reach the server of the models
MAX_MODEL_BYTES = 2**30
MAX_SIDE_PX = 2048  # of a cut-out picture; bounds time and memory, and exceeds the resolution of all models
OPAQUE_ALPHA = 128  # of 255; from here on a pixel belongs to the object
MIN_SHARE = 0.001  # of the pixels, for an object and for a background
WHITE_TOLERANCE = 12  # of 255; covers the noise of JPEG, but no shadow
MIN_MASK_CONTRAST = 0.1  # of a model's mask, a probability; without an object it stays far below
MASK_MARGIN = 0.1  # values up to here become 0 and from 1 - MASK_MARGIN on 1, closer to the truth (docs/log.md)
MIN_PIECE = 0.02  # of the area of the largest piece; smaller ones are dust and errors
NO_OBJECT = "shows no object that the model finds; remove its background by hand, or give cutout=none"

Colours = NDArray[np.uint8]  # [H, W, 3]
Alpha = NDArray[np.float32]  # [H, W], from 0 to 1


class NoSegmenter(UserError):
    """The segmentation model cannot be downloaded, read or run."""


def remove_background(photograph: Image.Image, cutout: str) -> Image.Image:
    """Return a picture as RGBA, straight alpha, transparent outside the object, at most 2048 pixels wide and high.

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
    whole.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.BICUBIC)
    white = on_white(whole, Background.composite)
    if np.ptp(np.asarray(white), axis=(0, 1)).max() <= 2:
        raise PictureError("is blank, of one colour or transparent everywhere; give a picture that shows an object")
    if cutout == "none" or (cutout == "auto" and has_object(np.asarray(whole.getchannel("A")) >= OPAQUE_ALPHA)):
        return whole
    colours, unmix = np.asarray(white), remove_white
    alpha = white_alpha(colours) if cutout == "auto" else None
    if alpha is None:
        alpha, unmix = segmenter("u2netp" if cutout == "auto" else cutout)(colours), remove_spill
    alpha = remove_specks(alpha)
    share = (alpha >= 0.5).mean()
    if share < MIN_SHARE:
        raise PictureError(NO_OBJECT)
    if share > 1 - MIN_SHARE:
        raise PictureError("shows no background around an object; give cutout=none to use the whole picture")
    cut = Image.fromarray(unmix(colours, alpha))
    cut.putalpha(Image.fromarray((alpha * 255).round().astype(np.uint8)))
    return cut


def has_object(mask_HW: NDArray[np.bool_]) -> bool:
    """Return whether a mask has both an object and a background."""
    return MIN_SHARE <= mask_HW.mean() <= 1 - MIN_SHARE


def white_alpha(colours: Colours) -> Alpha | None:
    """Return the alpha of an object on plain white; None where the picture's edge is not white.

    White that is not connected to the edge belongs to the object. A pixel on the outline is a mixture of white and the
    darkest colour nearby.
    """
    darkness = 255 - colours.min(axis=2)
    edge = np.concatenate([darkness[0], darkness[-1], darkness[:, 0], darkness[:, -1]])
    if (edge > WHITE_TOLERANCE).mean() > 0.02:
        return None
    white = np.pad(darkness <= WHITE_TOLERANCE, 1, constant_values=True).astype(np.uint8)
    pieces = cv2.connectedComponents(white, connectivity=4)[1]
    background = (pieces == pieces[0, 0])[1:-1, 1:-1]
    neighbours = np.ones((5, 5), np.uint8)
    outline = cv2.dilate(background.astype(np.uint8), neighbours) > 0
    mixture = darkness / np.maximum(cv2.dilate(darkness, neighbours), 1).astype(np.float32)
    return np.where(background, 0, np.where(outline, mixture, 1)).astype(np.float32)


def remove_white(colours: Colours, alpha: Alpha) -> Colours:
    """Return the colours that, composited on white with `alpha`, give `colours` exactly."""
    darkness = (255 - colours.astype(np.float32)) / np.maximum(alpha, 1 / 255)[..., None]
    return (255 - darkness.clip(0, 255).round()).astype(np.uint8)


@dataclass(frozen=True)
class Segmenter:
    """A segmentation model with input `[1, 3, S, S]`.

    A model of side 1024 has the preprocessing of IS-Net, all others that of U²-Net.
    """

    name: str
    session: "onnxruntime.InferenceSession"
    side: int

    def __call__(self, colours: Colours) -> Alpha:
        """Return the alpha of the object.

        Raises:
            PictureError: The model finds no object.
            NoSegmenter: The model fails, or its output is not a mask.
        """
        size = (self.side, self.side)
        small = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS), np.float32)
        (mask,) = self._run(normalised(small, isnet=self.side == ISNET_SIDE_PX).transpose(2, 0, 1)[None])
        low, high = float(mask.min()), float(mask.max())
        if not high - low >= MIN_MASK_CONTRAST:
            raise PictureError(NO_OBJECT)
        scaled = Image.fromarray((mask - low) / (high - low)).resize(
            (colours.shape[1], colours.shape[0]), Image.Resampling.BILINEAR
        )
        return ((np.asarray(scaled) - MASK_MARGIN) / (1 - 2 * MASK_MARGIN)).clip(0, 1)

    def _run(self, input_1CHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first output, `[1, S, S]`."""
        outputs = self.session.get_outputs()
        try:
            mask = self.session.run([outputs[0].name], {self.session.get_inputs()[0].name: input_1CHW})[0]
        except Exception as error:  # onnxruntime's errors have no common class
            raise NoSegmenter(f"cutout={self.name}: the model fails ({first_line(error)}); give another one") from error
        if np.shape(mask) != (1, 1, self.side, self.side) or not np.isfinite(mask).all():
            shape = f"[1, 1, {self.side}, {self.side}]"
            raise NoSegmenter(f"cutout={self.name}: the output is not a mask {shape} of finite numbers; give another")
        return np.asarray(mask[0], np.float32)


def normalised(colours: NDArray[np.float32], isnet: bool) -> NDArray[np.float32]:
    """Return colours `[S, S, 3]` of 0 to 255 normalised as by rembg: divided by their maximum, then standardised."""
    mean, deviation = ((0.5,) * 3, (1.0,) * 3) if isnet else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return ((colours / max(float(colours.max()), 1e-6) - mean) / deviation).astype(np.float32)


@functools.lru_cache(maxsize=1)
def segmenter(cutout: str) -> Segmenter:
    """Load an untrusted segmentation model. It is loaded from memory, so that it cannot refer to other files.

    Raises:
        NoSegmenter: It cannot be downloaded, is not an ONNX model, keeps weights in other files, or has another input.
    """
    session = _session(cutout, _model_file(cutout))
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    match shape:
        case [1 | None | str(), 3, int(height), int(width)] if height == width and 1 <= width <= 2048:
            return Segmenter(cutout, session, width)
    raise NoSegmenter(f"cutout={cutout}: takes {shape}; give a model of float32 [1, 3, S, S], as U²-Net and IS-Net")


def _model_file(cutout: str) -> Path:
    """Return the ONNX file that an option names; a model of rembg is downloaded."""
    file = Path(cutout)
    if cutout in MODELS:
        model = try_download(cutout, int(monotonic() // RETRY_AFTER_S))
        if isinstance(model, NoSegmenter):
            raise model
        file = model
    if file.suffix.lower() != ".onnx" or not file.is_file():
        raise NoSegmenter(f"cutout={cutout}: must be auto, {', '.join(MODELS)}, none or the path of an .onnx file")
    if file.stat().st_size > MAX_MODEL_BYTES:
        raise NoSegmenter(f"cutout={cutout}: has more than {MAX_MODEL_BYTES >> 20} MB; give a smaller model")
    return file


def _session(cutout: str, file: Path) -> "onnxruntime.InferenceSession":
    """Load an ONNX model on the CPU; raise `NoSegmenter` if onnxruntime cannot run it."""
    # Read at the import; without it onnxruntime 1.29 and later send telemetry about models and machine.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # for the same mask on every machine
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # errors are raised as exceptions
    with tempfile.TemporaryDirectory() as empty:  # the folder in which onnxruntime looks for weights in other files
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            return onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            if "xternal data" in str(error):
                raise NoSegmenter(
                    f"cutout={cutout}: keeps its weights in other files; give a model in one file"
                ) from error
            raise NoSegmenter(
                f"cutout={cutout}: is not a model that onnxruntime can run ({first_line(error)}); give another"
            ) from error


@functools.lru_cache(maxsize=len(MODELS))
def try_download(name: str, period: int) -> Path | NoSegmenter:
    """Return the result of `download_model`, or its error; the cache makes one attempt in each `period`."""
    try:
        return download_model(name)
    except NoSegmenter as error:
        return error


def download_model(name: str) -> Path:
    """Return the path of a model of rembg's release in the user's cache; download it the first time.

    Raises:
        NoSegmenter: It cannot be downloaded.
    """
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
    """Return `alpha` without the connected pieces whose area is below `MIN_PIECE` of the largest."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((alpha > 0).astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = areas >= MIN_PIECE * areas[1:].max(initial=0)
    kept[0] = False
    return np.where(kept[pieces], alpha, 0).astype(np.float32)


def remove_spill(colours: Colours, alpha: Alpha) -> Colours:
    """Return the colours without the background's share at the outline: blur fusion (arXiv 2006.14970)."""
    image, mask = colours.astype(np.float32), alpha[..., None]
    front = back = image
    for side in (90, 6):
        share = cv2.blur(alpha, (side, side))[..., None]
        front_mean = cv2.blur(front * mask, (side, side)) / (share + 1e-5)
        back_mean = cv2.blur(back * (1 - mask), (side, side)) / (1 - share + 1e-5)
        residual = image - mask * front_mean - (1 - mask) * back_mean
        front, back = np.clip(front_mean + mask * residual, 0, 255), back_mean
    return np.where(mask == 1, colours, front.round()).astype(np.uint8)
