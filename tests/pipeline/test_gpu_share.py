"""Tasks share the GPUs of a cluster; Ray accepts declared GPUs, so the tests need none."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.util import get_node_ip_address

from tests.support.command import PROJECT, command

SHARE = """
import os, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from pipeline.cluster import gpu_share, run_tasks
from pipeline.config import Cluster
from rendering.settings import RenderSettings

def at_work(job):
    start = time.time()
    time.sleep(0.5)
    yield start, time.time(), ray.get_runtime_context().get_assigned_resources().get("GPU", 0)

cluster = Cluster(workers=8, workers_per_gpu=2)
ray.init(num_cpus=8, num_gpus={gpus}, include_dashboard=False, log_to_driver=False)
devices = ("cpu", "auto", "cuda", "optix") if {gpus} else ("cpu", "auto")
print([gpu_share(RenderSettings(device=device), cluster) for device in devices])
if {gpus}:
    spans = list(run_tasks(at_work, range(6), cluster, 1, gpu_share(RenderSettings(device="cuda"), cluster)))
    print(max(sum(a <= t < b for a, b, _ in spans) for t, _, _ in spans), {{gpu for _, _, gpu in spans}})
"""


def run(gpus: int) -> list[str]:
    script = SHARE.format(gpus=gpus)
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_two_tasks_at_a_time_share_one_gpu():
    """The CPUs suffice for eight tasks, so six tasks wait for the GPU."""
    assert run(gpus=1) == ["[0.0, 0.5, 0.5, 0.5]", "2 {0.5}"]


def test_auto_requests_no_gpu_without_one():
    assert run(gpus=0) == ["[0.0, 0.0]"]


@pytest.mark.slow
def test_cuda_on_a_machine_without_gpu_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["objects=procedural", "objects.count=1", f"output={tmp_path}", "renderer.device=cuda"]
    done = command("pipeline.render", *words, timeout=120)
    *_, sentence = done.stderr.splitlines()
    assert (
        done.returncode == 2 and sentence.startswith("error: renderer.device=cuda: ") and "Traceback" not in done.stderr
    )


@pytest.fixture
def head(tmp_path):
    """Return a function that starts the head of a local cluster and returns the environment to join it."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have at most 107 bytes
    env = {
        **os.environ,
        "RAY_TMPDIR": folder,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(tmp_path),
    }
    heads: list[subprocess.Popen[bytes]] = []

    def start(resources: dict[str, int] | None) -> dict[str, str]:
        """Start a head; `resources` are those of a machine type that the autoscaler can add, None: no autoscaler."""
        words, ray = ["--head", "--block", "--num-cpus=0", f"--port={port}", "--include-dashboard=false"], dict(env)
        if resources:
            itself = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
            worker = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 1}
            config = {name: [] for name in LISTS} | {"docker": {}, "auth": {}, "file_mounts": {}} | {
                "cluster_name": "fake", "max_workers": 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 1,
                "provider": {"type": "fake_multinode", "gcs_address": f"{get_node_ip_address()}:{port}"},
                "head_node_type": FAKE_HEAD_NODE_TYPE,
                "file_mounts_sync_continuously": False,
                "available_node_types": {FAKE_HEAD_NODE_TYPE: itself, "worker": worker},
            }  # fmt: skip
            (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))
            words.append(f"--autoscaling-config={tmp_path / 'ray_bootstrap_config.yaml'}")
            ray["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = FAKE_HEAD_NODE_ID
            ray["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": 0})
        program = str(Path(sys.executable).with_name("ray"))
        heads.append(subprocess.Popen([program, "start", *words], env=ray, cwd=PROJECT, stdout=subprocess.DEVNULL))
        # Without the address, `auto` would look for any cluster on this machine while the head starts.
        return {**env, "RAY_ADDRESS": f"{get_node_ip_address()}:{port}"}

    yield start
    for process in heads:
        process.terminate()
        process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


LISTS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "rsync_exclude",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_filter",
)  # fmt: skip

JOIN = """
import ray, time
from pipeline.cluster import gpu_share
from pipeline.config import Cluster
from rendering.settings import RenderSettings
end = time.monotonic() + 60
while True:
    try:
        ray.init("auto", logging_level="ERROR", log_to_driver=False)
        break
    except ConnectionError:
        assert time.monotonic() < end
        time.sleep(1)
cluster = Cluster(address="auto", workers=2)
start = time.monotonic()
try:
    share = gpu_share(RenderSettings(device="optix"), cluster)
except Exception as error:
    print(type(error).__name__, str(error).split(":")[0], time.monotonic() - start < 20)
else:
    print(share)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (None, "FieldError device=optix True"),
        ({"CPU": 1}, "FieldError device=optix True"),
        ({"CPU": 1, "GPU": 1}, "0.5"),
    ],
)
def test_a_run_waits_for_a_gpu_only_if_the_autoscaler_can_add_one(head, resources, said):
    env = head(resources)
    done = subprocess.run(
        [sys.executable, "-c", JOIN], cwd=PROJECT, env=env, capture_output=True, text=True, timeout=180
    )
    assert done.stdout.strip() == said, done.stdout + done.stderr
