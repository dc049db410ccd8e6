"""Find the meshes of a method: one file, or one folder with mesh.glb, for each object."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.options import UserError
from inference.meshes.untrusted_scene import SUFFIXES
from pipeline.uid import as_uid

NAME = re.compile(r"(?!\.+$)[\w.+-]{1,60}")  # also names a folder of the output
UP = ("auto", "y", "z")
MESH = "mesh"  # stem of the file in an object's folder


@dataclass(frozen=True)
class MeshFolder:
    """The meshes of a method, or the true ones.

    Attributes:
        name: Name of the method.
        path: The folder, as it was given.
        up: Axis of the files that points up: `y`, `z`, or `auto` for y in .glb, .gltf and .obj files and z in others.
        files: The file of each object that has one, by its uid.
    """

    name: str
    path: str
    up: str
    files: dict[str, Path]

    @property
    def up_axis(self) -> str:
        """Return the axis for `read_mesh`."""
        return "" if self.up == "auto" else self.up


def mesh_folder(name: str, path: str, up: str, option: str) -> MeshFolder:
    """Return the meshes `<uid>.<suffix>` and `<uid>/mesh.<suffix>` in a folder.

    Names that begin with a dot are skipped.

    Args:
        name: Name of the method.
        path: The folder.
        up: `auto`, `y` or `z`.
        option: The option that gave the folder.

    Raises:
        UserError: The folder is missing or has no mesh, or two files belong to one object.
    """
    if up not in UP:
        raise UserError(f"up={up}: must be one of {', '.join(UP)}")
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{option}={path}: is not a folder; give a folder of meshes")
    files: dict[str, Path] = {}
    for file in sorted(_mesh_files(folder)):
        uid = as_uid(file.stem if file.parent == folder else file.parent.name)
        if uid in files:
            raise UserError(f"{option}={path}: {files[uid]} and {file} both are object {uid}; remove one")
        files[uid] = file
    if not files:
        raise UserError(f"{option}={path}: has no mesh; give files <object>{'|'.join(SUFFIXES)} or <object>/mesh.glb")
    return MeshFolder(name, path, up, files)


def _mesh_files(folder: Path) -> list[Path]:
    found = []
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        candidates = [entry] if not entry.is_dir() else [path for path in entry.iterdir() if path.stem == MESH]
        found += [path for path in candidates if path.suffix.lower() in SUFFIXES and path.is_file()]
    return found


def method_folders(meshes: Mapping[str, str], up: Sequence[str]) -> list[MeshFolder]:
    """Return the folders of methods that an option names.

    Args:
        meshes: Folders by the name of their method.
        up: The up axis of all methods, or of each; empty for `auto`.

    Raises:
        UserError: A name is not valid, or a folder has no meshes.
    """
    axes = list(up) or ["auto"]
    axes = axes * len(meshes) if len(axes) == 1 else axes
    if len(axes) != len(meshes):
        raise UserError(f"up={','.join(up)}: give one axis, or one for each of the {len(meshes)} folders of meshes")
    for name in meshes:
        if not NAME.fullmatch(name):
            raise UserError(f"meshes: {name!r} cannot be the name of a method; give {{name: folder}} with another name")
    return [mesh_folder(name, meshes[name], axis, "meshes") for name, axis in zip(meshes, axes, strict=True)]
