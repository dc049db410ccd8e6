"""Colour a surface from the photograph, elsewhere from other views, and from the field where no view shows it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from inference.meshes.normals import corner_normals
from inference.meshes.ray_casting import RayCaster, pixel_rays
from inference.meshes.textured_mesh import plain_mesh
from inference.reconstruction.posed_views import PosedViews
from inference.reconstruction.surface.extraction import Faces
from inference.reconstruction.surface.texels import pad, rasterise
from rendering.cameras import FOV_DEGREES, Array, camera_centre, project
from rendering.faces import vertex_normals

FieldColours = Callable[[Array], NDArray]
EMPTY, PHOTOGRAPH, VIEWS, FIELD = range(4)  # where most of the colour of a point comes from
MAP_COLOURS = np.array([[255, 255, 255], [46, 139, 87], [70, 130, 220], [230, 120, 50]], dtype=np.uint8)

OPAQUE = 0.9  # coverage of a pixel that shows no background
MARGIN = 1.0  # pixels from the background, or from the edge of a nearer part, that are not used
FEATHER = 0.012  # of the side of a picture: after the margin, the trust in a pixel rises to 1
MIN_FEATHER = 2.0  # pixels
DEPTH_STEP = 0.03  # difference of the distances of two neighbouring pixels at the edge of a nearer part
DEPTH_STEP_PIXELS = 4.0  # the same in widths of a pixel on the object, for small pictures
GRAZING = (0.1, 0.4)  # cosine of the viewing angle, between which the trust in a pixel rises from 0 to 1
POWER = 4.0  # of the cosine in the weight of a view: views from ahead are preferred
POINTS_AT_ONCE = 1 << 18


def bake(
    vertices: Array, faces: Faces, uv: Array, size: int, views: PosedViews, field_colours: FieldColours
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the texture of a mesh from pictures of the object, and the source of each of its texels.

    Args:
        vertices: Positions `[V, 3]`.
        faces: Triangles `[F, 3]`, counter-clockwise from outside.
        uv: Texture coordinates `[F, 3, 2]`.
        size: Side of the texture in pixels, S.
        views: Pictures; the one with the highest weight is the photograph.
        field_colours: Returns colours `[P, 3]` in [0, 1] at points `[P, 3]`.

    Returns:
        The texture, RGBA `[S, S, 4]`, and `PHOTOGRAPH`, `VIEWS` or `FIELD` for each texel `[S, S]`. Texels between
        triangles repeat the nearest one.
    """
    texels = rasterise(uv, size)
    points = texels.interpolate(vertices, faces)
    normals = _unit(np.einsum("pk,pkc->pc", texels.barycentric, corner_normals(vertices, faces)[texels.face]))
    colours, sources = _colours(points, normals, RayCaster(plain_mesh(vertices, faces)), views, field_colours)
    texture = np.full((size, size, 4), 255, dtype=np.uint8)
    texture.reshape(-1, 4)[texels.index, :3] = colours
    source = np.full((size, size), EMPTY, dtype=np.uint8)
    source.ravel()[texels.index] = sources
    if not len(texels.index):
        return texture, source
    return pad(texture, texels.index), pad(source, texels.index)


def vertex_colours(
    vertices: Array, faces: Faces, views: PosedViews, field_colours: FieldColours
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the colour of each vertex `[V, 3]` and its source `[V]`, as `bake` does for texels."""
    caster = RayCaster(plain_mesh(vertices, faces))
    return _colours(vertices, vertex_normals(vertices, faces), caster, views, field_colours)


def source_texture(sources: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the map of what was seen: RGBA `[…, 4]`, green from the photograph, blue from views, orange from none."""
    colours = MAP_COLOURS[sources]
    return np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=-1)


