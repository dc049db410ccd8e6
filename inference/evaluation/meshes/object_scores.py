"""Score the meshes of one object by all methods, and keep the result of each in a file."""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from trimesh.transformations import rotation_matrix, transform_points

from conf.options import UserError
from inference.evaluation.meshes.alignment import scale_of
from inference.evaluation.meshes.comparison import Comparison, Truth, compare, predicted_shape, true_object
from inference.evaluation.meshes.definitions import ALIGNMENTS
from inference.evaluation.meshes.pictures import strip
from inference.meshes.mesh_digest import mesh_digest
from inference.meshes.read_mesh import read_mesh
from inference.meshes.textured_mesh import TexturedMesh
from pipeline.output import json_object
from pipeline.storage import write_atomically

VERSION = 2  # of the files and of the definitions of the scores
MAX_COORDINATE = 1e6  # object sizes


@dataclass(frozen=True)
class MeshFile:
    """A mesh to read.

    Attributes:
        path: The file; empty if there is none.
        up: Its axis that points up, as in `read_mesh`.
        searched: The place where it was searched, for the reason if there is none.
    """

    path: str
    up: str
    searched: str


@dataclass(frozen=True)
class ObjectTask:
    """An object to score.

    Attributes:
        uid: The object.
        truth: Its true mesh.
        truth_yaw_degrees: Angle by which the true mesh is turned about +z backwards after its normalisation.
        predictions: The mesh of each method.
        folder: Folder of the results.
    """

    uid: str
    truth: MeshFile
    truth_yaw_degrees: float
    predictions: dict[str, MeshFile]
    folder: str


@dataclass(frozen=True)
class MeshRow:
    """The scores of a method's mesh of an object under one alignment.

    Attributes:
        method: Name of the method.
        uid: The object.
        alignment: Name of the alignment.
        scores: Scores by name; those that are missing have no entry.
        yaw_degrees: Angle of the search about the vertical axis; None for the alignment `none`.
        scale: Factor by which the mesh was scaled; None without a mesh.
        reason: Why scores are missing; empty if none are.
    """

    method: str
    uid: str
    alignment: str
    scores: dict[str, float]
    yaw_degrees: float | None = None
    scale: float | None = None
    reason: str = ""


def result_path(folder: str | Path, method: str, uid: str, suffix: str) -> Path:
    """Return the file of a method's result on an object: `.json` the rows, `.webp` the pictures."""
    return Path(folder) / "objects" / method / f"{uid}{suffix}"


def score_object(task: ObjectTask) -> list[MeshRow]:
    """Return the rows of an object; rows that an earlier run wrote for the same files are read.

    A mesh that is missing or damaged gives rows with the reason.
    """
    rows, pending = list[MeshRow](), dict[str, dict[str, Any]]()
    truth_digest = _digest(task.truth)
    for method, file in task.predictions.items():
        identity = {
            "version": VERSION,
            "truth": [truth_digest, task.truth.up, task.truth_yaw_degrees],
            "prediction": [_digest(file), file.up],
        }
        if (kept := _kept_rows(result_path(task.folder, method, task.uid, ".json"), identity)) is not None:
            rows += kept
        else:
            pending[method] = identity
    if not pending:
        return rows
    truth: Truth | str
    try:
        truth = true_mesh(task.truth, task.truth_yaw_degrees)
    except UserError as error:
        truth = f"the true mesh: {error}"
    for method, identity in pending.items():
        rows += _scored(task, method, truth, identity)
    return rows


def _digest(file: MeshFile) -> str:
    """Return the hash of a mesh; empty if it is missing or cannot be read, which its rows say."""
    try:
        return mesh_digest(Path(file.path)) if file.path else ""
    except UserError:
        return ""


def true_mesh(file: MeshFile, yaw_degrees: float) -> Truth:
    """Return the true object of a file, normalised and then turned by -`yaw_degrees` about +z."""
    mesh = read_mesh(file.path, file.up, colours=False)
    turn = rotation_matrix(-math.radians(yaw_degrees), (0, 0, 1))
    return true_object(replace(mesh, vertices=transform_points(mesh.vertices, turn)))


def _scored(task: ObjectTask, method: str, truth: Truth | str, identity: dict[str, Any]) -> list[MeshRow]:
    """Score one method and write its result; a truth that is a text is the reason why there is none."""
    begin, file = time.monotonic(), task.predictions[method]
    picture, reason = b"", truth if isinstance(truth, str) else ""
    comparisons: list[Comparison] = []
    if isinstance(truth, Truth):
        try:
            prediction = predicted_shape(_predicted_mesh(file))
            comparisons = list(compare(prediction, truth))
            picture = strip(truth.shape, prediction, comparisons)
        except UserError as error:
            reason = str(error)
    rows = [_row(method, task.uid, comparison) for comparison in comparisons]
    rows = rows or [MeshRow(method, task.uid, alignment, {}, reason=reason) for alignment in ALIGNMENTS]
    path = result_path(task.folder, method, task.uid, ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".webp").unlink(missing_ok=True)
    if picture:
        write_atomically(str(path.with_suffix(".webp")), picture)
    record = {
        "identity": identity,
        "seconds": round(time.monotonic() - begin, 2),
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(str(path), (json.dumps(record, indent=1) + "\n").encode())
    return rows


def _predicted_mesh(file: MeshFile) -> TexturedMesh:
    if not file.path:
        raise UserError(f"{file.searched}: has no mesh of this object")
    mesh = read_mesh(file.path, file.up, normalise=False, colours=False)
    if (largest := float(np.abs(mesh.vertices).max())) > MAX_COORDINATE:
        raise UserError(f"{file.path}: has a coordinate of {largest:g}; give a mesh with coordinates below 1,000,000")
    return mesh


def _row(method: str, uid: str, comparison: Comparison) -> MeshRow:
    return MeshRow(
        method,
        uid,
        comparison.alignment,
        comparison.scores,
        comparison.yaw_degrees,
        scale_of(comparison.transform),
        comparison.reason,
    )


def _kept_rows(path: Path, identity: dict[str, Any]) -> list[MeshRow] | None:
    """Return the rows that an earlier run wrote for the same files and settings, or None."""
    if not path.is_file():
        return None
    record = json_object(path.read_bytes())
    if record.get("identity") != identity:
        return None
    try:
        return [MeshRow(**row) for row in record["rows"]]
    except (KeyError, TypeError):  # a damaged file: the object is scored anew
        return None
