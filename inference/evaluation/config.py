"""Define the options of `inference.evaluate`."""

from dataclasses import dataclass

from conf.options import UserError, option
from inference.config import CHECKPOINT_HELP, DEVICE_HELP, PRECISION_HELP, Sampling, require_range
from training.model.hardware.precision import Precision


def set_name(folder: str) -> str:
    """Return the name of the set of a folder: the last part of its path."""
    return folder.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `inference.evaluate`."""

    checkpoint: str = option("???", CHECKPOINT_HELP)
    views: list[str] = option("???", "folders of view shards to score, each a set with its own tables")
    output: str = option("outputs/scores", "folder of the scores, the page and the predictions")
    training: list[str] = option([], "folders of the training views, for the baselines mean view and nearest object")
    references: list[str] = option([], "folders of views of the same objects, rendered with +experiment=references")
    split: list[str] = option([], "all or held_out, for all sets or for each; default: held_out with run, else all")
    run: str = option("", "folder of the run whose held-out objects are scored, the output of training.finetune")
    validation_fraction: float = option(
        0.01, "data.validation_fraction of the training, for split=held_out without run"
    )
    pairs: int = option(4, "view pairs of an object")
    limit: int | None = option(None, "most objects of a set, chosen by hash; null: all")
    seed: int = option(0, "seed of the choice of objects and pairs")
    methods: list[str] = option(["model", "wrong_pose", "no_pose"], "predictions of the model to score")
    batch: int | None = option(None, "views sampled together; null: 16 on a CPU, 256 on a GPU, or what fits")
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net: takes minutes, pays off for many views on a GPU")
    sampling: Sampling = option(Sampling(), "settings of the sampler; its seed decides the noise")

    def __post_init__(self) -> None:
        require_range("pairs", self.pairs, 1, 1000)
        require_range("seed", self.seed, 0, 2**32 - 1)
        for name in ("limit", "batch"):
            if (number := getattr(self, name)) is not None:
                require_range(name, number, 1, 10**9)
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction={self.validation_fraction}: must be between 0 and 1")
        names = [set_name(folder) for folder in self.views]
        if not names or len(set(names)) < len(names):
            raise UserError(f"views={','.join(self.views)}: give folders with different names")
        unknown = set(self.split) - {"all", "held_out"} or set(self.methods) - {"model", "wrong_pose", "no_pose"}
        if unknown:
            raise UserError(f"{min(unknown)}: unknown; split is all or held_out, methods model, wrong_pose, no_pose")
        if len(self.split) not in (0, 1, len(self.views)):
            raise UserError(f"split={','.join(self.split)}: give one word, or one for each of {len(self.views)} views")
        if "model" not in self.methods:
            raise UserError("methods: must contain model, which the others are compared with")

    @property
    def splits(self) -> list[str]:
        """Return the split of each folder of `views`."""
        given = self.split or ["held_out" if self.run else "all"]
        return given * len(self.views) if len(given) == 1 else given
