r"""Score a checkpoint, or pictures of other programs, on rendered views: picture metrics, and the pose that they show.

    python -m inference.evaluate checkpoint=outputs/run/model views=outputs/views run=outputs/run
    python -m inference.evaluate checkpoint=outputs/run/model views=outputs/families,outputs/scans \
        training=outputs/views references=outputs/families_references,outputs/scans_references
    python -m inference.evaluate checkpoint=outputs/run/model views=outputs/syncdreamer benchmark=syncdreamer
    python -m inference.evaluate predictions=outputs/other views=outputs/syncdreamer benchmark=syncdreamer
    python -m inference.evaluate meshes=outputs/reconstructions truth=scans

Each folder of `views` is a set. A benchmark says which views of an object are input and targets, how they become
pictures, and which metrics compare them; views are predicted once for all benchmarks. Under `folder`, `pairs` pairs of
views of an object are chosen by hash, spread over the angles between the cameras. Methods:
  model        the checkpoint; with samples=k also the best and the mean picture of k samples
  wrong_pose   the checkpoint, given a camera at least 45° away from the target
  no_pose      the checkpoint without embedding and pose, with the condition latent alone: image variation
  sjc_i        a field that is optimised by the checkpoint without pose, as the paper's SJC-I (methods=model,sjc_i)
  predictions  pictures <uid>/<target>.png of another program
  oracle       the true mesh, unlit (needs `oracle`, a folder of meshes)
  repeat       the input view
  mean         the mean of all training views (needs `training`)
  nearest      the training object whose view is nearest to the input, after the same turn (needs `training`)
`consistency=16` also lets each method draw an orbit of 16 views of every object, fits a radiance field to the even and
one to the odd views, and scores how well the two agree, without truth.
`references` are views of the same objects from a grid of cameras; with them, the camera that each picture shows is
estimated too. Views of a benchmark, and references, are rendered by

    python -m pipeline.render +experiment=syncdreamer objects=folder objects.path=scans output=outputs/syncdreamer
    python -m pipeline.render +experiment=references objects=folder objects.path=scans output=outputs/scans_references

`meshes` scores meshes in place of pictures: Chamfer distances, F-scores and volume IoU, as they are, turned and
registered.

Writes metrics.json (every mean with its 95 % interval over objects), per_object.csv, per_view.csv, consistency.csv,
report.html and the predictions into `output`. Repeat the command to resume an interrupted run.
"""

from conf.command import run
from inference.evaluation.config import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    """Score the methods."""
    if config.meshes:
        from inference.evaluation.meshes.mesh_evaluation import evaluate_meshes  # imports Embree

        protocol = "" if config.benchmark == ["folder"] else ",".join(config.benchmark)
        evaluate_meshes(config.mesh_folders, config.truth, config.output, config.up, protocol=protocol)
        return
    from inference.evaluation.evaluation import evaluate  # imports torch, which --help does without
    from inference.evaluation.workers import load_predictor

    evaluate(config, load_predictor if config.checkpoint else None)


def command() -> None:
    """Run the command line."""
    run(main, EvaluateConfig, "inference", "evaluate", help=__doc__)


if __name__ == "__main__":
    command()
