"""What Ray's autoscaler can bring to the cluster that this process is connected to."""

import json
import time
from pathlib import Path
from typing import Any

import yaml

REPORT_WAIT_S = 15.0  # the autoscaler reports every five seconds
STATIC = "node_"  # the names that Ray gives to machines of a cluster without an autoscaler begin so


def may_get_gpus() -> bool:
    """Return whether the autoscaler may bring a machine with a GPU.

    False where there is no autoscaler, or none of its machine types has a GPU; True where the types are not known. Ray
    keeps them itself or, on the head of a cluster that `ray up` made, in `~/ray_bootstrap_config.yaml`.
    """
    import ray._private.state

    most = ray._private.state.state.get_max_resources_from_cluster_config()
    if most is not None:
        return most.get("GPU", 0) > 0
    if not _has_autoscaler():
        return False
    try:
        config = yaml.safe_load((Path.home() / "ray_bootstrap_config.yaml").read_text())
        types = list(config["available_node_types"].values())
    except (OSError, RuntimeError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return True
    return any(_may_have_gpu(kind) for kind in types)


def _may_have_gpu(kind: dict[str, Any]) -> bool:
    return kind.get("max_workers") != 0 and (not kind.get("resources") or kind["resources"].get("GPU", 0) > 0)


def _has_autoscaler() -> bool:
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        return True  # it reports elsewhere
    end = time.monotonic() + REPORT_WAIT_S
    while time.monotonic() < end:
        if report := json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report"):
            types = report.get("active_nodes") or ()  # none before the autoscaler knows of the head
            return not types or not all(name.startswith(STATIC) for name in types)
        time.sleep(0.5)
    return False
