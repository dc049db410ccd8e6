"""Query which resources Ray's autoscaler can add to the connected cluster."""

import json
import time
from pathlib import Path
from typing import Any

import yaml

REPORT_WAIT_S = 15.0  # the autoscaler reports every 5 s
STATIC = "node_"  # prefix of node type names in a cluster without an autoscaler


def may_get_gpus() -> bool:
    """Return whether the autoscaler may add a machine with a GPU.

    The machine types come from Ray or, on the head of a cluster started by `ray up`, from
    `~/ray_bootstrap_config.yaml`.

    Returns:
        False if there is no autoscaler or none of its machine types has a GPU; True if the types are unknown.
    """
    import ray._private.state

    maximum = ray._private.state.state.get_max_resources_from_cluster_config()
    if maximum is not None:
        return maximum.get("GPU", 0) > 0
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
        return True  # version 2 does not write the key that is read below
    end = time.monotonic() + REPORT_WAIT_S
    while time.monotonic() < end:
        if report := json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report"):
            types = report.get("active_nodes") or ()  # empty until the autoscaler has registered the head
            return not types or not all(name.startswith(STATIC) for name in types)
        time.sleep(0.5)
    return False
