"""Models on the Hugging Face hub: `org/name`, `org/name@revision`, `org/name/folder`, `org/name/105000.ckpt`.

huggingface_hub downloads to its own cache and honours HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HOME. This module
neither reads nor prints a token.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HfUriError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import HfUri, parse_hf_uri
from tqdm import tqdm

from conf.options import UserError
from training.model.checkpoints.untrusted_file import best_weights, shard_names

PARTS = ("unet", "vae", "image_encoder", "cc_projection", "clip_camera_projection", "scheduler")
CONFIGS = ("config.json", "scheduler_config.json")
FILES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")
TIMEOUT_S = 20.0  # of a request about a repository, for which huggingface_hub has no limit


def local_path(source: str | Path, parts: Collection[str] = PARTS) -> Path:
    """Return the local path of a source, after downloading the files of `parts` from the hub where needed.

    Args:
        source: Local path, returned unchanged, or a model on the hub.
        parts: Folders of diffusers' layout that are needed; empty for a folder that is itself one part.

    Raises:
        UserError: The hub cannot be reached, or has no such repository, revision or file.
    """
    uri = hub_uri(source)
    if uri is None:
        return Path(source)
    with _user_errors(source, uri):
        commit, files = _list_files(uri)
        wanted, found = _select_files(uri, files, parts)
        snapshot = _download(uri.id, commit, wanted)
        for index in (PurePosixPath(file) for file in wanted if ".index." in PurePosixPath(file).name):
            shards = [str(index.with_name(shard)) for shard in shard_names(snapshot / index)]
            _download(uri.id, commit, [shard for shard in shards if shard in files])
        return snapshot / found


def hub_uri(source: str | Path) -> HfUri | None:
    """Return the model on the hub that a source names, or None for a local path.

    `hf://org/name…` and web addresses of the hub always name a model on the hub. `org/name…` is a local path if it or
    its first folder exists, if `name` is a file of weights, or if `org` is `outputs`.

    Raises:
        UserError: The address does not name a model on the hub.
    """
    text = str(source)
    if text.lower().startswith(("hf://", "http://", "https://")):
        if "@" in urlsplit(text).netloc and not text.startswith("hf://"):
            raise UserError("an address with a password or token in it is not accepted; set HF_TOKEN instead")
        try:
            uri = parse_hf_uri(text, endpoint=constants.ENDPOINT)
        except HfUriError as error:
            raise UserError(f"{text} names no model on the Hugging Face hub; write hf://org/name/file") from error
        if uri.type != "model":
            raise UserError(f"{text} is a {uri.type} on the Hugging Face hub, not a model")
        return uri
    words = text.split("/")
    if len(words) < 2 or words[0] == "outputs" or (len(words) == 2 and words[1].endswith(FILES)) or ".." in words:
        return None
    if Path(text).exists() or Path(words[0]).exists():
        return None
    parsed = _parse(text)
    return parsed if parsed and parsed.type == "model" and ":" not in text else None


def pinned(source: str, recorded: str | None = None) -> str:
    """Return a source on the hub with its revision resolved to a commit; a local path unchanged.

    Args:
        source: Source in the configuration.
        recorded: Resolved source that a run recorded at its start; its commit is kept unless `source` names a revision.

    Raises:
        UserError: As for `local_path`.
    """
    uri = hub_uri(source)
    if uri is None:
        return source
    before = _parse(recorded.removeprefix("hf://")) if recorded else None
    if before and uri.revision is None and replace(before, revision=None) == uri:
        return str(recorded)
    with _user_errors(source, uri):
        commit, _ = _list_files(uri)
    return f"{uri.id}@{commit}" + f"/{uri.path_in_repo}" * bool(uri.path_in_repo)


def _parse(text: str) -> HfUri | None:
    try:
        return parse_hf_uri(f"hf://{text}")
    except HfUriError:
        return None


def _list_files(uri: HfUri) -> tuple[str, list[str]]:
    """Return the commit and its files; those in the cache if the hub cannot be reached."""
    api = HfApi()
    try:
        info = api.model_info(uri.id, revision=uri.revision, timeout=TIMEOUT_S)
        api.resolve_revision(uri.id, revision=uri.revision)  # stores the commit in the cache, for use offline
        return str(info.sha), [file.rfilename for file in info.siblings or ()]
    except Exception as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        try:
            commit = api.resolve_revision(uri.id, revision=uri.revision, local_files_only=True).resolved
            folder = Path(snapshot_download(uri.id, revision=commit, local_files_only=True, allow_patterns=[]))
        except Exception:
            raise error from None
        return commit, [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _select_files(uri: HfUri, files: list[str], parts: Collection[str]) -> tuple[list[str], str]:
    """Return the files to download, and the path of the source, a file or folder, in the repository."""
    path = uri.path_in_repo.strip("/")
    if path in files:
        return [path], path
    prefix = f"{path}/" * bool(path)
    inside = {file.removeprefix(prefix) for file in files if file.startswith(prefix)}
    if not inside:
        raise UserError(
            f"{uri.id} has no {path} at {uri.revision or 'its main revision'}; it holds {_summarize(files)}"
        )
    folders = {name.split("/")[0] for name in inside if "/" in name}
    if folders.intersection(parts):
        chosen = inside & {"model_index.json"}
        for part in folders.intersection(parts):
            names = {name.removeprefix(f"{part}/") for name in inside if name.startswith(f"{part}/")}
            chosen |= {f"{part}/{name}" for name in _part_files(names)}
        return sorted(prefix + name for name in chosen), path
    if best_weights(inside):
        return sorted(prefix + name for name in _part_files(inside)), path
    single = [name for name in inside if "/" not in name and name.endswith((".ckpt", ".safetensors"))]
    if len(single) == 1:
        return [prefix + single[0]], prefix + single[0]
    where = "/".join(filter(None, (uri.id, path)))
    raise UserError(
        f"{where} holds no model in folders; name one of its files, as {where}/105000.ckpt: "
        f"it holds {_summarize(inside)}"
    )


def _part_files(names: set[str]) -> set[str]:
    """Return the files to read from the folder of one part."""
    best = best_weights(names)
    return names.intersection(CONFIGS) | ({best} if best else set())


def _summarize(names: Collection[str]) -> str:
    """Return a sentence that lists file names, those of weights first."""
    listed = sorted(names, key=lambda name: (not name.endswith(FILES), name))
    return ", ".join(listed[:8]) + f" and {len(listed) - 8} more files" * (len(listed) > 8) if listed else "no files"


def _download(repository: str, commit: str, files: list[str]) -> Path:
    """Download files, resuming partial downloads, and return the folder of the commit in the cache."""
    folder = Path()
    for file in files:
        bar: Any = partial(tqdm, delay=1, leave=False, disable=bool(constants.HF_HUB_DISABLE_PROGRESS_BARS))
        path = hf_hub_download(repository, file, revision=commit, tqdm_class=bar)
        folder = Path(path.removesuffix(file))
    return folder


@contextmanager
def _user_errors(source: str | Path, uri: HfUri) -> Iterator[None]:
    """Convert exceptions of huggingface_hub to UserError, without addresses or headers of a request."""
    hub = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    try:
        yield
    except UserError:
        raise
    except GatedRepoError as error:
        raise UserError(
            f"{uri.id} is gated: accept its terms on its page at {hub}, then set HF_TOKEN or run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{uri.id} has no revision {uri.revision} at {hub}; name a branch, a tag or a commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"there is neither a local path {source} nor a repository {uri.id} at {hub} that can be read; "
            "a private one needs HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        advice = "check HF_TOKEN" if code in (401, 403) else "try again later"
        raise UserError(f"{source}: {hub} refused {uri.id} with status {code}; {advice}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, or a cache that cannot be written
            raise
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{hub} cannot be reached or broke off"
        raise UserError(
            f"there is no local path {source}, and {why}; {uri.id} is incomplete in the cache {constants.HF_HUB_CACHE}"
        ) from error
