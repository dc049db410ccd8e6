"""Prepare photographs for the model: decode them, remove the background, frame the object.

Exported, each imported on first use:
    prepare, Prepared: all three steps, as `inference.sample` takes them.
    load_photograph, Picture: a file, PIL image or array, decoded upright to 8 bits per channel.
    remove_background: the object as RGBA.
    PictureError: raised for a picture that cannot be used.
    NoSegmenter: raised where the segmentation model cannot be downloaded, read or run.
"""

from typing import TYPE_CHECKING

from conf.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from inference.preprocess.background import NoSegmenter, remove_background
    from inference.preprocess.framing import Prepared, prepare
    from inference.preprocess.photograph import Picture, PictureError, load_photograph

__all__ = [
    "NoSegmenter", "Picture", "PictureError", "Prepared", "load_photograph", "prepare", "remove_background",
]  # fmt: skip
__getattr__ = lazy_exports(
    __name__,
    {
        "NoSegmenter": "background",
        "Picture": "photograph",
        "PictureError": "photograph",
        "Prepared": "framing",
        "load_photograph": "photograph",
        "prepare": "framing",
        "remove_background": "background",
    },
)
