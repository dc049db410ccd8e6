# SPDX-License-Identifier: GPL-3.0-or-later
"""Import an untrusted file into Blender's scene: its meshes only, in the pose of frame 1.

`rendering.asset_validation` checks the file before Blender opens it; the textures that are drawn are checked here.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
from bpy_extras import image_utils

from rendering import materials
from rendering.asset_validation.references import References
from rendering.coincidence import kept_by_gltf_import
from rendering.failure import RenderFailure
from rendering.geometry import drawn_meshes
from rendering.visibility import gltf_node_visibility, hide_parts

bpy.utils.expose_bundled_modules()  # `pxr`, which reads USD in `rendering.asset_validation`


def import_asset(path: Path, references: References, keep_reversed: bool = False) -> None:
    """Import a validated file and show its meshes only.

    Args:
        path: The asset, or the copy of it that `rendering.asset_validation.redirect` made.
        references: The files that the asset may refer to.
        keep_reversed: Whether to keep both of two glTF triangles that share their vertices and face opposite ways.

    Raises:
        RenderFailure: `unreadable` if Blender cannot read it, `incomplete` if a texture is missing or damaged,
            `no_mesh` if it has no faces.
    """
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False  # also the factory setting
    own_objects, world = set(bpy.data.objects), bpy.context.scene.world
    try:
        with kept_by_gltf_import() if keep_reversed else contextlib.nullcontext():
            _import(path, references)
    except RuntimeError as error:  # raised by operators if an importer reports an error or fails
        raise RenderFailure("unreadable", _last_line(error)) from error
    hide_parts(set(bpy.data.objects) - own_objects)
    materials.add_implied(references)
    bpy.context.scene.world = world
    bpy.context.scene.frame_set(1)  # applies the animation: importers create its keys only
    meshes = [mesh for mesh, _ in drawn_meshes()]
    if not any(mesh.polygons for mesh in meshes):
        raise RenderFailure("no_mesh", "the file has no mesh with faces")
    _check_textures(references)


def _import(path: Path, references: References) -> None:
    file = str(path)
    match path.suffix.lower():
        case ".glb" | ".gltf":
            with gltf_node_visibility():
                bpy.ops.import_scene.gltf(filepath=file, merge_vertices=True)
        case ".obj":
            bpy.ops.wm.obj_import(filepath=file)
        case ".fbx":
            original = image_utils.load_image
            image_utils.load_image = _fbx_image_loader(references, original)
            try:
                bpy.ops.import_scene.fbx(filepath=file, use_image_search=False)
            finally:
                image_utils.load_image = original
        case ".ply":
            bpy.ops.wm.ply_import(filepath=file)
        case ".stl":
            bpy.ops.wm.stl_import(filepath=file)
        case ".dae":
            bpy.ops.wm.collada_import(filepath=file)
        case _:
            from pxr import Usd

            stage = Usd.Stage.Open(file)
            _refuse_nested_instancers(stage)
            bpy.ops.wm.usd_import(
                filepath=file, import_cameras=False, import_lights=False, create_world_material=False,
                set_frame_range=False,
            )  # fmt: skip
            _shade_polygons_flat(stage)


def _refuse_nested_instancers(stage: Any) -> None:
    """Raise `RenderFailure` if the prototypes of a PointInstancer have another one; Blender misplaces its instances."""
    from pxr import Usd, UsdGeom

    for prim in stage.Traverse():
        if not prim.IsA(UsdGeom.PointInstancer):
            continue
        for target in UsdGeom.PointInstancer(prim).GetPrototypesRel().GetForwardedTargets():
            prototype = stage.GetPrimAtPath(target)
            if prototype and any(part.IsA(UsdGeom.PointInstancer) for part in Usd.PrimRange(prototype)):
                raise RenderFailure("unreadable", f"PointInstancer {prim.GetPath()} has another one in its prototypes")


def _shade_polygons_flat(stage: Any) -> None:
    """Give USD meshes without normals flat faces, as USD renderers do; Blender imports all as smooth.

    Subdivision surfaces and shapes, such as Sphere, stay smooth. A mesh that has the name of one of these does too.
    """
    from pxr import Usd, UsdGeom

    polygons: set[str] = set()
    smooth: set[str] = set()
    for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
        if prim.IsA(UsdGeom.Gprim):
            mesh = UsdGeom.Mesh(prim)
            is_polygons = mesh and mesh.GetSubdivisionSchemeAttr().Get() == "none"
            (polygons if is_polygons else smooth).add(prim.GetName())
    for mesh in bpy.data.meshes:
        if mesh.name.partition(".")[0] in polygons - smooth and not mesh.has_custom_normals:
            mesh.shade_flat()


def _fbx_image_loader(references: References, load_image: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement of Blender's `load_image` for an FBX, whose paths are often those of another machine.

    A path without a file below the folder of the source stands for the file of that name beside the asset.
    """

    def load(imagepath: str, **_: Any) -> Any:
        given, target = Path(imagepath.replace("\\", "/")), None
        with contextlib.suppress(RenderFailure):  # a path that the operating system cannot resolve
            target = references.inside(given)
            if target is None or not target.is_file():
                target = references.beside(given.name, references.asset)
        return load_image(str(target or references.asset.parent / given.name), place_holder=True)

    return load


def _check_textures(references: References) -> None:
    """Raise `RenderFailure` for textures outside the allowed folders, and for missing or damaged ones."""
    for image in materials.drawn_images():
        path = Path(bpy.path.abspath(image.filepath)) if image and image.filepath and not image.packed_file else None
        if path and not references.inside(path):
            raise RenderFailure("external", f"the texture {str(path)!r} is outside the folder of the source")
        materials.check_picture(image)
    materials.check_tiles()


def _last_line(error: Exception) -> str:
    """Return the last line of the message of an operator, without the place in Blender's code that follows it."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Location: ")]
    return lines[-1] if lines else type(error).__name__
