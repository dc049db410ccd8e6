"""Define the options of `inference.evaluate`."""

import os
from dataclasses import dataclass
from typing import Any

from conf.options import UserError, option
from inference.config import CHECKPOINT_HELP, DEVICE_HELP, PRECISION_HELP, Sampling, require_range
from inference.evaluation.metrics.weights import MetricWeights
from pipeline.config import Cluster
from training.model.hardware.precision import Precision

MIN_ORBIT, MAX_ORBIT = 6, 128  # views
ALL_BENCHMARKS = ["all"]  # the option that names every benchmark that the views allow
DEFAULT_METHODS = ("model", "wrong_pose", "no_pose")
MODEL_METHODS = (*DEFAULT_METHODS, "sjc_i")


def set_name(folder: str) -> str:
    """Return the name of the set of a folder or URL: the last part of its path, where `.` and `..` are resolved."""
    path = folder if "://" in folder else os.path.abspath(folder)
    return path.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Workers(Cluster):
    """Processes that sample the predictions of the checkpoint."""

    address: str | None = option(
        None, "Ray cluster whose machines draw; auto: the cluster of this machine; null: this machine"
    )
    workers: int | None = option(
        1,
        "batches drawn at a time; 1: in this process; more: in processes of Ray; null: as many as GPUs or cores allow",
    )
    workers_per_gpu: int = option(1, "processes that share one GPU, where a GPU is used")
    threads: int = option(1, "CPU cores of each process; the last bits of a picture depend on their number")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("cluster.threads", self.threads, 1, 1024)

    @property
    def in_this_process(self) -> bool:
        """Return whether the process of the command draws."""
        return self.address is None and self.workers == 1


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `inference.evaluate`."""

    checkpoint: str = option("", f"{CHECKPOINT_HELP}; empty: score predictions or the oracle alone")
    views: list[str] = option([], "folders of views to score, each a set with its own tables")
    output: str = option("outputs/scores", "folder of the scores, the page and the predictions")
    benchmark: list[str] = option(
        ["folder"],
        "folder (pairs of views), zero123-gso, zero123-rtmv, syncdreamer, eschernet, free3d, x.json, or all that fit",
    )
    predictions: Any = option("", "folders of pictures of other methods: folder, [folder, …] or {name: folder, …}")
    oracle: str = option("", "folder of the objects' meshes, <uid>.glb: adds their renders as a method")
    meshes: Any = option("", "in place of views: folders of meshes of each method, as predictions; scored beside truth")
    truth: str = option("", "with meshes: folder of the true meshes, <uid>.glb or <uid>/mesh.glb")
    up: list[str] = option([], "with meshes: axis that points up, for all folders or each: y, z or auto (by format)")
    training: list[str] = option([], "folders of the training views, for the baselines mean view and nearest object")
    references: list[str] = option([], "folders of views of the same objects, rendered with +experiment=references")
    split: list[str] = option([], "all or held_out, for all sets or for each; default: held_out with run, else all")
    run: str = option("", "folder of the run whose held-out objects are scored, the output of training.finetune")
    validation_fraction: float = option(
        0.01, "data.validation_fraction of the training, for split=held_out without run"
    )
    pairs: int = option(4, "view pairs of an object under the protocol folder")
    limit: int | None = option(None, "maximum number of objects of a set, chosen by hash; null: all")
    seed: int = option(0, "seed of the choice of objects and pairs")
    methods: list[str] = option(
        list(DEFAULT_METHODS), "predictions of the checkpoint to score; sjc_i too, about a minute for each input view"
    )
    samples: int = option(1, "samples of each view by the method model; with several, their best and mean picture too")
    metrics: list[str] = option([], "metrics of all tables; empty: those of each benchmark")
    weights: MetricWeights = option(MetricWeights(), "weights of the metrics that are networks")
    consistency: int = option(
        0, "views of an orbit of each object, whose even and odd halves are compared as fields (minutes); 0: none"
    )
    resize: bool = option(False, "resize predictions to the resolution of the benchmark, where theirs differs")
    batch: int | None = option(None, "views sampled together; null: 16 on a CPU, 256 on a GPU, or what fits")
    device: str = option("auto", DEVICE_HELP)
    precision: Precision = option(Precision.auto, PRECISION_HELP)
    compile: bool = option(False, "compile the U-Net: takes minutes, pays off for many views on a GPU")
    sampling: Sampling = option(Sampling(), "settings of the sampler; its seed decides the noise")
    cluster: Workers = option(Workers(), "processes that draw the predictions")

    def __post_init__(self) -> None:
        require_range("pairs", self.pairs, 1, 1000)
        require_range("samples", self.samples, 1, 64)
        require_range("seed", self.seed, 0, 2**32 - 1)
        for name in ("limit", "batch"):
            if (number := getattr(self, name)) is not None:
                require_range(name, number, 1, 10**9)
        if self.consistency and (self.consistency % 2 or not MIN_ORBIT <= self.consistency <= MAX_ORBIT):
            raise UserError(
                f"consistency={self.consistency}: must be an even number from {MIN_ORBIT} to {MAX_ORBIT}, or 0"
            )
        if not self.cluster.in_this_process and ":" in self.device:
            raise UserError(f"device={self.device}: is one GPU, and several processes draw; use auto, cuda or cpu")
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"validation_fraction={self.validation_fraction}: must be between 0 and 1")
        if bool(self.meshes) != bool(self.truth) or (self.meshes and self.views):
            raise UserError("meshes: needs truth=…, the folder of the true meshes, and no views; give both, or neither")
        if not self.meshes:
            self._check_views()

    def _check_views(self) -> None:
        """Raise `UserError` unless the options of an evaluation of views agree with each other."""
        names = [set_name(folder) for folder in self.views]
        if not names:
            raise UserError("views: is missing; give folders of views, or meshes=… and truth=…")
        if len(set(names)) < len(names):
            raise UserError(f"views={','.join(self.views)}: give folders with different names")
        if not self.benchmark or len(set(self.benchmark)) < len(self.benchmark):
            raise UserError(f"benchmark={','.join(self.benchmark)}: give different benchmarks, such as folder")
        unknown = set(self.split) - {"all", "held_out"} or set(self.methods) - set(MODEL_METHODS)
        if unknown:
            raise UserError(f"{min(unknown)}: unknown; split is all or held_out, methods {', '.join(MODEL_METHODS)}")
        if len(self.split) not in (0, 1, len(self.views)):
            raise UserError(f"split={','.join(self.split)}: give one word, or one for each of {len(self.views)} views")
        if "model" not in self.methods:
            raise UserError("methods: must contain model, which the others are compared with")
        if reserved := set(self.prediction_folders) & {*MODEL_METHODS, "truth", "repeat", "mean", "nearest", "oracle"}:
            raise UserError(f"predictions: {min(reserved)} is a method of this command; give {{other_name: folder}}")

    @property
    def splits(self) -> list[str]:
        """Return the split of each folder of `views`."""
        given = self.split or ["held_out" if self.run else "all"]
        return given * len(self.views) if len(given) == 1 else given

    @property
    def scoring_device(self) -> str:
        """Return the device of the metrics, which this process computes."""
        return self.device if self.cluster.address is None else "auto"

    @property
    def prediction_folders(self) -> dict[str, str]:
        """Return the folders of `predictions` by the name of their method."""
        return _folders("predictions", self.predictions)

    @property
    def mesh_folders(self) -> dict[str, str]:
        """Return the folders of `meshes` by the name of their method."""
        return _folders("meshes", self.meshes)


def _folders(option: str, value: Any) -> dict[str, str]:
    """Return the folders in the value of an option, by the name that is given or by their own."""
    match value:
        case "" | None:
            return {}
        case str(folder):
            return {set_name(folder): folder}
        case dict(folders) if all(isinstance(folder, str) for folder in folders.values()):
            return {str(name): folder for name, folder in folders.items()}
        case list(folders) if all(isinstance(folder, str) for folder in folders):
            if len({set_name(folder) for folder in folders}) == len(folders):
                return {set_name(folder): folder for folder in folders}
    raise UserError(f"{option}={value}: give a folder, several of different names, or {{name: folder}}")
