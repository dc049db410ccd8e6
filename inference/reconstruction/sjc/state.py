"""Save and load the state of an optimisation, so that a repeated command continues it."""

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from conf.options import UserError, first_line
from inference.reconstruction.sjc.field import SjcField
from pipeline.storage import write_atomically

MOMENTS = ("step", "exp_avg", "exp_inf")  # of Adamax, for each parameter


@dataclass
class FitState:
    """State of an optimisation between two steps.

    Attributes:
        field: The field.
        optimizer: Its optimiser.
        rng: Source of cameras and timesteps.
        generator: Source of noise.
        step: Number of steps done.
        occupied: Cells that are not skipped until the next search; None for all.
    """

    field: SjcField
    optimizer: torch.optim.Adamax
    rng: np.random.Generator
    generator: torch.Generator
    step: int = 0
    occupied: torch.Tensor | None = None


def save_state(path: Path, state: FitState) -> None:
    """Write a state as an .npz file without pickled objects, atomically."""
    arrays = {"step": np.array(state.step), "generator": state.generator.get_state().numpy()}
    arrays["rng"] = np.array(json.dumps(state.rng.bit_generator.state))
    if state.occupied is not None:
        arrays["occupied"] = state.occupied.cpu().numpy()
    for name, parameter in state.field.named_parameters():
        arrays[f"field/{name}"] = parameter.detach().cpu().numpy()
        for moment in MOMENTS:
            if moment in state.optimizer.state[parameter]:
                arrays[f"{moment}/{name}"] = state.optimizer.state[parameter][moment].cpu().numpy()
    contents = io.BytesIO()
    np.savez(contents, **arrays)
    write_atomically(str(path), contents.getvalue())


@torch.no_grad()
def load_state(path: Path, state: FitState) -> None:
    """Restore a state that `save_state` wrote, in place.

    Raises:
        UserError: The file is damaged, or of a field of another size.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name, parameter in state.field.named_parameters():
                parameter.copy_(_checked(arrays[f"field/{name}"], parameter))
                moments = {moment: f"{moment}/{name}" for moment in MOMENTS if f"{moment}/{name}" in arrays}
                for moment, key in moments.items():
                    device = torch.device("cpu") if moment == "step" else parameter.device
                    state.optimizer.state[parameter][moment] = torch.from_numpy(arrays[key]).to(device)
            state.generator.set_state(torch.from_numpy(arrays["generator"]))
            state.rng.bit_generator.state = json.loads(str(arrays["rng"]))
            state.step, state.occupied = int(arrays["step"]), None
            if "occupied" in arrays:
                state.occupied = torch.from_numpy(arrays["occupied"]).to(state.field.background.device)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be continued ({first_line(error)}); delete it, and repeat the command"
        ) from error


def _checked(values: NDArray[np.float32], parameter: torch.Tensor) -> torch.Tensor:
    if values.shape != parameter.shape:
        raise ValueError(f"it has {values.shape} in place of {tuple(parameter.shape)} values")
    return torch.from_numpy(values)
