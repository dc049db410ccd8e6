# SPDX-License-Identifier: GPL-3.0-or-later
"""Materials of an imported asset: add those that the file implies, and check the textures that are drawn.

Blender's importers store vertex colours as attributes without a material, so that the part would render grey.
"""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from PIL import Image, UnidentifiedImageError

from rendering import ply
from rendering.asset_validation.references import Pictures, References
from rendering.failure import RenderFailure

USD_COLOUR_ATTRIBUTE = "displayColor"  # shown by USD where no material is bound
MAX_UNIT_COLOUR = 2.0  # float colours of an OBJ or a PLY with larger values have the range 0 to 255
DEFAULT_COLOURS = ([1, 1, 1, 1], [0.8, 0.8, 0.8, 1])
TOLERANT_FORMATS = ("JPEG", "WEBP", "TIFF", "DDS")  # Blender draws damaged files of them in part, or black


def add_implied(references: References) -> None:
    """Give each imported part without a material the one that its file implies.

    This is the texture of a PLY, else the part's vertex colours. A part with neither is not changed.
    """
    suffix = references.asset.suffix.lower()
    parts = [obj for obj in bpy.data.objects if obj.type == "MESH"]
    if suffix == ".ply":
        for part in parts:  # one part
            ply.complete(part.data, references)
    materials: dict[tuple[float, ...], bpy.types.Material] = {}
    for part in parts:
        free = [slot for slot in part.material_slots if _is_free(slot.material, suffix)]
        if (part.material_slots and not free) or (colour := _colour(part.data, suffix)) is None:
            continue
        material = materials[colour] = materials.get(colour) or _material(colour)
        if not part.material_slots:
            part.data.materials.append(material)
        for slot in free:
            slot.material = material


