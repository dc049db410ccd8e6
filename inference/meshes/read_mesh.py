"""Read a mesh and its colours from an untrusted file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from conf.options import UserError
from inference.meshes.srgb import from_linear, to_bytes, to_linear
from inference.meshes.textured_mesh import TexturedMesh
from inference.meshes.untrusted_scene import load_untrusted, picture
from rendering.cameras import Array

Y_UP_SUFFIXES = (".glb", ".gltf", ".obj")  # as in Blender's importers, which take PLY and STL as z up; OFF too
MAX_FACES = 5_000_000
DEFAULT_GREY = 231  # sRGB value of Blender's surface without a material, 0.8 in linear light
DEFAULT_KD = (0.8, 0.8, 0.8)
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def read_mesh(path: Path | str, up: str = "", normalise: bool = True, colours: bool = True) -> TexturedMesh:
    """Read a mesh in the pose, orientation and colours in which `pipeline.render` draws it, without lighting.

    All parts of the file are placed by their nodes and joined, unused vertices are dropped, and the result is
    normalised (`normalised`). Colours are sRGB: base colour texture × base colour factor × vertex colours. Not
    applied are skins, animations, GPU instances, transforms of textures and second texture coordinates of a glTF.

    Args:
        path: A .glb, .gltf, .obj, .ply, .stl or .off file. Textures of an OBJ or PLY, buffers and textures of a .gltf
            are searched in its folder only.
        up: Axis of the file that points up, `y` or `z`; empty: y for .glb, .gltf and .obj, z for the others.
        normalise: Whether to centre the mesh and scale its longest side to 1; otherwise it stays where the file has it.
        colours: Whether colours are needed; otherwise files of materials and textures of an OBJ or PLY may be missing.

    Raises:
        UserError: The file is missing, not valid, too large, refers to files elsewhere, or has no surface.
    """
    path = Path(path)
    try:
        mesh = _joined(path, up or ("y" if path.suffix.lower() in Y_UP_SUFFIXES else "z"), colours)
        centred = normalised(mesh)
        return centred if normalise else mesh
    except UserError as error:
        raise UserError(f"{path}: {error}") from error.__cause__


def normalised(mesh: TexturedMesh) -> TexturedMesh:
    """Return the mesh with its bounding box centred at the origin and the longest side of the box 1.

    Raises:
        UserError: The box is empty or not finite.
    """
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    side = float((high - low).max())
    if not np.isfinite(side) or side <= 0:
        raise UserError("the surface has no extent; give a file with a mesh")
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) / side)


def _joined(path: Path, up: str, colours: bool) -> TexturedMesh:
    scene = load_untrusted(path, colours)
    placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
    # In the order of the file: trimesh gives random names to the primitives of a glTF and to their nodes.
    order = {name: number for number, name in enumerate(scene.geometry)}
    placed.sort(key=lambda place: (order[place[1]], place[0].tolist()))
    parts = [(scene.geometry[name], matrix) for matrix, name in placed]
    parts = [(part, matrix) for part, matrix in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    faces = sum(len(part.faces) for part, _ in parts)
    if not faces:
        raise UserError("the file has no triangles; give a file with a mesh")
    if faces > MAX_FACES:
        raise UserError(f"the file has {faces:,} triangles; give a mesh of at most {MAX_FACES:,}")
    linear = path.suffix.lower() in (".glb", ".gltf")
    textures = _Textures()
    mesh = _concatenated([_part(part, matrix, textures, linear) for part, matrix in parts], textures)
    if not np.isfinite(mesh.vertices).all():
        raise UserError("some points are not finite; give a valid mesh")
    return replace(mesh, vertices=mesh.vertices @ Y_UP_TO_Z_UP.T) if up == "y" else mesh


@dataclass(frozen=True)
class _Part:
    vertices: Array
    faces: NDArray[np.int64]
    uv: Array
    material: int
    colours: NDArray[np.uint8] | None


@dataclass
class _Textures:
    """The different textures of a file; parts with equal materials share one."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    numbers: dict[Any, int] = field(default_factory=dict)

    def add(self, material: Any, grey: int) -> int:
        """Return the number of the texture of a material; that of None is plain `grey`."""
        image, factor = picture(material), _factor(material)
        mode, cutoff = getattr(material, "alphaMode", None), getattr(material, "alphaCutoff", None)
        key = (id(image), tuple(factor), mode, cutoff) if material is not None else grey
        if key not in self.numbers:
            self.numbers[key] = len(self.images)
            if material is None:
                texture = np.full((1, 1, 4), (grey, grey, grey, 255), dtype=np.uint8)
            else:
                texture = _base_colour(image, factor)
                texture[..., 3] = _opacity(texture[..., 3], mode, cutoff)
            self.images.append(texture)
        return self.numbers[key]


