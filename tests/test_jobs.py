"""Job scripts and cluster descriptions are valid for the programs that read them."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

JOBS = Path(__file__).parents[1] / "jobs"


def test_ray_accepts_the_aws_cluster():
    config = yaml.safe_load((JOBS / "ray-aws.yaml").read_text())
    # Between these steps `ray up` fills in networks and keys, which needs an account.
    validate_config(prepare_config(json.loads(json.dumps(config))))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert types["worker"]["max_workers"] <= config["max_workers"]


def test_ray_accepts_the_training_cluster_and_it_has_the_requested_resources():
    config = yaml.safe_load((JOBS / "train-ray-aws.yaml").read_text())
    validate_config(prepare_config(json.loads(json.dumps(config))))
    worker = config["available_node_types"]["worker"]
    asked = yaml.safe_load((JOBS.parent / "conf/training/cluster/aws.yaml").read_text())["trainer"]
    assert worker["min_workers"] == asked["num_nodes"] and worker["resources"]["GPU"] == asked["devices"]
    assert any("/shared" in line and "mount" in line for line in config["initialization_commands"])


@pytest.mark.parametrize("name", ["train-torchrun", "train-slurm"])
def test_scripts_name_a_missing_program_or_option(name, tmp_path):
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": str(tmp_path), "BIN": str(tmp_path)}

    def refused(*words: str, **more: str) -> str:
        done = subprocess.run([JOBS / f"{name}.sh", *words], env=env | more, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    assert refused().startswith("usage: ")
    assert f"error: {tmp_path}/" in refused("data.path=x")
    if name == "train-torchrun":
        (tmp_path / "torchrun").touch(mode=0o755)
        assert "error: NODES=2: set HEAD" in refused("data.path=x", NODES="2")
    else:
        assert "error: this is for sbatch" in refused("data.path=x", SLURM_JOB_ID="")


def test_kuberay_provides_the_resources_of_the_render_command():
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


def test_the_image_and_kuberay_have_one_version_of_ray():
    import ray

    documents = list(yaml.safe_load_all((JOBS / "kuberay.yaml").read_text()))
    assert documents[-1]["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


def test_the_image_contains_every_package_that_rendering_imports():
    lines = (JOBS / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY")}
    project = JOBS.parent
    packages = {path.parent.name for path in project.glob("*/__init__.py")}
    needed = {"pipeline"}  # the image runs pipeline.render
    while missing := {name for part in needed for name in _imported(project / part) & packages} - needed:
        needed |= missing
    assert needed <= copied and needed >= {"rendering", "conf"}
    assert any("'.[render]'" in line for line in lines)


def _imported(package: Path) -> set[str]:
    """Return the top-level names of all modules that the files of a package import."""
    nodes = [node for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("script", sorted(JOBS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_have_valid_syntax(script):
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
