"""Predict orbits: the views of an object on a circle, by each method, from one input view."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.evaluation.config import EvaluateConfig
from inference.evaluation.methods.external import read_external, set_folder
from inference.evaluation.methods.method import Method, MissingPicture, Pixels
from inference.evaluation.methods.method_list import LABELS
from inference.evaluation.methods.predictions import Task, saved_method, tasks_of
from inference.evaluation.pairs import Pair
from inference.evaluation.scored_object import ScoredObject
from inference.evaluation.scored_set import ScoredSet
from rendering.cameras import Array, camera_centre, cartesian_to_spherical, look_at_origin, spherical_to_cartesian

WITHOUT_TRUTH = ("oracle", "repeat")  # methods of pairs that can draw any camera


def orbit_cameras(input_camera: Array, count: int, first: float = 0.0) -> Array:
    """Return cameras `[count, 3, 4]` at equal steps of azimuth, at the elevation and distance of the input camera.

    Args:
        input_camera: Extrinsics `[3, 4]`.
        count: Number of cameras, counter-clockwise seen from above.
        first: Azimuth of the first camera relative to the input camera, steps.
    """
    polar, azimuth, radius = cartesian_to_spherical(camera_centre(input_camera))
    turns = 2 * math.pi * (np.arange(count) + first) / count
    return np.stack([look_at_origin(spherical_to_cartesian(polar, azimuth + turn, radius)) for turn in turns])


def orbit_of(one: ScoredObject, count: int) -> ScoredObject:
    """Return an object with the cameras of an orbit after its own, and a pair for each of them.

    The input is that of the object's first pair. The targets have no view: their indices follow those of the views.
    """
    input, own = one.pairs[0].input, len(one.cameras)
    cameras = np.concatenate([one.cameras, orbit_cameras(one.cameras[input], count)])
    x, y, z = (-one.centres[input]).tolist()
    pairs = [Pair(input, own + number, (x, y, z)) for number in range(count)]
    return replace(one, cameras=cameras, pairs=pairs, views={input: one.views[input]})


def orbit_folder(scored: ScoredSet, root: Path, count: int) -> Path:
    """Return the folder of the pictures and results of orbits of `count` views of a set."""
    return scored.folder(root) / f"orbit-{count}"


def orbit_tasks(sets: Sequence[ScoredSet], root: Path, count: int) -> Iterator[Task]:
    """Yield the pictures that the checkpoint predicts for the orbits of some sets; none if `count` is 0."""
    for scored in sets if count else ():
        objects = [orbit_of(one, count) for one in scored.objects]
        yield from tasks_of(orbit_folder(scored, root, count), objects, ["model"], 1)


def orbit_methods(scored: ScoredSet, root: Path, config: EvaluateConfig, with_model: bool) -> list[Method]:
    """Return the methods that draw orbits of a set, the checkpoint first.

    Args:
        scored: The set with its methods.
        root: Folder of the predictions.
        config: Options of the command.
        with_model: Whether a checkpoint predicted pictures.
    """
    side, methods = scored.resolution, list[Method]()
    if with_model:
        folder = orbit_folder(scored, root, config.consistency)
        methods.append(saved_method("model", LABELS["model"], folder, 1, side))
    for name, predictions in config.prediction_folders.items():
        own = set_folder(predictions, scored.name)
        if any((own / one.uid / "orbit").is_dir() for one in scored.objects):
            methods.append(_external_orbit(name, own, config.consistency, side, config.resize))
    return methods + [method for method in scored.methods if method.name in WITHOUT_TRUTH]


def orbit_pictures(orbit: ScoredObject, method: Method) -> list[Pixels]:
    """Return the pictures of an orbit; raise `MissingPicture` if one is missing."""
    return [method.pictures(orbit, pair)[0] for pair in orbit.pairs]


def _external_orbit(name: str, folder: Path, count: int, resolution: int, resize: bool) -> Method:
    """Return the method whose orbits are `<uid>/orbit/000.png` … of a folder."""

    def pictures(orbit: ScoredObject, pair: Pair) -> list[Pixels]:
        own = folder / orbit.uid / "orbit"
        if (found := len(list(own.glob("[0-9][0-9][0-9].png")))) != count:
            raise MissingPicture(f"{own} has {found} views, not {count}; draw as many, or give consistency={found}")
        return [read_external(own / f"{pair.target - orbit.pairs[0].target:03d}.png", resolution, resize)]

    return Method(name, name, pictures)
