"""Fixtures: five objects in the layout of the released renders, and shards of them."""

from pathlib import Path

import pytest

from tests.support.released import UIDS, files_of, pack, write_folder


@pytest.fixture(scope="module")
def released() -> dict[str, dict[str, bytes]]:
    return {uid: files_of(seed) for seed, uid in enumerate(UIDS)}


@pytest.fixture(scope="module")
def folder(released, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("release") / "views", released)


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    """Return shards of the five objects, two per shard."""
    output = tmp_path_factory.mktemp("shards")
    pack(folder, output, objects_per_shard=2)
    return output
