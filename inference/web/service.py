"""What the web page lets its visitors do: show a picture, ask for a view of it, ask for views once around it."""

import sys
from collections.abc import Generator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from PIL import Image

from conf.options import UserError
from inference.config import DemoConfig, Sampler, Sampling
from inference.elevation.estimate import Elevation, estimate_elevation
from inference.novel_view import EncodedImage, NovelView
from inference.poses import Turn, orbit_turns, validate_turns
from inference.preprocess.background import NoSegmenter
from inference.preprocess.framing import Prepared
from inference.preprocess.photograph import PictureError
from inference.view_folder import ELEVATION_SAMPLING
from inference.web.jobs import Progress, run_with_progress
from training.model.conditioning import PoseVector


@dataclass(frozen=True)
class ViewRequest:
    """What a visitor asks for: the view after a turn, or `views` of them once around from there."""

    turn: Turn
    sampling: Sampling
    elevation: float  # of the picture's camera, degrees above the horizon
    views: int = 1

    @property
    def turns(self) -> list[Turn]:
        if self.views == 1:
            return [self.turn]
        polar, _, radius = self.turn
        return [(polar, azimuth, radius) for _, azimuth, _ in orbit_turns(self.views)]


@dataclass
class Session:
    """What is kept of a visitor: the picture, what the model knows of it, and the latest wish, which ends others."""

    prepared: Prepared | None = None
    seen: EncodedImage | None = None
    wish: ViewRequest | None = None


@dataclass(frozen=True)
class ViewService:
    """A checkpoint on a device that does one thing at a time."""

    novel_view: NovelView
    device: Executor
    config: DemoConfig
    files: Path  # where visitors' pictures are uploaded to
    closing: Event = field(default_factory=Event)  # ends everything

    def show(self, path: str) -> Session:
        """Prepare and encode a visitor's picture, which was uploaded to `files`.

        Raises:
            UserError: It cannot be read, no object is found in it, or the segmentation model cannot be used; the
                message names no path of the server.
        """
        if not Path(path).resolve().is_relative_to(self.files):
            raise UserError("upload a picture; none of this server's own is shown")
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

    def wish(
        self, turn: Any, seed: Any, guidance: Any, steps: Any, sampler: Any, elevation: Any, views: Any = 1
    ) -> ViewRequest:
        """The same as a wish, once it is known to be sound: it came over the network.

        Raises:
            UserError: a number is none, or out of its range.
        """
        bounds = {
            "seed": (seed, 0, 2**32 - 1),
            "guidance": (guidance, 0, 100),
            "steps": (steps, 1, self.config.max_steps),
            "elevation": (elevation, -90, 90),
            "views": (views, 1, self.config.max_views),
        }
        for name, (number, least, most) in bounds.items():
            if not isinstance(number, (int, float)) or not least <= number <= most:
                raise UserError(f"{name}={number} is outside {least}..{most}")
        sampling = replace(
            self.config.sampling, seed=int(seed), guidance=float(guidance), steps=int(steps), sampler=sampler
        )
        return ViewRequest(validate_turns([turn])[0], sampling, float(elevation), int(views))

    def preview(self, wish: ViewRequest) -> ViewRequest | None:
        """The same in few steps, where that is less."""
        steps = self.config.preview_steps
        if steps >= wish.sampling.steps:
            return None
        return replace(wish, sampling=replace(wish.sampling, steps=steps, sampler=Sampler.dpm_solver))

    def draw(
        self, session: Session, wish: ViewRequest, of: ViewRequest
    ) -> Generator[Progress, None, list[Image.Image]]:
        """What is wished for, as long as it is part of the session's latest wish, `of`."""
        seen = session.seen
        assert seen is not None
        elevation = wish.elevation if self.needs_elevation else None
        views = yield from run_with_progress(
            self.device,
            lambda on_step: self.novel_view(seen, wish.turns, wish.sampling, elevation=elevation, on_step=on_step),
            lambda: session.wish == of and not self.closing.is_set(),
        )
        return views

    def estimate(self, session: Session, wish: ViewRequest) -> Generator[Progress, None, Elevation]:
        """How high the picture's camera stood, as long as nothing else is wished for.

        Raises:
            UserError: it cannot be told.
        """
        seen, prepared = session.seen, session.prepared
        assert seen is not None and prepared is not None
        elevation = yield from run_with_progress(
            self.device,
            lambda on_step: estimate_elevation(
                lambda poses: self.novel_view(seen, poses, ELEVATION_SAMPLING, on_step=on_step), prepared.image
            ),
            lambda: session.wish == wish and not self.closing.is_set(),
        )
        return elevation

    @property
    def needs_elevation(self) -> bool:
        return self.novel_view.model.cc_projection.pose_vector is PoseVector.stable_zero123
