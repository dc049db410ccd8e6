"""Sample novel views of the object in a picture.

Example:
    from inference import NovelView
    views = NovelView.load("outputs/run/model")("chair.jpg", [[0, 90, 0], [-30, 0, 0]], steps=50, guidance=3.0, seed=0)

Exported, each imported on first use:
    NovelView: a loaded checkpoint, called with a picture and relative camera poses.
    EncodedImage: the result of `NovelView.encode`.
    Sampling: the settings of the sampler.
    Prepared, prepare: a picture with its background removed and the object framed as in training.
    PictureError: raised for a picture that cannot be used.
    Elevation, estimate_elevation: the elevation of the input camera.
    reconstruct_picture: a textured mesh of the object in a picture; ViewsSettings: the settings of the method.
    TexturedMesh, write_mesh: the mesh, and its files.

Packages: `inference.preprocess`, `inference.elevation` and `inference.web` (the web page of `inference.demo`).
"""

from typing import TYPE_CHECKING

from conf.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from inference.config import Sampling
    from inference.elevation.estimate import Elevation, estimate_elevation
    from inference.meshes.textured_mesh import TexturedMesh
    from inference.meshes.write_mesh import write_mesh
    from inference.novel_view import EncodedImage, NovelView
    from inference.preprocess.framing import Prepared, prepare
    from inference.preprocess.photograph import PictureError
    from inference.reconstruction.config import ViewsSettings
    from inference.reconstruction.library import reconstruct_picture

__all__ = [
    "Elevation", "EncodedImage", "NovelView", "PictureError", "Prepared", "Sampling", "TexturedMesh", "ViewsSettings",
    "estimate_elevation", "prepare", "reconstruct_picture", "write_mesh",
]  # fmt: skip
__getattr__ = lazy_exports(
    __name__,
    {
        "Elevation": "elevation.estimate",
        "EncodedImage": "novel_view",
        "NovelView": "novel_view",
        "PictureError": "preprocess.photograph",
        "Prepared": "preprocess.framing",
        "Sampling": "config",
        "TexturedMesh": "meshes.textured_mesh",
        "ViewsSettings": "reconstruction.config",
        "estimate_elevation": "elevation.estimate",
        "prepare": "preprocess.framing",
        "reconstruct_picture": "reconstruction.library",
        "write_mesh": "meshes.write_mesh",
    },
)