def _colours(
    points: Array, normals: Array, caster: RayCaster, views: PosedViews, field_colours: FieldColours
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the colours `[P, 3]` of points of the surface and their sources `[P]`.

    colour = q · photograph + (1 - q) · (s · views + (1 - s) · field), where q is the trust in the photograph's pixel, s
    the chance that at least one other view is right, and the views are weighted by trust · cosine^4. Trust falls to 0
    smoothly towards the limits of what a view sees, so that no seam shows there.
    """
    photograph = int(views.weights.argmax())
    trust, front = _seen(points, normals, caster, views, photograph)[:2]
    rest = np.flatnonzero(trust < 1)  # nothing to add elsewhere
    total, weight, missed = np.zeros((len(rest), 3)), np.zeros(len(rest)), np.ones(len(rest))
    for view in np.flatnonzero(views.weights > 0):
        if view == photograph:
            continue
        seen, colours, cosine = _seen(points[rest], normals[rest], caster, views, int(view))
        share = views.weights[view] * seen * cosine**POWER
        total += share[:, None] * colours
        weight += share
        missed *= 1 - seen
    behind = total / np.maximum(weight, 1e-12)[:, None]
    unseen = np.flatnonzero(missed > 0)
    behind[unseen] += missed[unseen, None] * (_field(field_colours, points[rest[unseen]]) - behind[unseen])

    colours, shares = front, np.stack([trust, np.zeros_like(trust), np.zeros_like(trust)], axis=1)
    colours[rest] = trust[rest, None] * front[rest] + (1 - trust[rest, None]) * behind
    shares[rest, 1], shares[rest, 2] = (1 - trust[rest]) * (1 - missed), (1 - trust[rest]) * missed
    sources = np.array([PHOTOGRAPH, VIEWS, FIELD], dtype=np.uint8)[shares.argmax(axis=1)]
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8), sources


def _field(field_colours: FieldColours, points: Array) -> Array:
    chunks = [field_colours(points[i : i + POINTS_AT_ONCE]) for i in range(0, len(points), POINTS_AT_ONCE)]
    return np.concatenate([np.asarray(chunk, dtype=np.float64) for chunk in chunks]) if chunks else np.zeros((0, 3))


def _seen(points: Array, normals: Array, caster: RayCaster, views: PosedViews, view: int) -> tuple[Array, Array, Array]:
    """Return the trust `[P]` in what a view shows at points, its colours `[P, 3]` and the cosine `[P]` of the angle."""
    camera = views.cameras[view]
    resolution = views.pictures.shape[1]
    cosine = np.einsum("pc,pc->p", normals, _unit(camera_centre(camera) - points))
    trust = _smoothstep((cosine - GRAZING[0]) / (GRAZING[1] - GRAZING[0]))
    colours = np.zeros((len(points), 3))
    near = np.flatnonzero(trust > 0)
    pixels = project(points[near], camera, resolution)
    trust[near] *= _sample(_pixel_trust(caster, camera, views.masks[view]), pixels)
    near, pixels = near[trust[near] > 0], pixels[trust[near] > 0]
    trust[near] *= caster.visible(points[near], normals[near], camera_centre(camera))
    pixels, near = pixels[trust[near] > 0], near[trust[near] > 0]
    for channel in range(3):
        colours[near, channel] = _sample(views.pictures[view, ..., channel] / 255, pixels)
    return trust, colours, np.maximum(cosine, 0)


def _pixel_trust(caster: RayCaster, camera: Array, mask: NDArray[np.float32]) -> Array:
    """Return the trust in the pixels of a picture `[R, R]`: 0 beside the background and beside edges in depth.

    Close to those edges, a small error of the surface or of the camera takes the colour of another part.
    """
    resolution = len(mask)
    rows, columns = caster.drawn_pixels(camera, resolution, FOV_DEGREES)
    directions = pixel_rays(camera, resolution, FOV_DEGREES, rows=rows, columns=columns)
    hits = caster.first_hits(np.broadcast_to(camera_centre(camera), directions.shape), directions)
    depth = np.zeros((resolution, resolution))
    depth[rows, columns] = np.where(hits.face >= 0, hits.distance, 0).reshape(depth[rows, columns].shape)
    pixel = 2 * np.tan(np.radians(FOV_DEGREES) / 2) * np.linalg.norm(camera_centre(camera)) / resolution
    limit = max(DEPTH_STEP, DEPTH_STEP_PIXELS * pixel)
    good = mask >= OPAQUE
    for axis in range(2):
        edge = np.abs(np.diff(depth, axis=axis)) > limit
        for side in (slice(None, -1), slice(1, None)):
            good[(slice(None),) * axis + (side,)] &= ~edge
    # The frame is not an edge: outside, nothing is known to be bad.
    distance = distance_transform_edt(good) if not good.all() else np.full(good.shape, np.inf)
    return np.clip((distance - MARGIN) / max(FEATHER * resolution, MIN_FEATHER), 0, 1)


def _sample(image: Array, pixels: Array) -> Array:
    """Return values of `image` `[R, R]` at pixel coordinates (column, row) `[P, 2]`, bilinearly; 0 outside."""
    inside = ((pixels >= 0) & (pixels <= len(image))).all(axis=1)
    return map_coordinates(image, pixels[:, ::-1].T - 0.5, order=1, mode="nearest") * inside


def _smoothstep(x: Array) -> Array:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
