"""Score folders of meshes against the true meshes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from conf.options import UserError
from inference.evaluation.meshes.definitions import PROTOCOLS, MeshProtocol
from inference.evaluation.meshes.mesh_folder import MeshFolder, mesh_folder, method_folders
from inference.evaluation.meshes.mesh_results import write_mesh_results
from inference.evaluation.meshes.object_scores import VERSION, MeshFile, MeshRow, ObjectTask, score_object
from pipeline.output import FolderLayout, claimed, json_object, require_apart
from pipeline.parallel import process_pool
from pipeline.storage import is_local, write_atomically

COMMAND, KIND = "inference.evaluate", "meshes"
RECORD = "evaluation.json"
LAYOUT = FolderLayout(
    record=RECORD,
    is_record=lambda contents: (found := json_object(contents)).get("command") == COMMAND and found.get("kind") == KIND,
    writes=r"evaluation\.json|metrics\.json|per_object\.csv|report\.html|objects",
)


def evaluate_meshes(
    meshes: Mapping[str, str],
    truth: str,
    output: str,
    up: Sequence[str] = (),
    truth_up: str = "auto",
    protocol: str = "",
    workers: int | None = None,
) -> dict[str, Any]:
    """Score folders of meshes against the true meshes, and write the results into `output`.

    The objects are those of `truth`. Repeat the call to resume an interrupted run; an object is scored again only if
    one of its files has changed.

    Args:
        meshes: Folders by the name of their method, with a file `<object>.glb` (.gltf, .obj, .ply, .stl, .off)
            or a folder `<object>/mesh.glb` for each object.
        truth: Folder of the true meshes, in either layout. They are centred, and their longest sides scaled to 1.
        output: Local folder of the results.
        up: Axis of the predicted meshes that points up, for all methods or for each: `y`, `z`, or `auto`, which is y
            for .glb, .gltf and .obj files and z for others.
        truth_up: The same for the true meshes.
        protocol: `syncdreamer`, which turns the true objects as its code does and shows its published figures; or
            empty.
        workers: Processes; None: one for each core.

    Returns:
        The contents of metrics.json.

    Raises:
        UserError: A folder is missing or has no mesh of a true object, or the output belongs to another run.
    """
    if not is_local(output):
        raise UserError(f"output={output}: must be a local folder; choose another output")
    if protocol and protocol not in PROTOCOLS:
        raise UserError(f"benchmark={protocol}: has no protocol for meshes; give {', '.join(PROTOCOLS)}, or none")
    settings = PROTOCOLS.get(protocol)
    true = mesh_folder("truth", truth, truth_up, "truth")
    methods = method_folders(meshes, up)
    for folder in methods:
        if not folder.files.keys() & true.files.keys():
            raise UserError(
                f"meshes={folder.path}: has no mesh of an object of truth={truth}, such as {min(true.files)}; "
                "name its files like the true ones"
            )
    for option, path in (("truth", truth), *(("meshes", folder.path) for folder in methods)):
        require_apart(output, path, option)
    with claimed(output, LAYOUT):
        start_or_resume(output, {"benchmark": protocol, "version": VERSION})
        rows = score_all(tasks(true, methods, settings, output), workers)
        return write_mesh_results(output, true, methods, settings, rows)


def start_or_resume(output: str, settings: dict[str, Any]) -> None:
    """Write the record of the settings, or compare it with that of the earlier run.

    Raises:
        UserError: The earlier run had other settings.
    """
    path = Path(output) / RECORD
    earlier = json_object(path.read_bytes()) if path.exists() else settings
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise UserError(
                f"output={output}: the run there has {name}={earlier.get(name)}, not {value}; choose another output"
            )
    write_atomically(str(path), json.dumps({"command": COMMAND, "kind": KIND, **settings}, indent=1).encode())


def tasks(
    true: MeshFolder, methods: Sequence[MeshFolder], protocol: MeshProtocol | None, output: str
) -> list[ObjectTask]:
    """Return the objects to score, in the order of their uids."""
    yaw = {} if protocol is None else protocol.truth_yaw_degrees

    def file(folder: MeshFolder, uid: str) -> MeshFile:
        return MeshFile(str(folder.files.get(uid, "")), folder.up_axis, folder.path)

    return [
        ObjectTask(uid, file(true, uid), yaw.get(uid, 0.0), {one.name: file(one, uid) for one in methods}, output)
        for uid in sorted(true.files)
    ]


def score_all(objects: Sequence[ObjectTask], workers: int | None) -> list[MeshRow]:
    """Return the rows of all objects, scored in parallel."""
    rows = list[MeshRow]()
    workers = min(workers or len(os.sched_getaffinity(0)), len(objects))
    with process_pool(workers) as spread:
        for found in tqdm(spread(score_object, objects), total=len(objects), desc="meshes", unit=" objects"):
            rows += found
    return rows
