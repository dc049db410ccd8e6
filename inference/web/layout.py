"""The web page: what lies where. What happens when it is touched is in replies.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from inference.config import DemoConfig, Sampler
from inference.web import markup
from inference.web.camera_control import LIKELY_ELEVATION, camera_control
from inference.web.service import Session, ViewService

STYLE = (Path(__file__).parent / "layout.css").read_text()
KEPT = 3600  # seconds for which a visitor's picture and files are kept
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
BARE: dict[str, Any] = {"apply_default_css": False}


@dataclass(frozen=True)
class Settings:
    """Under "More"."""

    seed: gr.Number
    guidance: gr.Slider
    steps: gr.Slider
    sampler: gr.Radio
    elevation: gr.Slider


@dataclass(frozen=True)
class Film:
    """What an orbit leaves."""

    box: gr.Column
    video: gr.Video
    mp4: gr.DownloadButton
    gif: gr.DownloadButton
    sheet: gr.DownloadButton


@dataclass(frozen=True)
class Page:
    """The parts of the page, and what is kept of its visitor."""

    blocks: gr.Blocks
    session: gr.State
    photo: gr.Image
    cutout: gr.HTML
    camera: gr.HTML
    settings: Settings
    view: gr.HTML
    status: gr.HTML
    again: gr.Button
    views: gr.Slider
    orbit: gr.Button
    film: Film


def theme() -> gr.themes.Base:
    return gr.themes.Base(primary_hue="teal", neutral_hue="stone", font=SYSTEM_FONT, font_mono=("monospace",))


def build_page(studio: ViewService) -> Page:
    """On the left what goes in, on the right what comes out; one below the other where it is narrow."""
    most = studio.config.max_views
    name = "/".join(Path(studio.config.checkpoint).parts[-2:])
    with gr.Blocks(
        title="Another view", analytics_enabled=False, delete_cache=(KEPT // 4, KEPT), fill_width=True
    ) as blocks:
        session = gr.State(Session(), time_to_live=KEPT)
        gr.HTML(markup.header(name, studio.novel_view), **BARE)
        with gr.Row(elem_id="room"):
            with gr.Column(elem_id="desk", min_width=0):
                with gr.Row(elem_id="pictures"):
                    photo = gr.Image(
                        label="Photograph", show_label=False, type="filepath", sources=["upload", "clipboard"],
                        buttons=[], elem_id="photo",
                    )  # fmt: skip
                    cutout = gr.HTML(markup.cutout(None), elem_id="cutout", **BARE)
                    gr.HTML(markup.CAPTIONS, elem_id="captions", **BARE)
                camera = camera_control("camera-control")
                with gr.Accordion("More", open=False, elem_id="more"):
                    settings = _settings(studio.config)
                    views = gr.Slider(2, most, min(24, most), step=1, label="Views in an orbit")
            with gr.Column(elem_id="wall", min_width=0):
                view = gr.HTML(markup.view(), elem_id="view", **BARE)
                status = gr.HTML(markup.message(markup.WELCOME), elem_id="status", **BARE)
                with gr.Row(elem_id="tools"):
                    orbit = gr.Button("Orbit", variant="primary", elem_id="orbit")
                    again = gr.Button("Another guess", elem_id="again")
                with gr.Column(visible=False, elem_id="film") as box:
                    video = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], interactive=False)
                    with gr.Row():
                        film = Film(
                            box, video, *map(gr.DownloadButton, ("Film, MP4", "Film, GIF", "Contact sheet"))
                        )  # fmt: skip
    return Page(blocks, session, photo, cutout, camera, settings, view, status, again, views, orbit, film)


def _settings(config: DemoConfig) -> Settings:
    sampling = config.sampling
    return Settings(
        seed=gr.Number(sampling.seed, label="Seed", minimum=0, maximum=2**32 - 1, step=1),
        guidance=gr.Slider(1, 10, sampling.guidance, step=0.1, label="Guidance"),
        steps=gr.Slider(1, config.max_steps, sampling.steps, step=1, label="Steps"),
        sampler=gr.Radio([one.value for one in Sampler], value=sampling.sampler.value, label="Sampler"),
        elevation=gr.Slider(-90, 90, LIKELY_ELEVATION, step=1, label="Elevation of the photograph's camera, degrees"),
    )
