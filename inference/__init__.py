"""Novel views of the object in a picture, as a library.

from inference import NovelView
views = NovelView.load("outputs/run/model")("chair.jpg", [[0, 90, 0], [-30, 0, 0]], steps=50, guidance=3.0, seed=0)
"""

import importlib
from typing import TYPE_CHECKING, Any

import conf  # noqa: F401  # before torch: it sets how OpenMP's idle threads wait

if TYPE_CHECKING:
    from inference.novel_view import NovelView
    from inference.preprocess.framing import Prepared, prepare

__all__ = ["NovelView", "Prepared", "prepare"]
MODULES = {"NovelView": "novel_view", "Prepared": "framing", "prepare": "framing"}


def __getattr__(name: str) -> Any:
    # Imported on use, so that commands that need no model start at once.
    if name in MODULES:
        return getattr(importlib.import_module(f"inference.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
