"""Write a mesh with its colours to a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from conf.options import UserError
from inference.meshes.colours import colours_of_vertices
from inference.meshes.glb import encode_glb
from inference.meshes.obj import encode_obj
from inference.meshes.read_mesh import Y_UP_SUFFIXES, Y_UP_TO_Z_UP
from inference.meshes.textured_mesh import TexturedMesh
from pipeline.storage import write_atomically

SUFFIXES = (".glb", ".obj", ".ply", ".stl")
MILLIMETRES = 1000  # in a metre


def write_mesh(path: Path, mesh: TexturedMesh, height_m: float | None = None) -> None:
    """Write a mesh in the format of the suffix of `path`, atomically.

    | suffix | up | colours | unit with `height_m` |
    | --- | --- | --- | --- |
    | .glb | y | texture as PNG inside, or linear colours of vertices | metre |
    | .obj | y | texture as .png beside it, named in a .mtl; or colours of vertices | metre |
    | .ply | z | colours of vertices, sampled from the texture | metre |
    | .stl | z | none | millimetre, as 3D printers take it |

    Args:
        path: The file. An OBJ with a texture gets a .mtl and a .png of its name beside it.
        mesh: The mesh, z up.
        height_m: Extent along z to scale the mesh to, in metres; None for the coordinates as they are.

    Raises:
        UserError: The suffix is not one of these, or a flat mesh cannot be scaled to a height.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: cannot be written; give a file that ends in {', '.join(SUFFIXES)}")
    if height_m is not None:
        mesh = _scaled(mesh, height_m * (MILLIMETRES if suffix == ".stl" else 1))
    if suffix in Y_UP_SUFFIXES:
        mesh = replace(mesh, vertices=mesh.vertices @ Y_UP_TO_Z_UP)
    for name, contents in _encode(mesh, path.stem, path.suffix).items():
        write_atomically(str(path.with_name(name)), contents)


def _encode(mesh: TexturedMesh, stem: str, suffix: str) -> dict[str, bytes]:
    """Return the files by name; the one with `suffix` last, which refers to the others."""
    match suffix.lower():
        case ".glb":
            return {stem + suffix: encode_glb(mesh)}
        case ".obj":
            return encode_obj(mesh, stem, suffix)
    colours = colours_of_vertices(mesh) if suffix.lower() == ".ply" else None
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colours, process=False)
    contents = solid.export(file_type=suffix[1:].lower())
    assert isinstance(contents, bytes)
    return {stem + suffix: contents}


def _scaled(mesh: TexturedMesh, height: float) -> TexturedMesh:
    extent = float(np.ptp(mesh.vertices[mesh.faces][..., 2]))
    if extent <= 0:
        raise UserError("the mesh is flat, so that it has no height to scale; leave out the height")
    return replace(mesh, vertices=mesh.vertices * (height / extent))
