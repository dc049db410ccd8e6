"""Provide the component of the web page that moves a camera around the object (camera_control.html, .css and .js)."""

from pathlib import Path

import gradio as gr

from inference.poses import Turn

FOLDER = Path(__file__).parent
DEFAULT_ELEVATION = 20.0  # degrees above the horizon, until the elevation is known
INITIAL_TURN: Turn = (0.0, 45.0, 0.0)


def camera_control(elem_id: str) -> gr.HTML:
    """Return the component; its value is a turn `[Δpolar, Δazimuth, Δradius]`, its event is `release`.

    Properties:
        picture: Data URL of the object, shown in the middle.
        elevation: Degrees above the horizon of the camera that took the picture.
        note: Text below the drawing.
    """
    return gr.HTML(
        list(INITIAL_TURN),
        html_template=(FOLDER / "camera_control.html").read_text(),
        css_template=(FOLDER / "camera_control.css").read_text(),
        js_on_load=(FOLDER / "camera_control.js").read_text(),
        apply_default_css=False,
        elem_id=elem_id,
        picture="",
        elevation=DEFAULT_ELEVATION,
        note="",
    )