def _factor(material: Any) -> Array:
    """Return the linear factor `[4]` of the base colour: that of a glTF, or the Kd of an OBJ without a picture."""
    if (factor := getattr(material, "baseColorFactor", None)) is not None:
        return np.asarray(factor) / 255
    if isinstance(material, trimesh.visual.material.SimpleMaterial) and picture(material) is None:
        return np.array([*material.kwargs.get("kd", DEFAULT_KD), 1.0])
    return np.ones(4)


def _base_colour(picture: Any, factor: Array) -> NDArray[np.uint8]:
    """Return picture × factor in sRGB `[H, W, 4]`; the factor `[4]` is linear."""
    image = np.full((1, 1, 4), 255, dtype=np.uint8) if picture is None else np.array(picture.convert("RGBA"))
    for channel in range(3):
        if factor[channel] != 1:
            image[..., channel] = to_bytes(from_linear(to_linear(np.arange(256) / 255) * factor[channel]))[
                image[..., channel]
            ]
    image[..., 3] = np.round(image[..., 3] * factor[3])
    return image


def _opacity(alpha: NDArray[np.uint8], mode: str | None, cutoff: float | None) -> ArrayLike:
    if mode == "BLEND":
        return alpha
    if mode == "MASK":
        return np.where(alpha >= 255 * (0.5 if cutoff is None else cutoff), 255, 0)
    return 255


def _part(geometry: trimesh.Trimesh, matrix: Array, textures: _Textures, linear: bool) -> _Part:
    """Return a part in the axes of the file; `linear` says whether its vertex colours are."""
    vertices, faces = np.asarray(geometry.vertices, dtype=np.float64), np.asarray(geometry.faces, dtype=np.int64)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise UserError("points do not have three coordinates or triangles not three corners; give a valid mesh")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"a triangle names vertex {faces.max()} of {len(vertices)}; give a valid mesh")
    colours, per_face = _vertex_colours(geometry.visual, linear)
    uv = getattr(geometry.visual, "uv", None)
    valid = uv is not None and np.shape(uv) == (len(vertices), 2)
    corners = np.nan_to_num(np.asarray(uv)[faces], posinf=0, neginf=0) if valid else np.zeros((len(faces), 3, 2))
    if per_face and colours is not None:
        vertices, colours = vertices[faces].reshape(-1, 3), np.repeat(colours, 3, axis=0)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirrored part; its faces are to be counter-clockwise still
        faces, corners = faces[:, ::-1], corners[:, ::-1]
    material = getattr(geometry.visual, "material", None)
    grey = DEFAULT_GREY if colours is None else 255
    return _Part(vertices, faces, corners, textures.add(material, grey), colours)


def _vertex_colours(visual: Any, linear: bool) -> tuple[NDArray[np.uint8] | None, bool]:
    """Return the sRGB colours `[N, 3]` of vertices or faces, and whether they are those of faces."""
    kind = getattr(visual, "kind", None)
    if kind in ("vertex", "face"):
        colours = np.asarray(visual.vertex_colors if kind == "vertex" else visual.face_colors)
    else:
        attributes = getattr(visual, "vertex_attributes", {})
        colours = np.asarray(attributes["color"]) if kind == "texture" and "color" in attributes else np.zeros(0)
    if colours.ndim != 2 or not len(colours):
        return None, False
    values = colours[:, :3] / (np.iinfo(colours.dtype).max if np.issubdtype(colours.dtype, np.integer) else 1.0)
    values = np.nan_to_num(values)
    return to_bytes(from_linear(values) if linear else values), kind == "face"


def _concatenated(parts: list[_Part], textures: _Textures) -> TexturedMesh:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    vertices = np.concatenate([part.vertices for part in parts])
    colours = None
    if any(part.colours is not None for part in parts):
        white = np.full((len(vertices), 3), 255, dtype=np.uint8)
        colours = np.concatenate(
            [white[: len(p.vertices)] if p.colours is None else p.colours for p in parts]
        )  # parts without colours stay as they are
    used, faces = np.unique(faces, return_inverse=True)
    return TexturedMesh(
        vertices=vertices[used],
        faces=faces.reshape(-1, 3),
        uv=np.concatenate([part.uv for part in parts]),
        material=np.repeat([part.material for part in parts], [len(part.faces) for part in parts]),
        textures=tuple(textures.images),
        vertex_colours=None if colours is None else colours[used],
    )
