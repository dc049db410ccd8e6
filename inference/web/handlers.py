"""What the web page answers when it is touched."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import gradio as gr
from gradio import processing_utils
from PIL import Image

from conf.options import UserError
from inference.media import contact_sheet, write_gif, write_mp4
from inference.web import markup
from inference.web.jobs import Progress, Superseded
from inference.web.layout import Film, Page, Settings
from inference.web.markup import WELCOME, busy, data_url, message, miniature
from inference.web.service import Session, ViewRequest, ViewService

# None is part of a public API, and each looks itself at what comes over the network; one at a time uses the device;
# what ends others cannot wait.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
DEVICE: dict[str, Any] = {**PRIVATE, "concurrency_id": "device", "concurrency_limit": 1}
AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False, "trigger_mode": "multiple"}
Shown = dict[Any, Any]  # parts of the page and what they show next; the others stay as they are
Replies = Generator[Shown, None, None]
Result = TypeVar("Result")


def connect_events(page: Page, studio: ViewService) -> None:
    """Connect the parts of the page with the replies, inside its blocks."""
    _fetch_nothing()
    reply, settings, film = Handlers(page, studio), page.settings, page.film
    asked = [page.session, page.camera, *_parts(settings)]
    everything = [page.session, page.photo, page.cutout, page.camera, page.view, page.status]
    drawn = [page.view, page.status]
    page.photo.upload(reply.forget, page.session, film.box, **AT_ONCE).then(
        reply.show, page.photo, everything, **DEVICE
    ).success(reply.draw, asked, drawn, **DEVICE).success(
        reply.estimate, asked, [page.camera, settings.elevation], **DEVICE
    )
    page.photo.clear(reply.forget, page.session, film.box, **AT_ONCE).then(reply.show, page.photo, everything, **DEVICE)
    turned = [page.camera.release, settings.seed.change, settings.guidance.release, settings.steps.release]
    turned += [settings.sampler.change] + ([settings.elevation.release] if studio.needs_elevation else [])
    gr.on(turned, reply.wish, asked, None, **AT_ONCE)
    gr.on(turned, reply.draw, asked, drawn, trigger_mode="always_last", **DEVICE)
    settings.elevation.change(lambda degrees: gr.update(elevation=degrees), settings.elevation, page.camera, **AT_ONCE)
    page.again.click(None, settings.seed, settings.seed, js="seed => (seed + 1) % 2 ** 32", api_visibility="private")
    page.orbit.click(reply.wish, [*asked, page.views], None, **AT_ONCE)
    page.orbit.click(
        reply.orbit, [*asked, page.views], [page.status, *_parts(film)], trigger_mode="always_last", **DEVICE
    )


@dataclass(frozen=True)
class Handlers:
    page: Page
    studio: ViewService

    def wish(self, session: Session, *asked: Any) -> None:
        """Heard at once: what is being drawn for an older wish ends at its next step."""
        with shown_errors():
            session.wish = self.studio.wish(*asked)

    def forget(self, session: Session) -> Shown:
        session.wish = None
        return {self.page.film.box: gr.update(visible=False)}

    def show(self, photograph: dict[str, Any] | None) -> Replies:
        """The object cut out, as the model is shown it."""
        page = self.page
        if photograph is None:
            yield self.nothing(WELCOME)
            return
        yield {page.status: busy("cutting the object out")}
        try:
            session = self.studio.show(str(photograph["path"]))
        except UserError as error:
            yield self.nothing(str(error)) | {page.photo: None}
            raise gr.Error(escape(str(error)), print_exception=False) from None
        assert session.prepared is not None
        yield {
            page.session: session,
            page.cutout: markup.cutout(session.prepared.image),
            page.camera: gr.update(picture=data_url(miniature(session.prepared.cutout)), note=""),
        }

    def draw(self, session: Session, *asked: Any) -> Replies:
        """A quick view, then the view itself."""
        page, studio, start = self.page, self.studio, perf_counter()
        with shown_errors():
            session.wish = wish = studio.wish(*asked)
            if session.seen is None:
                yield {page.status: message(WELCOME)}
                return
            quick = studio.preview(wish)
            if quick is not None:
                (first,) = yield from reported(studio.draw(session, quick, wish), self.progress("a first look"))
                yield {page.view: markup.view(first, wish.turn, quick=True), page.status: busy("refining")}
            (view,) = yield from reported(studio.draw(session, wish, wish), self.progress("refining"))
            yield {page.view: markup.view(view, wish.turn), page.status: markup.finished(wish, perf_counter() - start)}

    def orbit(self, session: Session, *asked: Any) -> Replies:
        """A film once around, and its views on a sheet."""
        page, start = self.page, perf_counter()
        with shown_errors():
            session.wish = wish = self.studio.wish(*asked)
            if session.seen is None or session.prepared is None:
                yield {page.status: message(WELCOME)}
                return
            progress = self.progress(f"{wish.views} views once around")
            frames = yield from reported(self.studio.draw(session, wish, wish), progress)
            yield {page.status: busy("making the film")}
            film = self.filmed(session.prepared.image, frames, wish)
            done = markup.finished(wish, perf_counter() - start)
            yield {page.status: done, page.film.box: gr.update(visible=True), **film}

    def estimate(self, session: Session, *asked: Any) -> Replies:
        """How high the photograph's camera stood, for the camera control to show it there."""
        camera, wish = self.page.camera, session.wish
        if session.seen is None or wish is None or self.studio.needs_elevation:
            return
        looking = {camera: gr.update(note="looking how high the photograph's camera stood …")}
        try:
            found = yield from reported(self.studio.estimate(session, wish), lambda progress: looking)
        except (UserError, Superseded):
            yield {camera: gr.update(note="")}
            return
        note = f"photograph's camera: {found.degrees:.0f}° ± {found.uncertainty_degrees:.0f}° above the horizon"
        degrees = round(found.degrees)
        yield {camera: gr.update(elevation=degrees, note=note), self.page.settings.elevation: degrees}

    def nothing(self, sentence: str) -> Shown:
        page = self.page
        empty = {page.cutout: markup.cutout(None), page.view: markup.view(), page.status: message(sentence)}
        return {page.session: Session(), page.camera: gr.update(picture="", note=""), **empty}

    def filmed(self, picture: Image.Image, frames: list[Image.Image], wish: ViewRequest) -> Shown:
        """The files of an orbit, where gradio deletes them in time."""
        folder, film = Path(tempfile.mkdtemp(dir=self.studio.files)), self.page.film
        write_mp4(folder / "orbit.mp4", frames)
        write_gif(folder / "orbit.gif", frames)
        labels = [f"{polar:+g}° {azimuth:+.0f}° {radius:+g}" for polar, azimuth, radius in wish.turns]
        contact_sheet([picture, *frames], ["input", *labels]).save(folder / "views.png")
        names = {film.video: "orbit.mp4", film.mp4: "orbit.mp4", film.gif: "orbit.gif", film.sheet: "views.png"}
        return {part: str(folder / name) for part, name in names.items()}

    def progress(self, verb: str) -> Callable[[Progress], Shown]:
        return lambda progress: {self.page.status: busy(verb, progress)}


def reported(
    drawing: Generator[Progress, None, Result], shown: Callable[[Progress], Shown]
) -> Generator[Shown, None, Result]:
    """What the page shows while something is drawn, and in the end what was drawn."""
    while True:
        try:
            progress = next(drawing)
        except StopIteration as end:
            return end.value
        yield shown(progress)


@contextmanager
def shown_errors() -> Iterator[None]:
    """What a visitor can mend becomes a sentence on the page; what nobody waits for ends without a word."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from None
    except Superseded:
        pass


def _parts(record: Settings | Film) -> list[Any]:
    return [getattr(record, field.name) for field in fields(record)]


def _fetch_nothing() -> None:
    """gradio would download what a request names by its URL."""

    async def refuse(url: str, *_: Any, **__: Any) -> str:
        raise gr.Error("pictures are uploaded here, not fetched", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
