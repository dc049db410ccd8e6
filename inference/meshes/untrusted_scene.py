"""Load an untrusted file of a mesh as a scene of trimesh."""

import io
import json
import logging
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.gltf.extensions import register_handler
from trimesh.exchange.obj import load_obj
from trimesh.resolvers import FilePathResolver

from conf.options import UserError
from inference.meshes.plain_obj import plain_obj
from inference.meshes.ply_elements import mesh_of_elements
from rendering.asset_validation import redirect, validate
from rendering.asset_validation.obj import MATERIAL_LINES
from rendering.failure import RenderFailure

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MAX_BYTES = 1 << 30
SPEC_GLOSS = "KHR_materials_pbrSpecularGlossiness"
TRIANGLE_FAN = 6  # mode of a primitive of a glTF
# Of the extensions that a glTF can require, those that are read or change neither positions nor base colours.
READ_EXTENSIONS = {"KHR_materials_unlit", "KHR_materials_emissive_strength", "KHR_materials_specular"} | {SPEC_GLOSS}

logging.getLogger("trimesh").setLevel(logging.ERROR)  # warnings about optional features of a file


def load_untrusted(path: Path, colours: bool = True) -> trimesh.Scene:
    """Return the parts of a .glb, .gltf, .obj, .ply, .stl or .off file with their nodes and decoded pictures.

    Files that it refers to are read from its folder only.

    Args:
        path: The file.
        colours: Whether materials and textures are needed; otherwise those of an OBJ or PLY need not exist.

    Raises:
        UserError: The file is missing, not valid, too large or of another format, or a file that it refers to is.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{suffix or 'a file without suffix'} is not supported; give {', '.join(SUFFIXES)}")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f"the file has {size:,} bytes; give one of at most {MAX_BYTES:,}")
        if suffix == ".off":  # a list of numbers without references, which Blender does not read
            return _load(path)
        with tempfile.TemporaryDirectory() as folder:
            source = path if colours else _without_materials(path, Path(folder))
            references = validate(source)
            if suffix == ".obj" and len(references.resolved.get(source, {})) > 1:
                references.redirected = True  # trimesh reads one library; the copy has the materials of all
            if suffix in (".glb", ".gltf"):
                _check_gltf(path.read_bytes())
            return _load(redirect(references, Path(folder) / "copy"))
    except RenderFailure as error:
        raise UserError(error.detail) from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}") from error
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:  # of `_check_gltf`: the JSON has another structure
        raise UserError(f"not a valid {suffix} file: {type(error).__name__}: {error}") from error


def _without_materials(path: Path, folder: Path) -> Path:
    """Return the file, or for an OBJ or PLY a copy in `folder` that refers to no other file."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        contents = MATERIAL_LINES.sub(b"", path.read_bytes())
    elif suffix == ".ply":
        header, end, body = path.read_bytes().partition(b"end_header")
        contents = re.sub(rb"(?m)^comment TextureFile[^\n]*\n", b"", header) + end + body
    else:
        return path
    copy = folder / f"mesh{suffix}"
    copy.write_bytes(contents)
    return copy


@register_handler(SPEC_GLOSS, scope="material")
def _diffuse_as_base_colour(context: Any) -> dict[str, Any]:
    """Return the base colour of a material of trimesh's glTF reader, which would mix the specular colour into it."""
    values = context["parse_textures"](data=context["data"])
    return {
        "baseColorTexture": values.get("diffuseTexture"),
        "baseColorFactor": np.asarray(values.get("diffuseFactor", (1.0, 1.0, 1.0, 1.0))).tolist(),
    }


def _check_gltf(data: bytes) -> None:
    """Check a valid glTF for geometry, extensions and embedded pictures that trimesh ignores if it cannot read them."""
    text, binary = data, b""
    if data[:4] == b"glTF":
        end = 20 + struct.unpack_from("<I", data, 12)[0]
        text, binary = data[20:end], data[end + 8 :]
    document = json.loads(text.decode("utf-8-sig"))
    if unknown := set(document.get("extensionsRequired", [])) - READ_EXTENSIONS:
        raise UserError(f"the file requires {min(unknown)}, which is not supported; export it without")
    for primitive in (primitive for mesh in document.get("meshes", []) for primitive in mesh["primitives"]):
        if primitive.get("mode") == TRIANGLE_FAN:
            raise UserError("a part consists of triangle fans, which are not supported; export it as triangles")
        used = [*primitive["attributes"].values(), *([primitive["indices"]] if "indices" in primitive else [])]
        if any("sparse" in document["accessors"][number] for number in used):
            raise UserError("a part has sparse accessors, which are not supported; export it without")
    for material in document.get("materials", []):
        reference = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        reference = material.get("extensions", {}).get(SPEC_GLOSS, {}).get("diffuseTexture", reference)
        if reference is None:
            continue
        texture = document["textures"][reference["index"]]
        source = document["images"][texture["source"]] if "source" in texture else {}
        view = document["bufferViews"][source["bufferView"]] if "bufferView" in source else None
        if view and view["buffer"] == 0 and binary:
            start = view.get("byteOffset", 0)
            _check_picture(io.BytesIO(binary[start : start + view["byteLength"]]))


