"""Fine-tuning in the process of the test, configured like the command line."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from conf.command import register
from conf.overrides import option_types, prepare
from tests.support.command import PROJECT
from tests.support.small_run import SMALL
from training.config import FinetuneConfig
from training.finetune import main


def configured(*words: str) -> FinetuneConfig:
    register(FinetuneConfig, "finetune", {})
    with initialize_config_dir(str(PROJECT / "conf/training"), version_base="1.3"):
        config = OmegaConf.to_object(compose("finetune", prepare(words, option_types([("", FinetuneConfig)]))))
    assert isinstance(config, FinetuneConfig)
    return config


def train(data, output, *words) -> int:
    return main(configured(f"data.path={data}", f"output={output}", *SMALL, "wandb.mode=disabled", *words))
