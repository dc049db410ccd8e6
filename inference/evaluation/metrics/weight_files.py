"""Find, download and read the weights of metrics."""

import hashlib
import http.client
import importlib.util
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from conf.options import UserError, first_line
from training.model.checkpoints.untrusted_file import validate_weight

TIMEOUT_S = 20.0  # without any byte from the server
INSTALL = "install it with pip install 'zero-1-to-3[scores]'"


class UnavailableMetric(UserError):
    """A metric cannot be computed here: its weights or a library are missing, or pictures are too small."""


@dataclass(frozen=True)
class Release:
    """A published file of weights.

    Attributes:
        option: Option that names the user's own copy, such as `weights.lpips_alex`.
        title: Network and publisher.
        url: Address, whose last part is `<name>-<first digits of the SHA-256>.<ending>`.
    """

    option: str
    title: str
    url: str

    @property
    def file(self) -> str:
        """Return the file's name."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def hash_prefix(self) -> str:
        """Return the first digits of the file's SHA-256."""
        return self.file.rsplit("-", 1)[-1].split(".", 1)[0]


def find_weights(release: Release, given: str, download: bool) -> Path:
    """Return the path of the given file, or of the release in torch's cache, where it is downloaded if need be.

    Args:
        release: The published file.
        given: Value of the option; empty for the release.
        download: Whether a download may be attempted.

    Raises:
        UserError: The given file does not exist.
        UnavailableMetric: The release is not in the cache, and cannot be downloaded.
    """
    if given:
        return require_file(given, release.option)
    path = Path(torch.hub.get_dir()) / "checkpoints" / release.file
    if path.is_file():
        return path
    how = f"put it there, or give {release.option}=<its path>"
    if not download:
        raise UnavailableMetric(f"{path} does not exist, and weights.download=false; {how}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(TIMEOUT_S):
            torch.hub.download_url_to_file(release.url, str(path), release.hash_prefix)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise UnavailableMetric(f"{release.url} cannot be downloaded ({first_line(error)}) to {path}; {how}") from error
    return path


def require_file(given: str, option: str) -> Path:
    """Return the path of a given file.

    Raises:
        UserError: It is no file.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        raise UserError(f"{option}={given}: is no file; give the path of a file of weights")
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit the time that torch.hub, which sets no limit, waits for a server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_tensors(path: Path, option: str) -> dict[str, Tensor]:
    """Read the tensors of a file of torch.save, of any version; nothing in it is executed.

    Raises:
        UserError: The file is something else, damaged, or holds more than tensors.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and foreign files raise many types
        raise UserError(f"{option}={path}: is no file of weights, or damaged: {first_line(error)}") from error
    tensors = dict(contents) if isinstance(contents, Mapping) else {}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"{option}={path}: holds something other than the tensors of a network; give a state dict")
    return tensors


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str, title: str) -> None:
    """Copy tensors into a module for inference; tensors of other names are ignored.

    Args:
        module: The network.
        tensors: Tensors by the names of the module's parameters and buffers.
        source: Option and file for errors.
        title: Network that the file should hold.

    Raises:
        UserError: A tensor is missing, has another shape, or is not finite.
    """
    state = {name: like for name, like in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, like in state.items():
        if name not in tensors:
            raise UserError(f"{source}: has no tensor {name}; give the weights of {title}")
        state[name] = validate_weight(tensors[name], like, f"{source}: its tensor {name}")
    module.load_state_dict(state, strict=False)
    module.eval().requires_grad_(False)


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        UnavailableMetric: It is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableMetric(f"{package} is not installed; {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def describe_file(path: Path, release: Release | None = None) -> str:
    """Return the first digits of a file's SHA-256, and whether they are those of the release."""
    with path.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    differs = release is not None and digits != release.hash_prefix
    return f"SHA-256 {digits}…" + (f", not the published {release.file}" if release and differs else "")
