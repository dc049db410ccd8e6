"""Reconstruct a textured 3D mesh from one picture (Zero-1-to-3, section 3.3).

    python -m inference.reconstruct image=chair.png output=outputs/chair
    python -m inference.reconstruct image=chair.png elevation=20 checkpoint=105000.ckpt output=outputs/chair
    python -m inference.reconstruct image=chair.png method=sjc checkpoint=105000.ckpt
    python -m inference.reconstruct prompt='a wooden toy robot' format=obj height=12cm
    python -m inference.reconstruct oracle=scans output=outputs/oracle

method=views samples rings of views around the object and fits a radiance field to them; method=sjc optimises the field
by the model's score, as the paper does. With `oracle`, renders of a mesh replace the input picture and the model's
views, which gives the upper bound of a method; for a folder of meshes a table of IoU, Chamfer distance and seconds is
printed. Writes mesh.glb (upright, longest side 1, watertight), turntable.mp4, views/, report.html and
reconstruction.json into `output`. Repeat the command to continue an interrupted run.
"""

from conf.command import run
from inference.reconstruction.config import ReconstructConfig


def main(config: ReconstructConfig) -> int:
    """Reconstruct the object; return the exit code."""
    from pipeline.output import locked

    with locked(config.output):
        from inference.reconstruction.command import reconstruct  # imports torch, which --help does without

        return reconstruct(config)


def command() -> None:
    """Run the command line."""
    run(main, ReconstructConfig, "inference", "reconstruct", help=__doc__)


if __name__ == "__main__":
    command()
