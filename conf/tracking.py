"""Log runs to Weights & Biases; offline runs are written to files for `wandb sync`, and nothing is sent."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conf.options import UserError, option


class WandbMode(StrEnum):
    """Place where W&B keeps a run."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass(frozen=True)
class WandbConfig:
    """Options of Weights & Biases."""

    mode: WandbMode = option(WandbMode.offline, "offline, online (needs an API key) or disabled")
    project: str = option("zero-1-to-3", "project of the run")
    entity: str | None = option(None, "team or user of the run")


def begin(
    config: WandbConfig, folder: str, job: str, name: str, settings: dict[str, Any], id: str | None = None
) -> Any:
    """Start a W&B run whose files go to `folder/wandb`; with an `id`, continue the run of that id.

    Raises:
        UserError: The mode is online and there is no API key, or no server answers.
    """
    import wandb  # takes seconds to import

    if config.mode is WandbMode.online and not wandb.login(prompt=False, verify=False):
        raise UserError("wandb.mode=online needs an API key: set WANDB_API_KEY, or use wandb.mode=offline")
    try:
        return wandb.init(
            dir=folder,
            mode=config.mode.value,
            id=id or None,
            resume="allow" if id else None,
            job_type=job,
            name=name,
            project=config.project,
            entity=config.entity,
            config=settings,
            settings=wandb.Settings(silent=True),
        )
    except wandb.errors.CommError as error:
        raise UserError(f"wandb.mode=online: {error}; use wandb.mode=offline and `wandb sync` later") from error
