"""From a checkpoint to pictures.

from inference import NovelView
views = NovelView.load("outputs/run/model")(picture, [[0, 90, 0], [-30, 0, 0]], steps=50, guidance=3.0, seed=0)
"""

from typing import TYPE_CHECKING, Any

import conf  # noqa: F401  # before torch: it sets how OpenMP's idle threads wait

if TYPE_CHECKING:
    from inference.novel_view import NovelView

__all__ = ["NovelView"]


def __getattr__(name: str) -> Any:
    # Late, so that commands that need no model answer at once.
    if name == "NovelView":
        from inference.novel_view import NovelView

        return NovelView
    raise AttributeError(f"module {__name__} has no attribute {name}")
