"""Sample views for the visitors of the web page: load a picture, sample a view or an orbit, estimate the elevation."""

import sys
from collections import deque
from collections.abc import Generator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

from PIL import Image

from conf.options import UserError
from inference.config import GUIDANCE_RANGE, DemoConfig, Sampler, Sampling
from inference.elevation.estimate import Elevation, estimate_elevation
from inference.meshes.read_mesh import normalised
from inference.meshes.textured_mesh import TexturedMesh
from inference.novel_view import EncodedImage, NovelView
from inference.poses import Turn, orbit_turns, validate_turns
from inference.preprocess.background import NoSegmenter
from inference.preprocess.framing import Prepared
from inference.preprocess.photograph import PictureError
from inference.reconstruction.config import ViewsSettings
from inference.reconstruction.library import reconstruct_picture
from inference.reconstruction.monitor import Monitor, OnProgress
from inference.views.view_folder import ELEVATION_SAMPLING
from inference.web.jobs import OnStep, Progress, Superseded, run_with_progress
from training.model.conditioning import PoseVector

MESH_FACES, TEXTURE_PX = 20_000, 512  # of a 3D model
MAX_SUPERSEDED = 64  # requests of a visitor that are known to be outdated; fewer wait in the queue


@dataclass(frozen=True)
class ViewRequest:
    """A request for the view after a turn, or for an orbit.

    Attributes:
        turn: The turn of the camera; an orbit keeps its polar angle and radius.
        sampling: Settings of the sampler.
        elevation: Of the picture's camera, degrees above the horizon.
        views: Number of views; more than one are an orbit.
    """

    turn: Turn
    sampling: Sampling
    elevation: float
    views: int = 1

    @property
    def turns(self) -> list[Turn]:
        """The turn of each view."""
        if self.views == 1:
            return [self.turn]
        polar, _, radius = self.turn
        return [(polar, azimuth, radius) for _, azimuth, _ in orbit_turns(self.views)]


@dataclass
class Session:
    """The state of a visitor.

    Attributes:
        prepared: The prepared picture.
        encoded: The encoded picture.
        request: The latest request, which cancels earlier ones.
        superseded: Earlier requests, whose handlers may still wait in the queue.
        needs_estimate: Whether the elevation was neither estimated nor set by the visitor.
        model: The file of the 3D model.
    """

    prepared: Prepared | None = None
    encoded: EncodedImage | None = None
    request: ViewRequest | None = None
    superseded: deque[ViewRequest] = field(default_factory=lambda: deque(maxlen=MAX_SUPERSEDED))
    needs_estimate: bool = True
    model: Path | None = None


