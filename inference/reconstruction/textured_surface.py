"""Convert a fitted field to a textured mesh."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from inference.meshes.ray_casting import RayCaster, on_white
from inference.meshes.textured_mesh import TexturedMesh, plain_mesh
from inference.reconstruction.config import Texture
from inference.reconstruction.fitted_field import FittedField
from inference.reconstruction.guidance.guide import DrawnViews
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.surface.baking import bake, source_texture, vertex_colours
from inference.reconstruction.surface.extraction import extract_surface
from inference.reconstruction.surface.simplification import SurfaceCheck, check_surface, make_solid
from inference.reconstruction.surface.unwrapping import unwrap
from rendering.psnr import psnr

MAX_OPACITY = np.float32(0.9999)
DRAWN_SMOOTHING = 1.5  # smoothing of the surface, grid spacings, for a checkpoint's views


@dataclass(frozen=True)
class TexturedSurface:
    """A mesh made from a field, in the field's place.

    Attributes:
        mesh: The mesh with its colours.
        sources: The mesh, coloured by where the colour of each place comes from: photograph, views or field.
        check: Whether the surface is watertight, and its size.
        agreement_db: PSNR, dB, of the mesh's pictures against the field's renders, from the cameras of the fit.
    """

    mesh: TexturedMesh
    sources: TexturedMesh
    check: SurfaceCheck
    agreement_db: float


def textured_surface(
    field: FittedField, photograph: DrawnViews, smoothing: float, faces: int, texture: Texture, texture_size: int
) -> TexturedSurface:
    """Extract, simplify and colour the surface of a field.

    The photograph colours what it sees; the field's renders colour the rest.

    Args:
        field: The fitted field.
        photograph: The input picture, one view, at any resolution.
        smoothing: Standard deviation of a blur of the opacity before the surface is extracted, in grid spacings: views
            that contradict each other leave a torn field.
        faces: Largest number of faces.
        texture: Texture, or vertex colours.
        texture_size: Side of the texture, pixels.

    Raises:
        UserError: The field is empty.
    """
    vertices, triangles = make_solid(*extract_surface(smoothed(field, smoothing), field.half_side), faces)
    pictures = coloured_from(field, photograph)
    if texture is Texture.vertex:
        colours, sources = vertex_colours(vertices, triangles, pictures, field.colour_at)
        mesh = replace(plain_mesh(vertices, triangles), vertex_colours=colours)
        shown = replace(mesh, vertex_colours=source_texture(sources)[..., :3])
    else:
        uv, size = unwrap(vertices, triangles, texture_size)
        baked, sources = bake(vertices, triangles, uv, size, pictures, field.colour_at)
        mesh = TexturedMesh(vertices, triangles, uv, np.zeros(len(triangles), np.int64), (baked,))
        shown = replace(mesh, textures=(source_texture(sources),))
    return TexturedSurface(mesh, shown, check_surface(vertices, triangles), agreement_db(mesh, field))


def smoothed(field: FittedField, spacings: float) -> NDArray[np.float32]:
    """Return the density of a field whose opacity is blurred by a Gaussian of standard deviation `spacings`."""
    if spacings == 0:
        return field.density
    spacing = 2 * field.half_side / (len(field.density) - 1)
    opacity = ndimage.gaussian_filter(-np.expm1(-spacing * field.density), spacings)
    density: NDArray[np.float32] = -np.log1p(-np.clip(opacity, 0, MAX_OPACITY)) / spacing
    return density


def coloured_from(field: FittedField, photograph: DrawnViews) -> PosedViews:
    """Return the pictures that colour a mesh: the photograph in place of the first of the field's renders.

    All have the side of the larger of the two.
    """
    renders = field.renders
    side = max(renders.masks.shape[-1], photograph.masks.shape[-1])
    pictures, masks = (
        np.concatenate([resized(first, side), resized(others[1:], side)])
        for first, others in (
            (photograph.pictures, renders.pictures),
            (as_bytes(photograph.masks), as_bytes(renders.masks)),
        )
    )
    return PosedViews(renders.cameras, pictures, masks[..., 0].astype(np.float32) / 255, renders.weights)


def as_bytes(masks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return masks `[N, R, R]` in [0, 1] as bytes `[N, R, R, 1]`."""
    return (masks[..., None] * 255).round().astype(np.uint8)


def resized(pictures: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return pictures `[N, R, R, C]` at `side`² pixels."""
    if pictures.shape[1] == side:
        return pictures
    images = [Image.fromarray(picture.squeeze()).resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    return np.stack([np.asarray(image).reshape(side, side, -1) for image in images])


def agreement_db(mesh: TexturedMesh, field: FittedField) -> float:
    """Return the PSNR, dB, of the mesh's pictures against the field's renders, where either shows the object."""
    renders = field.renders
    rgba = RayCaster(mesh).render(renders.cameras, renders.masks.shape[-1])
    covered = (rgba[..., 3] > 0) | (renders.masks > 0.5)
    return psnr(on_white(rgba)[covered], renders.pictures[covered])
