"""Fixtures of all tests: scanned objects, an S3 endpoint, isolation of W&B."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

# Two test files run in parallel, and threads of OpenMP spin on the cores of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shells start background jobs with SIGINT ignored, and child processes inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take about a minute run first, so that neither process waits long for the other at the end.
LONG = ("test_finetune", "test_distributed", "test_render", "test_hub", "test_s3", "test_path", "test_gpu_share")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def scans() -> Path:
    """Return the folder of Google Scanned Objects beside the project; skip without it."""
    folder = Path(__file__).parents[2] / "shared/assets/gso"
    if not folder.is_dir():
        pytest.skip(f"needs the scanned objects in {folder}")
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Yield a file system on a local S3 endpoint, which environment variables make the default."""
    from moto.server import ThreadedMotoServer  # imported late: takes seconds
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # cached instances have the address of an earlier server
        yield fsspec.filesystem("s3", skip_instance_cache=True)
    server.stop()


@pytest.fixture(autouse=True, scope="module")
def no_shared_wandb() -> Iterator[None]:
    """Stop the W&B service after each module; commands of later tests would inherit it."""
    yield
    if "WANDB_SERVICE" in os.environ:
        import wandb

        wandb.teardown()
        os.environ.pop("WANDB_SERVICE", None)
