"""Handle the events of the web page."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import gradio as gr
from gradio import processing_utils
from PIL import Image

from conf.options import UserError
from inference.meshes.write_mesh import write_mesh
from inference.views.media import contact_sheet, write_gif, write_mp4
from inference.web import markup
from inference.web.camera_control import DEFAULT_ELEVATION
from inference.web.jobs import Progress, Superseded
from inference.web.layout import OrbitFiles, Page, Settings, SolidFiles
from inference.web.service import Session, ViewRequest, ViewService

# No event is part of a public API, and each handler validates its own input, which comes over the network.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
# Handlers that use the device run one at a time; those that cancel a request run at once.
ON_DEVICE: dict[str, Any] = {**PRIVATE, "concurrency_id": "device", "concurrency_limit": 1}
AT_ONCE: dict[str, Any] = {**PRIVATE, "queue": False, "trigger_mode": "multiple"}
Updates = dict[Any, Any]  # new values of components; the others stay as they are
Responses = Generator[Updates, None, None]
Result = TypeVar("Result")


def connect_events(page: Page, service: ViewService) -> None:
    """Connect the components of the page with their handlers; call it inside the page's `gr.Blocks`."""
    _forbid_downloads()
    handlers, settings, files = Handlers(page, service), page.settings, page.files
    request = [page.session, page.camera, *_components(settings)]
    result = [page.view, page.status]
    elevation = [page.camera, settings.elevation]
    everything = [page.session, page.photo, page.cutout, *elevation, *result]
    boxes = [files.box, page.solid.box]
    page.photo.upload(handlers.cancel, page.session, boxes, **AT_ONCE).then(
        handlers.load_picture, page.photo, everything, **ON_DEVICE
    ).success(handlers.sample, request, result, **ON_DEVICE).success(handlers.estimate, request, elevation, **ON_DEVICE)
    page.photo.clear(handlers.cancel, page.session, boxes, **AT_ONCE).then(
        handlers.load_picture, page.photo, everything, **ON_DEVICE
    )
    changes = [page.camera.release, settings.seed.change, settings.guidance.release, settings.steps.release]
    changes += [settings.sampler.change] + ([settings.elevation.release] if service.needs_elevation else [])
    gr.on(changes, handlers.set_request, request, None, **AT_ONCE)
    gr.on(changes, handlers.sample, request, result, trigger_mode="always_last", **ON_DEVICE)
    settings.elevation.change(lambda degrees: gr.update(elevation=degrees), settings.elevation, page.camera, **AT_ONCE)
    settings.elevation.input(handlers.keep_elevation, page.session, None, **AT_ONCE)
    next_seed = "seed => (seed + 1) % 2 ** 32"
    page.new_sample.click(None, settings.seed, settings.seed, js=next_seed, api_visibility="private")
    page.reconstruct.click(handlers.set_request, request, None, **AT_ONCE)
    page.reconstruct.click(
        handlers.reconstruct, request, [page.status, *elevation, page.solid.box],
        trigger_mode="always_last", **ON_DEVICE,
    ).success(handlers.show_model, page.session, _components(page.solid), **AT_ONCE)  # fmt: skip
    page.orbit.click(handlers.set_request, [*request, page.views], None, **AT_ONCE)
    page.orbit.click(
        handlers.sample_orbit, [*request, page.views], [page.status, *_components(files)],
        trigger_mode="always_last", **ON_DEVICE,
    )  # fmt: skip


