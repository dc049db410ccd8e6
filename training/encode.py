"""Encode view shards into latent shards, so that training runs neither autoencoder nor image encoder.

    python -m training.encode path=outputs/views output=outputs/latents \
        model.pretrained=lambdalabs/sd-image-variations-diffusers
    python -m training.encode path=s3://bucket/views model.pretrained=… output=s3://bucket/latents +cluster=aws
    python -m training.finetune data.kind=latents data.path=outputs/latents \
        model.pretrained=lambdalabs/sd-image-variations-diffusers

Use the `model` options and `seed` of the training to come, which refuses latents of other encoders. Each view shard
becomes one latent shard, on GPUs if Ray has any. An unreadable object is recorded with its reason. Repeat the
command to resume an interrupted run.
"""

import importlib.util

from conf.command import run
from conf.options import UserError
from pipeline.output import FolderLayout, claimed, json_object
from training.config import EncodeConfig

LAYOUT = FolderLayout(
    record="plan.json",
    is_record=lambda contents: {"listing", "encoders"} <= json_object(contents).keys(),
    writes=r"latents-\d{6}\.(tar|json)|plan\.json",
)


def main(config: EncodeConfig) -> int:
    """Run the command; return the exit code."""
    if not importlib.util.find_spec("ray"):
        raise UserError("cluster: this Python has no Ray; pip install '.[cluster]'")
    from training.data.encoding import encode_all, resolved

    config, manifests = resolved(config)
    with claimed(config.output, LAYOUT):
        return encode_all(config, manifests)


def command() -> None:
    """Run the command line."""
    run(main, EncodeConfig, "encoding", "encode", help=__doc__)


if __name__ == "__main__":
    command()