def _check_picture(file: Any) -> None:
    try:
        Image.open(file).close()
    except Exception as error:  # Pillow's decoders raise many types for damaged pictures
        raise UserError(f"a texture is damaged or of an unknown format ({error}); export it again") from error


def _load(path: Path) -> trimesh.Scene:
    suffix, resolver = path.suffix.lower(), _Files(str(path))
    try:
        with open(path, "rb") as file:
            if suffix == ".obj":
                scene = _obj_scene(load_obj(io.BytesIO(plain_obj(file.read())), resolver=resolver))
            else:
                scene = trimesh.load_scene(file, file_type=suffix[1:], resolver=resolver, process=False)
            if suffix == ".ply":
                for name, part in [*scene.geometry.items()]:
                    if isinstance(part, trimesh.Trimesh):
                        scene.geometry[name] = mesh_of_elements(part)
            for part in scene.geometry.values():
                if (image := picture(getattr(getattr(part, "visual", None), "material", None))) is not None:
                    image.load()
    except OSError:
        raise
    except Exception as error:  # parsers raise many types for invalid files
        raise UserError(f"not a valid {suffix} file: {type(error).__name__}: {error}") from error
    if resolver.missing:
        raise UserError(
            f"the file refers to {resolver.missing[0]!r}, which is missing or damaged; put it beside the file"
        )
    return scene


def picture(material: Any) -> Any:
    """Return the picture of the base colour of one of trimesh's materials, or None."""
    return getattr(material, "baseColorTexture", None) or getattr(material, "image", None)


class _Files(FilePathResolver):
    """Read the files below the folder of an asset, or below that of its copy, where they are links.

    trimesh ignores errors of a resolver, so that this one keeps the names of files that are missing or damaged.
    """

    def __init__(self, source: str):
        super().__init__(source)
        self.missing: list[str] = []

    def get(self, name: str) -> bytes:
        path = Path(os.path.normpath(os.path.join(self.parent, name.strip())))
        if not path.is_file():
            if path.suffix.lower() == ".mtl":
                path = Path(self.clean).with_suffix(".mtl")  # Blender reads it too; the only one of a copy
            else:  # references of a glTF are URIs
                path = Path(os.path.normpath(os.path.join(self.parent, unquote(name))))
        if not path.is_relative_to(self.parent) or not path.is_file():
            self.missing.append(name)
            raise FileNotFoundError(name)
        if path.suffix.lower() not in (".mtl", ".bin"):
            try:
                _check_picture(path)
            except UserError:
                self.missing.append(name)
                raise
        return path.read_bytes()


def _obj_scene(loaded: dict[str, Any]) -> trimesh.Scene:
    """Return the scene of an OBJ; parts without a material, or with a plain white or grey one, show vertex colours."""
    scene = trimesh.Scene()
    for name, part in loaded.get("geometry", {}).items():
        colours, visual = part.pop("vertex_colors", None), part.pop("visual")
        material = getattr(visual, "material", None)
        if (image := picture(material)) is not None and "file_path" not in image.info:
            visual = None  # trimesh creates a picture for texture coordinates without a material
        if colours is not None and (visual is None or _is_plain(material)):
            colours = colours / 255 if colours.max() > 2 else colours
            visual = trimesh.visual.ColorVisuals(vertex_colors=np.clip(colours, 0.0, 1.0))
        scene.add_geometry(
            trimesh.Trimesh(part["vertices"], part["faces"], visual=visual, process=False), geom_name=name
        )
    return scene


def _is_plain(material: Any) -> bool:
    return picture(material) is None and material.kwargs.get("kd", [0.8] * 3) in ([1.0] * 3, [0.8] * 3)
