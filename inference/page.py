"""The web page: what lies where, and what happens when it is touched."""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio import processing_utils

from conf.options import UserError
from inference import markup
from inference.album import contact_sheet, write_gif, write_mp4
from inference.config import Sampler
from inference.gizmo import LIKELY_ELEVATION, gizmo
from inference.live import Progress, Superseded
from inference.markup import WELCOME, busy, data_url, said
from inference.studio import Session, Studio

STYLE = (Path(__file__).parent / "page.css").read_text()
KEPT = 3600  # seconds for which a visitor's files and picture lie here
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
# How handlers run: none is part of a public API; one at a time uses the device; what ends others cannot wait.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
DEVICE: dict[str, Any] = {**PRIVATE, "concurrency_id": "device", "concurrency_limit": 1}
AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False, "trigger_mode": "multiple"}
Shown = dict[Any, Any]
Result = TypeVar("Result")


def theme() -> gr.themes.Base:
    return gr.themes.Base(primary_hue="teal", neutral_hue="stone", font=SYSTEM_FONT, font_mono=("monospace",))


def page(studio: Studio) -> gr.Blocks:
    _fetch_nothing()
    config, sampling = studio.config, studio.config.sampling
    folders = Path(config.checkpoint).parts[-2:]
    bare: dict[str, Any] = {"apply_default_css": False}
    with gr.Blocks(
        title="Another view", analytics_enabled=False, delete_cache=(KEPT // 4, KEPT), fill_width=True
    ) as blocks:
        session = gr.State(Session(), time_to_live=KEPT)
        gr.HTML(markup.header("/".join(folders), studio.novel_view), **bare)
        with gr.Row(elem_id="room"):
            with gr.Column(elem_id="desk", min_width=0):
                with gr.Row(elem_id="pictures"):
                    photo = gr.Image(
                        label="Photograph", type="filepath", image_mode=None, sources=["upload", "clipboard"],
                        buttons=[], elem_id="photo",
                    )  # fmt: skip
                    cutout = gr.HTML(markup.cutout(None), elem_id="cutout", **bare)
                camera = gizmo("gizmo")
                with gr.Accordion("More", open=False, elem_id="more"):
                    seed = gr.Number(sampling.seed, label="Seed", precision=0, minimum=0, maximum=2**32 - 1)
                    steps = gr.Slider(1, config.most_steps, sampling.steps, step=1, label="Steps")
                    guidance = gr.Slider(1, 10, sampling.guidance, step=0.1, label="Guidance")
                    sampler = gr.Radio([one.value for one in Sampler], value=sampling.sampler.value, label="Sampler")
                    elevation = gr.Slider(
                        -90, 90, LIKELY_ELEVATION, step=1, label="Elevation of the photograph's camera, degrees"
                    )
            with gr.Column(elem_id="wall", min_width=0):
                view = gr.HTML(markup.view(), elem_id="view", **bare)
                status = gr.HTML(said(WELCOME), elem_id="status", **bare)
                with gr.Row(elem_id="tools"):
                    views = gr.Slider(
                        2, config.most_views, min(24, config.most_views), step=1, label="Views once around"
                    )
                    around = gr.Button("Orbit", variant="primary", elem_id="orbit")
                    again = gr.Button("Another guess", elem_id="again")
                with gr.Column(visible=False, elem_id="film") as film:
                    video = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], interactive=False)
                    with gr.Row():
                        mp4, gif, sheet = map(gr.DownloadButton, ("Film, MP4", "Film, GIF", "Contact sheet"))

        asked = [camera, seed, guidance, steps, sampler, elevation]
        nothing = {cutout: markup.cutout(None), camera: gr.update(picture="", note=""), view: markup.view()}

        def wish(session: Session, *asked: Any) -> None:
            """Heard at once: what is being drawn for an older wish ends at its next step."""
            with told():
                session.wish = studio.wish(*asked)

        def forget(session: Session) -> Shown:
            session.wish = None
            return {film: gr.update(visible=False)}

        def show(photograph: dict[str, Any] | None) -> Iterator[Shown]:
            """The object cut out, as the model is shown it. gradio is kept from opening the file itself."""
            if photograph is None:
                yield {session: Session(), status: said(WELCOME), **nothing}
                return
            yield {status: busy("cutting the object out")}
            try:
                seen = studio.show(str(photograph.get("path")))
            except UserError as error:
                yield {session: Session(), photo: None, status: said(str(error)), **nothing}
                raise gr.Error(escape(str(error)), title="Not this picture", print_exception=False) from None
            assert seen.prepared is not None
            picture = data_url(seen.prepared.cutout)
            yield {
                session: seen,
                cutout: markup.cutout(seen.prepared.image),
                camera: gr.update(picture=picture, note=""),
            }

        def draw(session: Session, *asked: Any) -> Generator[Shown, None, None]:
            """A quick view, then the view itself."""
            if session.seen is None:
                yield {status: said(WELCOME)}
                return
            with told():
                session.wish = wished = studio.wish(*asked)
                quick, seconds = studio.preview(wished), 0.0
                if quick is not None:
                    (first,), seconds = yield from reported(studio.draw(session, quick, wished), status, "a first look")
                    yield {view: markup.view(first, wished.turn, quick=True), status: busy("refining")}
                (drawn,), more = yield from reported(studio.draw(session, wished, wished), status, "refining")
                yield {view: markup.view(drawn, wished.turn), status: markup.drawn(wished, seconds + more)}

        def orbit(session: Session, *asked: Any) -> Generator[Shown, None, None]:
            """A film once around, and its views on a sheet."""
            if session.seen is None:
                yield {status: said(WELCOME)}
                return
            with told():
                session.wish = wished = studio.wish(*asked)
                verb = f"{wished.views} views once around"
                frames, seconds = yield from reported(studio.draw(session, wished, wished), status, verb)
                yield {status: busy("making the film")}
                folder = Path(tempfile.mkdtemp(dir=studio.files))
                write_mp4(folder / "orbit.mp4", frames)
                write_gif(folder / "orbit.gif", frames)
                assert session.prepared is not None
                labels = [f"{polar:+g}° {azimuth:+.0f}° {radius:+g}" for polar, azimuth, radius in wished.turns]
                pictures = [session.prepared.image, *frames]
                contact_sheet(pictures, ["input", *labels]).save(folder / "views.png")
                made = {video: "orbit.mp4", mp4: "orbit.mp4", gif: "orbit.gif", sheet: "views.png"}
                paths = {part: str(folder / name) for part, name in made.items()}
                yield {film: gr.update(visible=True), status: markup.drawn(wished, seconds), **paths}

        def estimate(session: Session, *asked: Any) -> Generator[Shown, None, None]:
            """How high the photograph's camera stood, for the gizmo to show it there."""
            if session.seen is None or session.wish is None or studio.needs_elevation:
                return
            yield {camera: gr.update(note="looking how high the photograph's camera stood …")}
            try:
                found = yield from silently(studio.estimate(session, session.wish))
            except (UserError, Superseded):
                yield {camera: gr.update(note="")}
                return
            note = f"photograph's camera: {found.degrees:.0f}° ± {found.uncertainty_degrees:.0f}° above the horizon"
            yield {camera: gr.update(elevation=found.degrees, note=note), elevation: round(found.degrees)}

        everything = [session, photo, cutout, camera, view, status]
        shown = photo.upload(forget, session, film, **AT_ONCE).then(show, photo, everything, preprocess=False, **DEVICE)
        shown.success(draw, [session, *asked], [view, status], **DEVICE).success(
            estimate, [session, *asked], [camera, elevation], **DEVICE
        )
        photo.clear(forget, session, film, **AT_ONCE).then(show, photo, everything, preprocess=False, **DEVICE)

        touched = [camera.release, seed.change, guidance.release, steps.release, sampler.change]
        touched += [elevation.release] if studio.needs_elevation else []
        gr.on(touched, wish, [session, *asked], None, **AT_ONCE)
        gr.on(touched, draw, [session, *asked], [view, status], trigger_mode="always_last", **DEVICE)
        elevation.change(lambda degrees: gr.update(elevation=degrees), elevation, camera, **AT_ONCE)
        again.click(None, seed, seed, js="seed => (seed + 1) % 2 ** 32", api_visibility="private")

        once_around = [session, *asked, views]
        around.click(wish, once_around, None, **AT_ONCE)
        around.click(orbit, once_around, [status, film, video, mp4, gif, sheet], trigger_mode="always_last", **DEVICE)
    return blocks


@contextmanager
def told() -> Iterator[None]:
    """What a visitor can mend becomes a sentence on the page; what nobody waits for ends without a word."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), title="Not like this", print_exception=False) from None
    except Superseded:
        pass


def reported(
    drawing: Generator[Progress, None, Result], status: gr.HTML, verb: str
) -> Generator[Shown, None, tuple[Result, float]]:
    """Progress as it is shown; in the end what was drawn, and the seconds that it took."""
    seconds = 0.0
    while True:
        try:
            progress = next(drawing)
        except StopIteration as end:
            return end.value, seconds
        seconds = progress.seconds
        yield {status: busy(verb, progress)}


def silently(drawing: Generator[Progress, None, Result]) -> Generator[Shown, None, Result]:
    """The same without a word."""
    while True:
        try:
            next(drawing)
        except StopIteration as end:
            return end.value
        yield {}


def _fetch_nothing() -> None:
    """gradio would download what a request names by its URL."""

    async def refuse(url: str, *_: Any, **__: Any) -> str:
        raise gr.Error("pictures are uploaded here, not fetched", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
