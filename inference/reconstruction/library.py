"""Reconstruct the object in a picture, without files: for programs and the web page."""

import numpy as np
from PIL import Image

from inference.config import Sampling
from inference.novel_view import EncodedImage, NovelView
from inference.poses import cameras_after
from inference.preprocess.framing import Prepared, prepare
from inference.preprocess.photograph import Picture
from inference.reconstruction.config import Texture, ViewsSettings
from inference.reconstruction.guidance.guide import DrawnViews
from inference.reconstruction.guidance.model_guide import ModelGuide
from inference.reconstruction.guidance.silhouette import silhouette
from inference.reconstruction.monitor import Monitor
from inference.reconstruction.textured_surface import DRAWN_SMOOTHING, TexturedSurface, textured_surface
from inference.reconstruction.views.guesses import draw_guesses
from inference.reconstruction.views.method import reconstruct_from_views

FINE_PX = 384  # side of the input picture that colours the mesh


def reconstruct_picture(
    novel_view: NovelView,
    picture: Picture | Prepared,
    elevation: float,
    views: ViewsSettings | None = None,
    sampling: Sampling | None = None,
    faces: int = 40_000,
    texture_size: int = 1024,
    encoded: EncodedImage | None = None,
    monitor: Monitor | None = None,
) -> TexturedSurface:
    """Return the textured mesh of the object in a picture, in the z-up world, by `method=views`.

    Example:
        model = NovelView.load()
        write_mesh(Path("chair.glb"), reconstruct_picture(model, "chair.jpg", elevation=20).mesh)

    Args:
        novel_view: The checkpoint.
        picture: A picture, whose background is removed, or a prepared one.
        elevation: Of the picture's camera, degrees above the horizon (`estimate_elevation`).
        views: Settings of the method; None: the defaults of the command.
        sampling: Settings of the sampler; None: the defaults.
        faces: Largest number of faces.
        texture_size: Side of the texture, pixels.
        encoded: The result of `novel_view.encode`, if it is known.
        monitor: Follows the progress; an exception that it raises ends the reconstruction.

    Raises:
        UserError: No object is found in the picture, or no mesh can be made from the views.
    """
    views, sampling, monitor = views or ViewsSettings(), sampling or Sampling(), monitor or Monitor()
    if isinstance(picture, Prepared):
        prepared = fine = picture
    else:
        prepared = novel_view.prepare(picture)
        fine = prepare(picture, resolution=max(FINE_PX, novel_view.model.resolution))
    guide = picture_guide(novel_view, encoded or novel_view.encode(prepared), elevation, sampling)
    guess = draw_guesses(guide, one_view(prepared.image), views, sampling.seed, monitor)[0]
    field = reconstruct_from_views(guide, guess, views, sampling.seed, monitor)
    return textured_surface(field, one_view(fine.image), DRAWN_SMOOTHING, faces, Texture.baked, texture_size)


def picture_guide(novel_view: NovelView, encoded: EncodedImage, elevation: float, sampling: Sampling) -> ModelGuide:
    """Return the guide that draws views of the object in an encoded picture."""
    return ModelGuide(novel_view, encoded, cameras_after([(0, 0, 0)], elevation)[0], sampling)


def one_view(image: Image.Image) -> DrawnViews:
    """Return a prepared picture as a view, with its silhouette."""
    pixels = np.asarray(image)
    return DrawnViews(pixels[None], silhouette(pixels)[None])
