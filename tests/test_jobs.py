"""The cluster descriptions are what the programs that read them take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

JOBS = Path(__file__).parents[1] / "jobs"


def test_ray_takes_the_aws_cluster():
    config = yaml.safe_load((JOBS / "ray-aws.yaml").read_text())
    # `ray up` fills in the provider's networks and keys in between, with an account.
    validate_config(prepare_config(json.loads(json.dumps(config))))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert types["worker"]["max_workers"] <= config["max_workers"]


def test_kuberay_gets_what_the_render_command_counts_on():
    documents = list(yaml.safe_load_all((JOBS / "kuberay.yaml").read_text()))
    assert [(d["apiVersion"], d["kind"]) for d in documents] == [
        ("v1", "ServiceAccount"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("ray.io/v1", "RayJob"),
    ]
    assert len({d["metadata"]["name"] for d in documents}) == 1
    cluster = documents[-1]["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] and cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == documents[0]["metadata"]["name"]
        for container in pod["containers"]:
            assert container["image"] and container["resources"]["requests"] == container["resources"]["limits"]
    assert all(group["template"]["spec"]["tolerations"] for group in cluster["workerGroupSpecs"])


def test_the_image_has_the_ray_that_kuberay_is_told_of():
    import ray

    documents = list(yaml.safe_load_all((JOBS / "kuberay.yaml").read_text()))
    assert documents[-1]["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_the_image_holds_every_package_that_rendering_imports():
    copied = [line.split()[1] for line in (JOBS / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert {"conf", "rendering", "pipeline", "pyproject.toml"} <= set(copied)


@pytest.mark.parametrize("script", sorted(JOBS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