@dataclass(frozen=True)
class ViewService:
    """Sample views on a device that runs one job at a time.

    Attributes:
        novel_view: The checkpoint.
        device: Runs everything that uses the device.
        config: Options of the command.
        files: Folder of uploaded and sampled files.
        closing: Cancels all jobs when it is set.
        requests: Guards the requests of all sessions.
    """

    novel_view: NovelView
    device: Executor
    config: DemoConfig
    files: Path
    closing: Event = field(default_factory=Event)
    requests: Lock = field(default_factory=Lock)

    def load_picture(self, path: str) -> Session:
        """Prepare and encode a picture that a visitor uploaded to `files`.

        Raises:
            UserError: It cannot be read, no object is found in it, or the segmentation model cannot be used. The
                message names no path of the server.
        """
        if not Path(path).resolve().is_relative_to(self.files):
            raise UserError("this picture was not uploaded; upload one")
        try:
            prepared = self.novel_view.prepare(path, self.config.cutout, self.config.fill)
        except NoSegmenter as error:
            print(error, file=sys.stderr)
            raise UserError(
                "backgrounds cannot be removed here at present; give a picture that is transparent or white around "
                "the object"
            ) from error
        except PictureError as error:
            raise UserError(f"{Path(path).name} {error.reason}") from error
        return Session(prepared, self.device.submit(self.novel_view.encode, prepared).result())

    def parse_request(
        self, turn: Any, seed: Any, guidance: Any, steps: Any, sampler: Any, elevation: Any, views: Any = 1
    ) -> ViewRequest:
        """Return values that came over the network as a request.

        Raises:
            UserError: A value has a wrong type or is out of its range.
        """
        ranges = {
            "seed": (seed, 0, 2**32 - 1),
            "guidance": (guidance, *GUIDANCE_RANGE),
            "steps": (steps, 1, self.config.max_steps),
            "elevation": (elevation, -90, 90),
            "views": (views, 1, self.config.max_views),
        }
        for name, (number, lowest, highest) in ranges.items():
            if not isinstance(number, (int, float)) or not lowest <= number <= highest:
                raise UserError(f"{name}={number}: must be between {lowest} and {highest}")
        sampling = replace(
            self.config.sampling, seed=int(seed), guidance=float(guidance), steps=int(steps), sampler=sampler
        )
        return ViewRequest(validate_turns([turn])[0], sampling, float(elevation), int(views))

    def set_request(self, session: Session, request: ViewRequest | None) -> None:
        """Make `request` the session's latest one, so that the earlier one is cancelled at its next step."""
        with self.requests:
            _replace_request(session, request)

    def begin(self, session: Session, request: ViewRequest) -> None:
        """Make `request` the session's latest one when its handler begins.

        The handler may begin before `set_request` was called with the request, or after it was with a later one.

        Raises:
            Superseded: A later request was set.
        """
        with self.requests:
            if request in session.superseded:
                raise Superseded
            _replace_request(session, request)

    def preview(self, request: ViewRequest) -> ViewRequest | None:
        """Return the request for a preview in few steps; None if it would take as many steps as the request."""
        steps = self.config.preview_steps
        if steps >= request.sampling.steps:
            return None
        return replace(request, sampling=replace(request.sampling, steps=steps, sampler=Sampler.dpm_solver))

    def sample(
        self, session: Session, request: ViewRequest, latest: ViewRequest
    ) -> Generator[Progress, None, list[Image.Image]]:
        """Sample the views of a request, yielding progress, while `latest` is the session's latest request.

        Args:
            session: Has an encoded picture.
            request: `latest` or its preview.
            latest: The request of the visitor.

        Raises:
            Superseded: The session has another request.
        """
        encoded = session.encoded
        assert encoded is not None
        elevation = request.elevation if self.needs_elevation else None
        views = yield from run_with_progress(
            self.device,
            lambda on_step: self.novel_view(
                encoded, request.turns, request.sampling, elevation=elevation, on_step=on_step
            ),
            lambda: session.request == latest and not self.closing.is_set(),
        )
        return views

    def estimate(self, session: Session, latest: ViewRequest) -> Generator[Progress, None, Elevation]:
        """Estimate the elevation of the picture's camera, while `latest` is the session's latest request.

        Raises:
            UserError: The elevation cannot be estimated.
            Superseded: The session has another request.
        """
        encoded, prepared = session.encoded, session.prepared
        assert encoded is not None and prepared is not None
        elevation = yield from run_with_progress(
            self.device,
            lambda on_step: estimate_elevation(
                lambda poses: self.novel_view(encoded, poses, ELEVATION_SAMPLING, on_step=on_step), prepared.image
            ),
            lambda: session.request == latest and not self.closing.is_set(),
        )
        return elevation

    def reconstruct(
        self, session: Session, latest: ViewRequest, elevation: float
    ) -> Generator[Progress, None, TexturedMesh]:
        """Reconstruct the object of the picture, while `latest` is the session's latest request.

        Args:
            session: Has an encoded picture.
            latest: The request of the visitor, which gives the sampler's settings; the method's are quick ones.
            elevation: Of the picture's camera, degrees above the horizon.

        Raises:
            UserError: The views contradict each other, or show no object.
            Superseded: The session has another request.
        """
        encoded, prepared = session.encoded, session.prepared
        assert encoded is not None and prepared is not None
        rings = [-20.0, 15.0, 50.0]
        count = self.config.reconstruction_views // len(rings)
        views = ViewsSettings(rings, count, guesses=1, rounds=0, nodes=[32, 64], epochs=[6, 3])
        surface = yield from run_with_progress(
            self.device,
            lambda on_step: reconstruct_picture(
                self.novel_view, prepared, elevation, views, latest.sampling, MESH_FACES, TEXTURE_PX, encoded,
                Monitor(in_percent(on_step)),
            ),
            lambda: session.request == latest and not self.closing.is_set(),
        )  # fmt: skip
        return normalised(surface.mesh)

    @property
    def needs_elevation(self) -> bool:
        """Whether the pose vector of the checkpoint holds the elevation."""
        return self.novel_view.model.cc_projection.pose_vector is PoseVector.stable_zero123


def _replace_request(session: Session, request: ViewRequest | None) -> None:
    if session.request is not None and session.request != request:
        session.superseded.append(session.request)
    if request is not None and request in session.superseded:
        session.superseded.remove(request)  # it is made once more
    session.request = request


def in_percent(on_step: OnStep) -> OnProgress:
    """Return a callback that reports the two stages of a reconstruction, drawing and fitting, as steps of 100."""
    stages = list[str]()

    def on_progress(stage: str, done: int, total: int, loss: float | None) -> None:
        if stage not in stages:
            stages.append(stage)
        on_step(max(1, round(50 * (min(len(stages), 2) - 1 + done / total))), 100)

    return on_progress
