"""Build the components of the web page; their events are handled in handlers.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from inference.config import GUIDANCE_RANGE, MIN_ORBIT_VIEWS, DemoConfig, Sampler
from inference.shipped_model import FOLDER
from inference.web import markup
from inference.web.camera_control import DEFAULT_ELEVATION, camera_control
from inference.web.service import Session, ViewService

STYLE = (Path(__file__).parent / "layout.css").read_text()
KEEP_S = 3600  # seconds for which a visitor's picture and files are kept
DEFAULT_ORBIT_VIEWS = 24
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
NO_DEFAULT_CSS: dict[str, Any] = {"apply_default_css": False}


@dataclass(frozen=True)
class Settings:
    """The settings of the sampler, in the order of `ViewService.parse_request`."""

    seed: gr.Number
    guidance: gr.Slider
    steps: gr.Slider
    sampler: gr.Radio
    elevation: gr.Slider


@dataclass(frozen=True)
class OrbitFiles:
    """The film of an orbit and the buttons to download its files."""

    box: gr.Column
    video: gr.Video
    mp4: gr.DownloadButton
    gif: gr.DownloadButton
    sheet: gr.DownloadButton


@dataclass(frozen=True)
class SolidFiles:
    """The 3D model of the object and the button to download it."""

    box: gr.Column
    model: gr.Model3D
    glb: gr.DownloadButton


@dataclass(frozen=True)
class Page:
    """The components of the page, and the state of its visitor."""

    blocks: gr.Blocks
    session: gr.State
    photo: gr.Image
    cutout: gr.HTML
    camera: gr.HTML
    settings: Settings
    view: gr.HTML
    status: gr.HTML
    new_sample: gr.Button
    views: gr.Slider
    orbit: gr.Button
    files: OrbitFiles
    reconstruct: gr.Button
    solid: SolidFiles


def theme() -> gr.themes.Base:
    """Return gradio's theme with fonts of the visitor's system; layout.css sets the colours."""
    return gr.themes.Base(primary_hue="teal", neutral_hue="stone", font=SYSTEM_FONT, font_mono=("monospace",))


def build_page(service: ViewService) -> Page:
    """Build the page: the picture and the camera on the left, the view on the right; one column on narrow screens."""
    max_views = service.config.max_views
    name = "/".join(Path(service.config.checkpoint or FOLDER).parts[-2:])
    with gr.Blocks(
        title="Novel views", analytics_enabled=False, delete_cache=(KEEP_S // 4, KEEP_S), fill_width=True
    ) as blocks:
        session = gr.State(Session(), time_to_live=KEEP_S)
        gr.HTML(markup.header(name, service.novel_view), **NO_DEFAULT_CSS)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="input", min_width=0):
                photo, cutout = _build_pictures()
                camera = camera_control("camera-control")
                with gr.Accordion("More", open=False, elem_id="more"):
                    settings = _build_settings(service.config)
                    initial = min(DEFAULT_ORBIT_VIEWS, max_views)
                    views = gr.Slider(MIN_ORBIT_VIEWS, max_views, initial, step=1, label="Views in an orbit")
            with gr.Column(elem_id="output", min_width=0):
                view = gr.HTML(markup.view(), elem_id="view", **NO_DEFAULT_CSS)
                status = gr.HTML(markup.message(markup.WELCOME), elem_id="status", **NO_DEFAULT_CSS)
                with gr.Row(elem_id="tools"):
                    orbit = gr.Button("Orbit", variant="primary", elem_id="orbit")
                    reconstruct = gr.Button(
                        "3D", elem_id="reconstruct", visible=service.config.reconstruction_views > 0
                    )
                    new_sample = gr.Button("New sample", elem_id="new-sample")
                files, solid = _build_orbit_files(), _build_solid_files()
    return Page(
        blocks, session, photo, cutout, camera, settings, view, status, new_sample, views, orbit, files, reconstruct,
        solid,
    )  # fmt: skip


def _build_pictures() -> tuple[gr.Image, gr.HTML]:
    """Return the components of the uploaded picture and of the input of the model."""
    with gr.Row(elem_id="pictures"):
        photo = gr.Image(
            label="Picture", show_label=False, type="filepath", sources=["upload", "clipboard"], buttons=[],
            elem_id="photo",
        )  # fmt: skip
        cutout = gr.HTML(markup.cutout(None), elem_id="cutout", **NO_DEFAULT_CSS)
        gr.HTML(markup.CAPTIONS, elem_id="captions", **NO_DEFAULT_CSS)
    return photo, cutout


def _build_settings(config: DemoConfig) -> Settings:
    sampling = config.sampling
    return Settings(
        seed=gr.Number(sampling.seed, label="Seed", minimum=0, maximum=2**32 - 1, step=1),
        guidance=gr.Slider(*GUIDANCE_RANGE, sampling.guidance, step=0.1, label="Guidance"),
        steps=gr.Slider(1, config.max_steps, sampling.steps, step=1, label="Steps"),
        sampler=gr.Radio([sampler.value for sampler in Sampler], value=sampling.sampler.value, label="Sampler"),
        elevation=gr.Slider(-90, 90, DEFAULT_ELEVATION, step=1, label="Elevation of the picture's camera, degrees"),
    )


def _build_orbit_files() -> OrbitFiles:
    with gr.Column(visible=False, elem_id="orbit-files") as box:
        video = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], interactive=False)
        with gr.Row():
            buttons = [gr.DownloadButton(name) for name in ("Film, MP4", "Film, GIF", "Contact sheet")]
    return OrbitFiles(box, video, *buttons)


def _build_solid_files() -> SolidFiles:
    with gr.Column(visible=False, elem_id="solid-files") as box:
        model = gr.Model3D(show_label=False, interactive=False, height="26rem", camera_position=(20, 70, 1.8))
        with gr.Row():
            glb = gr.DownloadButton("3D model, GLB")
    return SolidFiles(box, model, glb)
