r"""Score a checkpoint on rendered views: PSNR, SSIM and the pose that its pictures show, beside baselines.

    python -m inference.evaluate checkpoint=outputs/run/model views=outputs/views run=outputs/run
    python -m inference.evaluate checkpoint=outputs/run/model views=outputs/families,outputs/scans \
        training=outputs/views references=outputs/families_references,outputs/scans_references

Each folder of `views` is a set. Of every object `pairs` pairs of views are chosen by hash, spread over the angles
between the cameras; from the input view, the model samples the target view. Methods:
  model        the checkpoint
  wrong_pose   the checkpoint, given a camera at least 45° away from the target
  no_pose      the checkpoint without embedding and pose, with the condition latent alone
  repeat       the input view
  mean         the mean of all training views (needs `training`)
  nearest      the training object whose view is nearest to the input, after the same turn (needs `training`)
`references` are views of the same objects from a grid of cameras; with them, the camera that each picture shows is
estimated too:

    python -m pipeline.render +experiment=references objects=folder objects.path=scans output=outputs/scans_references

Writes metrics.json (every mean with its 95 % interval over objects), per_object.csv, per_view.csv, report.html and the
predictions into `output`. Repeat the command to resume an interrupted run.
"""

from conf.command import run
from inference.evaluation.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    """Score the checkpoint."""
    from inference.evaluation.evaluation import evaluate  # imports torch, which --help does without
    from inference.evaluation.methods.model import load_checkpoint

    evaluate(config, load_checkpoint if config.checkpoint else None)


def command() -> None:
    """Run the command line."""
    run(main, EvaluateConfig, "inference", "evaluate", help=__doc__)


if __name__ == "__main__":
    command()
