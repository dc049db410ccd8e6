"""The typed configuration of the stage's commands; the YAML lies in conf/inference."""

from dataclasses import dataclass
from typing import Any

from conf.options import UserError, option


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn from the model."""

    steps: int = option(50, "DDIM steps")
    guidance: float = option(3.0, "classifier-free guidance; 1 is none")
    eta: float = option(1.0, "noise of DDIM's steps, from 0 (deterministic) to 1 (as DDPM)")
    seed: int = option(0, "another seed, another guess at what the picture does not show")

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 500:
            raise UserError(f"sampling.steps={self.steps} is outside 1..500")
        if not (0 <= self.eta <= 1 and 0 <= self.guidance <= 1000):
            raise UserError("sampling.eta lies between 0 and 1, sampling.guidance between 0 and 1000")


@dataclass(frozen=True)
class SampleConfig:
    checkpoint: str = option("???", "checkpoint folder, as <run>/model of training.finetune")
    image: str = option("???", "the picture of one object, best with a transparent or white background")
    poses: list[Any] = option("???", "turns [Δpolar, Δazimuth, Δradius]: degrees, degrees, object sizes")
    output: str = option("outputs/sample", "folder for the pictures")
    device: str = option("auto", "auto, cpu or cuda")
    sampling: Sampling = option(Sampling(), "how pictures are drawn")


@dataclass(frozen=True)
class ReportConfig:
    views: str = option("???", "folder or URL of view shards, the output of pipeline.render")
    run: str = option("???", "folder of the run, the output of training.finetune")
    output: str = option("outputs/report.html", "the page to write")
    rows: int = option(24, "view pairs to show and to score")
    limit: int = option(200, "objects on the contact sheet")
    device: str = option("auto", "auto, cpu or cuda")
    sampling: Sampling = option(Sampling(), "how pictures are drawn")
