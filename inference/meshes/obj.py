"""Encode a mesh as Wavefront OBJ."""

import numpy as np
from numpy.typing import NDArray

from inference.meshes.colours import colours_of_vertices
from inference.meshes.glb import encode_png
from inference.meshes.textured_mesh import TexturedMesh


def encode_obj(mesh: TexturedMesh, stem: str, suffix: str = ".obj") -> dict[str, bytes]:
    """Return the files of an OBJ by name, `stem` + `suffix` the last one, which refers to the others.

    A mesh without colours of vertices has its textures beside it, named in a .mtl. Otherwise the vertices have the
    colours, with those of the textures multiplied, because readers of OBJ show one of both.

    Args:
        mesh: The mesh in the axes of the file, y up.
        stem: Name of the files without suffix.
        suffix: That of the OBJ as the user wrote it.
    """
    if mesh.vertex_colours is not None:
        vertices = np.concatenate([mesh.vertices, colours_of_vertices(mesh) / 255], axis=1)
        return {stem + suffix: "".join([_rows("v", vertices), _faces(mesh.faces[..., None])]).encode()}
    numbers = np.unique(mesh.material).tolist()
    pictures = {number: f"{stem}.png" if len(numbers) == 1 else f"{stem}_{number}.png" for number in numbers}
    files = {name: encode_png(mesh.textures[number]) for number, name in pictures.items()}
    files[f"{stem}.mtl"] = "".join(
        f"newmtl texture_{number}\nKd 1 1 1\nKs 0 0 0\nmap_Kd {name}\n" for number, name in pictures.items()
    ).encode()
    uv, places = np.unique(mesh.uv.reshape(-1, 2), axis=0, return_inverse=True)
    corners = np.stack([mesh.faces, places.reshape(-1, 3)], axis=-1)
    parts = [f"mtllib {stem}.mtl\n", _rows("v", mesh.vertices), _rows("vt", uv)]
    for number in numbers:
        parts += [f"usemtl texture_{number}\n", _faces(corners[mesh.material == number])]
    files[stem + suffix] = "".join(parts).encode()
    return files


def _rows(keyword: str, values: NDArray[np.float64]) -> str:
    line = f"{keyword} {' '.join(['%.7g'] * values.shape[1])}\n"
    return line * len(values) % tuple(values.ravel().tolist())


def _faces(corners: NDArray[np.int64]) -> str:
    """Return the lines of faces, whose corners have one index each `[F, 3, 1]` or two `[F, 3, 2]`."""
    line = f"f {' '.join(['/'.join(['%d'] * corners.shape[2])] * 3)}\n"
    return line * len(corners) % tuple((corners + 1).ravel().tolist())
