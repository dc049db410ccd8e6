"""Read tensors from untrusted files: safetensors, or pickles of torch.save of which nothing is executed."""

import json
import re
import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from conf.options import UserError, first_line

MAX_PICKLE_BYTES = 64 << 20  # without tensors; that of a released checkpoint has less than 1 MiB
MAX_INDEX_BYTES = 64 << 20  # JSON that maps tensors to shards
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # file names of diffusers and transformers
VARIANTS = ("", "fp16", "bf16")
# Prefixes that DistributedDataParallel, torch.compile, Lightning and FSDP add to names of tensors.
WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod|_forward_module|_fsdp_wrapped_module)\.")
ADAPTER = re.compile(r"(^|[._])(lora_(down|up|A|B|unet|te\d?|mid)|lora|hada_w\d_[ab]|lokr_w\d)([._]|$)")
# Globals in pickles of Lightning's checkpoints, beside the tensors. `Ignored` is loaded in their place.
LIGHTNING_GLOBALS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.ModelCheckpoint",
)


class Ignored:
    """Placeholder without effect for `LIGHTNING_GLOBALS` in a pickle."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


@dataclass(frozen=True)
class Weights:
    """Tensors of a file by name, and `notes`, the other entries of its outermost dictionary."""

    path: Path
    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> "Weights":
        """Return the tensors whose names begin with `prefix`, which is removed from the names."""
        return Weights(self.path, {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)})

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UserError(f"{self.path} is incomplete: its tensor {name} is missing")
        return self.tensors[name]

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Return the shape of a tensor; raise UserError unless it has so many dimensions, none of size 0."""
        shape = tuple(self[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise UserError(f"{self.path}: its tensor {name} has shape {[*shape]}, not {dimensions} dimensions")
        return shape


@contextmanager
def shape_errors(weights: Weights) -> Iterator[None]:
    """Convert exceptions over shapes that belong to no model to UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{weights.path}: no model has the shapes of its tensors: {first_line(error)}") from error


def best_weights(names: Container[str], pickles: bool = True) -> str | None:
    """Return the file to read among the names in a folder of diffusers or transformers, or None.

    Safetensors come before pickles, full precision before half, and a single file before the index of its shards.
    """
    for kind in ("safetensors", "bin") if pickles else ("safetensors",):
        for variant in VARIANTS:
            dotted = f".{variant}" * bool(variant)
            endings = (f"{dotted}.{kind}", f".{kind}.index{dotted}.json", f"{dotted}.{kind}.index.json")
            for name in (stem + ending for ending in endings for stem in STEMS):
                if name in names:
                    return name
    return None


def read_weights(path: Path) -> Weights:
    """Read the tensors of a safetensors file, of a zip that torch.save wrote, or of the shards that an index names.

    Tensors of a zip stay on the disk until they are used. Prefixes of wrappers (`module.`, `_orig_mod.`) are removed.

    Raises:
        UserError: The file is something else, incomplete, an adapter (LoRA), or its pickle holds more than tensors.
    """
    if path.suffix == ".json":
        return _read_shards(path)
    contents = _load_contents(path)
    tensors = contents.get("state_dict", contents) if isinstance(contents, dict) else contents
    if not isinstance(tensors, dict):
        raise UserError(f"{path} holds a {type(tensors).__name__}, not the weights of a model")
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise UserError(f"{path}: {name} is not a name of a tensor")
        if ADAPTER.search(name):
            raise UserError(
                f"{path} holds LoRA weights (its tensor {name}), an adapter and not a model; merge it into its base "
                "model first (in diffusers: fuse_lora(), unload_lora_weights(), save_pretrained()) and give the result"
            )
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise UserError(f"{path}: {name} is a {type(value).__name__}, where a tensor of weights was expected")
        # Strides of zero could otherwise expand a few bytes until they fill the disk.
        if value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise UserError(f"{path}: its tensor {name} has more elements than the file holds")
    return Weights(path, _strip_wrappers(tensors, path), contents if "state_dict" in contents else {})


def _load_contents(path: Path) -> Any:
    refuse_unsafe(path)
    if _is_zip(path):
        return _load_pickle(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is no checkpoint, or cut off: {first_line(error)}") from error


def shard_names(index: Path) -> list[str]:
    """Return the files that an index of shards names, all of them in its own folder.

    Raises:
        UserError: The file is not an index, or names files elsewhere.
    """
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError(f"it has more than {MAX_INDEX_BYTES >> 20} MiB")
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of shards, or damaged: {first_line(error)}") from error
    for shard in shards:
        path = index.parent / str(shard)
        if path.parent != index.parent or path.suffix not in (".safetensors", ".bin"):
            raise UserError(f"{index}: its shard {shard} is no .safetensors or .bin file in the same folder")
    return shards


def _read_shards(index: Path) -> Weights:
    tensors: dict[str, Tensor] = {}
    for shard in shard_names(index):
        path = index.with_name(shard)
        if not path.is_file():
            raise UserError(f"{index.parent} is incomplete: its shard {shard} is missing; download it as well")
        tensors |= read_weights(path).tensors
    return Weights(index, tensors)


def _strip_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from names of tensors, at every position."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = WRAPPER.sub("", name)
        if plain.startswith("model_ema."):  # names without dots
            plain = plain.replace("_orig_mod", "")
        if plain in renamed:
            raise UserError(f"{path}: its tensor {plain} is there twice, once within a wrapper ({name})")
        renamed[plain] = tensor
    return renamed


def validate_weight(tensor: Tensor, like: Tensor, what: str) -> Tensor:
    """Return a weight in float32, after validating it.

    Args:
        tensor: Tensor from a file.
        like: Tensor of the expected shape.
        what: Description of the tensor for errors.

    Raises:
        UserError: The shape differs from that of `like`, or not all elements are finite floating-point numbers.
    """
    if not tensor.is_floating_point():
        raise UserError(f"{what} has dtype {str(tensor.dtype).removeprefix('torch.')}, not a floating-point one")
    if tensor.shape != like.shape:
        raise UserError(f"{what} has the shape {[*tensor.shape]}, where {[*like.shape]} would fit the others")
    tensor = tensor.float().contiguous()
    if not is_finite(tensor):
        raise UserError(f"{what} holds numbers that are not finite (NaN or infinity); use another checkpoint")
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether all elements are finite; ten times as fast as `isfinite().all()` on a CPU."""
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor.detach())).isfinite().all())


