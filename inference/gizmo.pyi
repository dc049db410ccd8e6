"""A camera to be dragged around the object, as a component of the web page; what it looks like and does is in
gizmo.html, gizmo.css and gizmo.js."""

from pathlib import Path
from typing import Any

import gradio as gr

from conf.options import UserError
from inference.poses import Turn, checked

HERE = Path(__file__).parent
LIKELY_ELEVATION = 20.0  # degrees above the horizon, drawn where nobody knows


class Gizmo(gr.HTML):
    """Its value is a turn `[Δpolar, Δazimuth, Δradius]`; `release` is its event. It shows `picture` (a data URL) in the
    middle, seen by a camera that stands `elevation` degrees above the horizon, and below it a `note`."""

    def __init__(
        self,
        value: Any = (0, 45, 0),
        *,
        picture: str = "",
        elevation: float = LIKELY_ELEVATION,
        note: str = "",
        html_template: str = (HERE / "gizmo.html").read_text(),
        css_template: str = (HERE / "gizmo.css").read_text(),
        js_on_load: str = (HERE / "gizmo.js").read_text(),
        **others: Any,
    ):
        super().__init__(
            list(value), picture=picture, elevation=elevation, note=note, html_template=html_template, css_template=css_template,
            js_on_load=js_on_load, apply_default_css=False, **others,
        )  # fmt: skip

    def preprocess(self, payload: Any) -> Turn:
        """What came over the network is three finite numbers, or is refused."""
        try:
            return checked([payload])[0]
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "number"}}
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component
