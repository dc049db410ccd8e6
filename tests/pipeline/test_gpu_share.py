"""Tasks share the GPUs that a cluster says it has; Ray takes its word, so no GPU is needed to see it."""

import subprocess
import sys

from command import PROJECT

SHARE = """
import os, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from pipeline.cluster import gpu_share, run_tasks
from pipeline.config import Cluster

def at_work(job):
    begun = time.time()
    time.sleep(0.5)
    yield begun, time.time(), ray.get_runtime_context().get_assigned_resources().get("GPU", 0)

cluster = Cluster(workers=8, workers_per_gpu=2)
ray.init(num_cpus=8, num_gpus={gpus}, include_dashboard=False, log_to_driver=False)
print([gpu_share(device, cluster) for device in ("cpu", "auto", "cuda", "optix")])
if {gpus}:
    spans = list(run_tasks(at_work, range(6), cluster, 1, gpu_share("cuda", cluster)))
    print(max(sum(a <= t < b for a, b, _ in spans) for t, _, _ in spans), {{gpu for _, _, gpu in spans}})
"""


def run(gpus: int) -> list[str]:
    script = SHARE.format(gpus=gpus)
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_two_tasks_at_a_time_share_one_gpu():
    """Eight tasks may run at a time by the CPUs, and six wait."""
    assert run(gpus=1) == ["[0.0, 0.5, 0.5, 0.5]", "2 {0.5}"]


def test_auto_asks_for_no_gpu_where_there_is_none():
    assert run(gpus=0) == ["[0.0, 0.0, 0.5, 0.5]"]
