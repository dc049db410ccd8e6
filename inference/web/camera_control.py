"""The camera that is dragged around the object on the web page (camera_control.html, .css and .js)."""

from pathlib import Path

import gradio as gr

from inference.poses import Turn

HERE = Path(__file__).parent
LIKELY_ELEVATION = 20.0  # degrees above the horizon, where nobody knows
FIRST_TURN: Turn = (0.0, 45.0, 0.0)


def camera_control(elem_id: str) -> gr.HTML:
    """Its value is a turn `[Δpolar, Δazimuth, Δradius]`, its event `release`. It shows `picture` (a data URL) in the
    middle, a camera that looks at it from `elevation` degrees above the horizon, and below them a `note`."""
    return gr.HTML(
        list(FIRST_TURN),
        html_template=(HERE / "camera_control.html").read_text(),
        css_template=(HERE / "camera_control.css").read_text(),
        js_on_load=(HERE / "camera_control.js").read_text(),
        apply_default_css=False,
        elem_id=elem_id,
        picture="",
        elevation=LIKELY_ELEVATION,
        note="",
    )