@dataclass(frozen=True)
class Handlers:
    """The handlers of a page's events. `values` are those of the camera and the settings, as for `parse_request`."""

    page: Page
    service: ViewService

    def set_request(self, session: Session, *values: Any) -> None:
        """Set the session's request at once, so that an earlier one is cancelled at its next step."""
        with shown_errors():
            self.service.set_request(session, self.service.parse_request(*values))

    def keep_elevation(self, session: Session) -> None:
        """Keep the elevation of the slider, which the visitor has set, instead of estimating it."""
        session.needs_estimate = False

    def cancel(self, session: Session) -> Updates:
        """Cancel the session's request and hide the files of the last orbit and the 3D model."""
        self.service.set_request(session, None)
        session.model = None
        return {box: gr.update(visible=False) for box in (self.page.files.box, self.page.solid.box)}

    def load_picture(self, picture: dict[str, Any] | None) -> Responses:
        """Prepare an uploaded picture and show the input of the model; reset the page if there is none."""
        page = self.page
        if picture is None:
            yield self._reset(markup.WELCOME)
            return
        yield {page.status: markup.busy("removing the background")}
        try:
            session = self.service.load_picture(str(picture["path"]))
        except UserError as error:
            yield self._reset(str(error)) | {page.photo: None}
            raise gr.Error(escape(str(error)), print_exception=False) from None
        assert session.prepared is not None
        thumbnail = markup.data_url(markup.thumbnail(session.prepared.cutout))
        yield {
            page.session: session,
            page.cutout: markup.cutout(session.prepared.image),
            page.camera: gr.update(picture=thumbnail, note="", elevation=DEFAULT_ELEVATION),
            page.settings.elevation: DEFAULT_ELEVATION,
        }

    def sample(self, session: Session, *values: Any) -> Responses:
        """Sample a preview, then the view."""
        page, service, start = self.page, self.service, perf_counter()
        with shown_errors():
            request = self._begin(session, values)
            if session.encoded is None:
                yield {page.status: markup.message(markup.WELCOME)}
                return
            preview = service.preview(request)
            if preview is not None:
                (view,) = yield from reported(service.sample(session, preview, request), self._progress("preview"))
                yield {page.view: markup.view(view, request.turn, preview=True), page.status: markup.busy("sampling")}
            (view,) = yield from reported(service.sample(session, request, request), self._progress("sampling"))
            done = markup.finished(request, perf_counter() - start)
            yield {page.view: markup.view(view, request.turn), page.status: done}

    def sample_orbit(self, session: Session, *values: Any) -> Responses:
        """Sample the views of an orbit, and write its film and contact sheet."""
        page, start = self.page, perf_counter()
        with shown_errors():
            request = self._begin(session, values)
            if session.encoded is None or session.prepared is None:
                yield {page.status: markup.message(markup.WELCOME)}
                return
            progress = self._progress(f"orbit of {request.views} views")
            views = yield from reported(self.service.sample(session, request, request), progress)
            yield {page.status: markup.busy("writing the film")}
            files = self._write_orbit(session.prepared.image, views, request)
            done = markup.finished(request, perf_counter() - start)
            yield {page.status: done, page.files.box: gr.update(visible=True), **files}

    def reconstruct(self, session: Session, *values: Any) -> Responses:
        """Reconstruct the object as a 3D model, and write its file; first estimate the elevation if it is unknown."""
        page, start = self.page, perf_counter()
        with shown_errors():
            request = self._begin(session, values)
            if session.encoded is None:
                yield {page.status: markup.message(markup.WELCOME)}
                return
            elevation = request.elevation
            if self._needs_estimate(session):
                elevation = yield from self._estimated(session, request, self._progress("elevation of the camera"))
            job = self.service.reconstruct(session, request, elevation)
            mesh = yield from reported(job, self._progress("3D model"))
            session.model = Path(tempfile.mkdtemp(dir=self.service.files)) / "model.glb"
            write_mesh(session.model, mesh)
            done = markup.reconstructed(request, len(mesh.faces), perf_counter() - start)
            yield {page.status: done, page.solid.box: gr.update(visible=True)}

    def show_model(self, session: Session) -> Updates:
        """Show the 3D model of the session, in its own event: Model3D takes no value in the one that shows its box."""
        if session.model is None:
            return {self.page.solid.box: gr.update(visible=False)}
        return {component: str(session.model) for component in (self.page.solid.model, self.page.solid.glb)}

    def estimate(self, session: Session, *values: Any) -> Responses:
        """Estimate the elevation of the picture's camera and show it in the camera control.

        A checkpoint that needs the elevation keeps that of the slider. A new request cancels the estimate.
        """
        request = session.request
        if session.encoded is None or request is None or not self._needs_estimate(session):
            return
        waiting = {self.page.camera: gr.update(note="estimating the elevation of the picture's camera …")}
        try:
            yield from self._estimated(session, request, lambda progress: waiting)
        except Superseded:
            yield {self.page.camera: gr.update(note="")}

    def _estimated(
        self, session: Session, request: ViewRequest, update: Callable[[Progress], Updates]
    ) -> Generator[Updates, None, float]:
        """Estimate, show and return the elevation; that of the request if it cannot be estimated or the visitor set it.

        Raises:
            Superseded: The session has another request.
        """
        camera, estimate = self.page.camera, None
        with suppress(UserError):
            estimate = yield from reported(self.service.estimate(session, request), update)
        was_set, session.needs_estimate = not session.needs_estimate, False
        if estimate is None or was_set:
            yield {camera: gr.update(note="")}
            return request.elevation
        degrees = round(estimate.degrees)
        note = f"picture's camera: {degrees}° ± {estimate.uncertainty_degrees:.0f}° above the horizon"
        yield {camera: gr.update(elevation=degrees, note=note), self.page.settings.elevation: degrees}
        return degrees

    def _needs_estimate(self, session: Session) -> bool:
        return session.needs_estimate and not self.service.needs_elevation

    def _begin(self, session: Session, values: tuple[Any, ...]) -> ViewRequest:
        """Return the request of a handler that begins; raise `Superseded` if it is outdated."""
        request = self.service.parse_request(*values)
        self.service.begin(session, request)
        return request

    def _reset(self, sentence: str) -> Updates:
        """Return the updates that empty the page and show a message."""
        page = self.page
        return {
            page.session: Session(),
            page.camera: gr.update(picture="", note="", elevation=DEFAULT_ELEVATION),
            page.settings.elevation: DEFAULT_ELEVATION,
            page.cutout: markup.cutout(None),
            page.view: markup.view(),
            page.status: markup.message(sentence),
        }

    def _write_orbit(self, picture: Image.Image, views: list[Image.Image], request: ViewRequest) -> Updates:
        """Write the files of an orbit to a folder that gradio deletes after `layout.KEEP_S`."""
        folder, files = Path(tempfile.mkdtemp(dir=self.service.files)), self.page.files
        write_mp4(folder / "orbit.mp4", views)
        write_gif(folder / "orbit.gif", views)
        labels = [f"{polar:+g}° {azimuth:+.0f}° {radius:+g}" for polar, azimuth, radius in request.turns]
        contact_sheet([picture, *views], ["input", *labels]).save(folder / "views.png")
        names = {files.video: "orbit.mp4", files.mp4: "orbit.mp4", files.gif: "orbit.gif", files.sheet: "views.png"}
        return {component: str(folder / name) for component, name in names.items()}

    def _progress(self, task: str) -> Callable[[Progress], Updates]:
        return lambda progress: {self.page.status: markup.busy(task, progress)}


def reported(
    job: Generator[Progress, None, Result], update: Callable[[Progress], Updates]
) -> Generator[Updates, None, Result]:
    """Yield the updates for a job's progress, and return the job's result."""
    while True:
        try:
            progress = next(job)
        except StopIteration as end:
            return end.value
        yield update(progress)


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show the message of a `UserError` on the page, and end without one if the request was superseded."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from None
    except Superseded:
        pass


def _components(group: Settings | OrbitFiles | SolidFiles) -> list[Any]:
    return [getattr(group, field.name) for field in fields(group)]


def _forbid_downloads() -> None:
    """Keep gradio from downloading a file that a request names by its URL."""

    async def refuse(url: str, *_: Any, **__: Any) -> str:
        raise gr.Error("URLs are not downloaded here; upload the picture", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