def _is_free(material: bpy.types.Material | None, suffix: str) -> bool:
    """Return whether vertex colours apply to a slot: it is empty, or its `material` in an OBJ has a default colour.

    MeshLab writes a white material beside vertex colours, Blender its default grey. Blender's importer also uses the
    grey for materials that no library defines.
    """
    if material is None or suffix != ".obj":
        return material is None
    shaders = [node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED"]
    sockets = [shader.inputs["Base Color"] for shader in shaders]
    return any(
        not socket.is_linked and np.round(socket.default_value, 4).tolist() in DEFAULT_COLOURS for socket in sockets
    )


def _colour(mesh: bpy.types.Mesh, suffix: str) -> tuple[float, ...] | None:
    """Return the uniform linear colour of `mesh`, () if its vertex colours vary, None if it has none."""
    attribute = mesh.color_attributes.get(USD_COLOUR_ATTRIBUTE) or next(iter(mesh.color_attributes), None)
    if attribute is None or not len(attribute.data):
        return None
    mesh.color_attributes.render_color_index = list(mesh.color_attributes).index(attribute)
    colours = _in_range(attribute, linear=suffix.startswith(".usd"))
    return () if np.ptp(colours, axis=0).max() > 1e-6 else (*map(float, colours[0]), 1.0)


def _material(colour: tuple[float, ...]) -> bpy.types.Material:
    """Return a new material of `colour`; if that is (), of the active colour attribute of its mesh."""
    material = bpy.data.materials.new("colour")
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    if colour:
        shader.inputs["Base Color"].default_value = colour
    else:
        node = material.node_tree.nodes.new("ShaderNodeVertexColor")  # without a name it reads the active attribute
        material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return material


def _in_range(attribute: bpy.types.Attribute, linear: bool) -> np.ndarray:
    """Bring the colours of `attribute` into [0, 1] and return them, linear, as `[N, 3]`.

    Some programs write OBJ and PLY colours as floats from 0 to 255. These colours are sRGB, those of USD `linear`.
    """
    space = "color" if linear else "color_srgb"
    colours = np.empty(len(attribute.data) * 4, dtype=np.float32)
    attribute.data.foreach_get(space, colours)
    rgb = np.nan_to_num(colours.reshape(-1, 4)[:, :3], nan=0.0)
    if not linear and rgb.max() > MAX_UNIT_COLOUR:
        rgb = rgb / 255
    if attribute.data_type == "FLOAT_COLOR" and not np.array_equal(rgb.clip(0, 1), colours.reshape(-1, 4)[:, :3]):
        colours.reshape(-1, 4)[:, :3] = rgb.clip(0, 1)
        attribute.data.foreach_set(space, colours)
    attribute.data.foreach_get("color", colours)
    return colours.reshape(-1, 4)[:, :3].copy()


def drawn_materials() -> list[bpy.types.Material | None]:
    """Return the materials of the drawn objects; None stands for a part without a material."""
    drawn: dict[bpy.types.Material | None, None] = {}
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type == "MESH":
            # The slots of the object, not of its mesh: in an FBX, objects with a common mesh may differ in materials.
            materials = [slot.material for slot in instance.object.material_slots] or [None]
            drawn.update((material and material.original, None) for material in materials)
    return list(drawn)


def drawn_images() -> list[bpy.types.Image | None]:
    """Return the images of the drawn textures; None stands for a texture without an image."""
    return list(dict.fromkeys(image for material in drawn_materials() if material for image in _images(material)))


def _images(material: bpy.types.Material) -> list[bpy.types.Image | None]:
    return [node.image for node in _drawn_nodes(material) if node.type == "TEX_IMAGE"]


def check_tiles() -> None:
    """Check that texture coordinates lie in UDIM tiles that exist; Blender draws other faces magenta.

    Raises:
        RenderFailure: `incomplete`.
    """
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type != "MESH":
            continue
        for index, slot in enumerate(instance.object.material_slots):
            for image in _images(slot.material.original) if slot.material else []:
                if not image or image.source != "TILED":
                    continue
                missing = _tiles(instance.object.data, index) - {tile.number for tile in image.tiles}
                if missing:
                    raise RenderFailure("incomplete", f"picture {image.name!r} has no tile {min(missing)}")


def _tiles(mesh: bpy.types.Mesh, material: int) -> set[int]:
    """Return the UDIM numbers of the tiles that contain the centres of the faces of the slot `material`."""
    layer = next((layer for layer in mesh.uv_layers if layer.active_render), None)
    if layer is None or not mesh.polygons:
        return set()
    uv = np.empty(len(mesh.loops) * 2, dtype=np.float32)
    layer.data.foreach_get("uv", uv)
    starts, indices = np.empty(len(mesh.polygons), np.int32), np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    mesh.polygons.foreach_get("material_index", indices)
    sums = np.add.reduceat(uv.reshape(-1, 2), starts, axis=0)
    centres = sums / np.diff(np.append(starts, len(mesh.loops)))[:, None]
    u, v = np.floor(centres[indices == material]).astype(int).T
    return set((1001 + u + 10 * v).tolist())


def _drawn_nodes(material: bpy.types.Material) -> Iterator[bpy.types.Node]:
    """Yield the nodes that contribute to the surface of `material`, also inside groups."""
    tree = material.node_tree if material.use_nodes else None
    output = tree.get_output_node("CYCLES") if tree else None
    if output:
        yield from _upstream(tree, [output])


def _upstream(tree: bpy.types.NodeTree, pending: list[bpy.types.Node]) -> Iterator[bpy.types.Node]:
    """Yield the nodes `pending` and all nodes that are linked into them."""
    sources: dict[str, list[bpy.types.Node]] = {}
    for link in tree.links:
        sources.setdefault(link.to_node.name, []).append(link.from_node)
    visited = set()
    while pending:
        node = pending.pop()
        if node.name in visited:
            continue
        visited.add(node.name)
        yield node
        pending.extend(sources.get(node.name, []))
        if node.type == "GROUP" and node.node_tree:
            yield from _upstream(
                node.node_tree, [inner for inner in node.node_tree.nodes if inner.type == "GROUP_OUTPUT"]
            )


def check_picture(image: bpy.types.Image | None) -> None:
    """Check that Blender can draw a texture completely.

    Raises:
        RenderFailure: `incomplete` if it is missing, damaged or truncated; `unreadable` if Blender does not support its
            encoding; `too_large` if it declares too many pixels.
    """
    if image is None:
        raise RenderFailure("incomplete", "a texture has no image, or one of an unsupported format")
    problem = None
    sizes = Pictures()  # the textures of an FBX are known only after its import
    for content in _contents(image):
        sizes.add(content, image.name)
        problem = problem or _problem(content)
    if not all(image.size):  # makes Blender decode it
        if isinstance(problem, NotImplementedError):
            raise RenderFailure("unreadable", f"picture {image.name!r} has an encoding that Blender does not support")
        raise RenderFailure("incomplete", f"picture {image.name!r} is missing or damaged")
    if problem and not isinstance(problem, NotImplementedError):
        raise RenderFailure("incomplete", f"picture {image.name!r} is damaged or truncated")


def _contents(image: bpy.types.Image) -> Iterator[Path | bytes]:
    """Yield the file or the packed bytes of each tile of `image`."""
    for packed in image.packed_files:
        yield packed.packed_file.data
    if image.packed_files or not image.filepath:
        return
    path = bpy.path.abspath(image.filepath)
    for tile in image.tiles if image.source == "TILED" else [None]:
        number = tile.number if tile else 1001
        u, v = (number - 1001) % 10 + 1, (number - 1001) // 10 + 1
        yield Path(path.replace("<UDIM>", str(number)).replace("<UVTILE>", f"u{u}_v{v}"))


def _problem(content: Path | bytes) -> Exception | None:
    """Return Pillow's error for a damaged image of `TOLERANT_FORMATS`, or None."""
    try:
        file = content if isinstance(content, Path) else io.BytesIO(content)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=TOLERANT_FORMATS) as image:
            # Reads a JPEG to its end without the full inverse transform.
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except (UnidentifiedImageError, FileNotFoundError, Image.DecompressionBombError):
        return None  # another format or no file: Blender's decoder decides
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        return error
    return None
