"""Turn a fitted field into a textured mesh."""

from dataclasses import dataclass

from inference.meshes.textured_mesh import TexturedMesh
from inference.reconstruction.surface.simplification import SurfaceCheck


@dataclass(frozen=True)
class TexturedSurface:
    """A mesh made from a field.

    Attributes:
        mesh: The mesh, in the place of the field.
        sources: The mesh with a colour for where the colour of each place comes from (photograph, views, field).
        check: Whether the surface is watertight, and its size.
        agreement_db: PSNR, dB, of the mesh's pictures from the cameras of the fit, against the field's renders.
    """

    mesh: TexturedMesh
    sources: TexturedMesh
    check: SurfaceCheck
    agreement_db: float