def require_finite(model: nn.Module, what: str, advice: str) -> None:
    """Raise a UserError that names the first parameter of a model with an element that is not finite."""
    for name, weight in model.named_parameters():
        if not is_finite(weight):
            raise UserError(f"{what} tensor {name} holds numbers that are not finite (NaN or infinity); {advice}")


def refuse_unsafe(path: Path) -> None:
    """Raise an error for a file that is not a checkpoint, or a pickle that would execute code.

    Raises:
        UserError: The file is a Git LFS pointer, a web page, cut off, compressed, or holds more than weights.
    """
    with path.open("rb") as file:
        begin = file.read(512)
    if begin[8:9] == b"{":  # safetensors: the first eight bytes are a length
        return
    if begin.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    if begin.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page, not a checkpoint; download it again")
    if begin[:1] == b"\x80":
        raise UserError(f"{path} was written by a torch older than 1.6; load it there and save it as safetensors")
    if not _is_zip(path):
        return
    try:
        entries = zipfile.ZipFile(path).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}); download it again") from error
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in pickles) > MAX_PICKLE_BYTES:
        raise UserError(f"{path} is no file of torch.save: it is compressed, or its pickle is absurdly large")
    with _safe_globals():
        try:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception as error:  # damaged pickles raise many types
            raise UserError(f"{path} is no checkpoint of torch: {first_line(error)}") from error
    if foreign:
        raise UserError(
            f"{path} holds more than weights: {sorted(foreign)[0]} would be executed, which is refused; "
            "ask its author for safetensors"
        )


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load_pickle(path: Path) -> Any:
    with _safe_globals():
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged pickles raise many types
            raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def _safe_globals() -> Any:
    return torch.serialization.safe_globals([(Ignored, name) for name in LIGHTNING_GLOBALS])
