"""A device is named as torch names it; any other name is one sentence."""

import pytest
import torch

from conf.options import UserError
from training.model.hardware.device import resolve_device

UNKNOWN = ["cpu:", "cpu:01", "cuda:", "cuda:01", "cuda:-1", "cuda:٣", "cuda:1000", "gpu", "", "cuda:0:0"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match=f"^device={name}: unknown device"):
        resolve_device(name)


def test_known_devices_are_those_of_torch():
    assert resolve_device("cpu") == torch.device("cpu") and resolve_device("cpu:0") == torch.device("cpu:0")
    with pytest.raises(UserError, match="^device=cuda:99: torch finds"):
        resolve_device("cuda:99")
