"""The files in ``deploy/``: what Ray and KubeRay would refuse, and what would not fit the rest of the repository."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from mesh.config import load
from mesh.ingress.keys import read_keys
from mesh.ingress.limits import Limits
from mesh.ingress.settings import Settings
from tests.hosts import image

REPO = Path(__file__).parents[2]
DEPLOY = REPO / "deploy"
CLUSTERS = sorted(DEPLOY.glob("cluster-*.yaml"))
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
WHEEL = f"disrouter-{PROJECT['project']['version']}-py3-none-any.whl"
FILLED = {"HEAD": "10.0.0.1", "WORKER_1": "10.0.0.2", "WORKER_2": "10.0.0.3", "USER": "somebody", "AMI": "ami-1"}
FILLED |= {"REGION": "somewhere-1", "ZONE": "somewhere-1a", "PROJECT": "mine", "IMAGE": "images/ubuntu"}
KEY = "user name sha256:" + 64 * "0"

# The fields that we use, of those that KubeRay 1.6 publishes for ray.io/v1 (docs.ray.io, "KubeRay CRD API reference"),
# and those of Kubernetes' pods below them.
RAY_SERVICE = {"serveConfigV2", "rayClusterConfig", "upgradeStrategy", "serveService", "excludeHeadPodFromServeSvc"}
RAY_CLUSTER = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"}
RAY_CLUSTER |= {"workerGroupSpecs", "gcsFaultToleranceOptions", "headServiceAnnotations", "suspend", "managedBy"}
AUTOSCALER = {"idleTimeoutSeconds", "upscalingMode", "version", "resources", "image", "env", "envFrom"}
HEAD = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams", "template"}
WORKERS |= {"scaleStrategy", "numOfHosts", "suspend"}
CONTAINER = {"name", "image", "envFrom", "env", "ports", "resources", "readinessProbe", "livenessProbe", "volumeMounts"}


def cluster(path: Path) -> dict[str, Any]:
    """A cluster file with what is in capitals filled in."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [fill(each) for each in value]
        return FILLED.get(value, value) if isinstance(value, str) else value

    return fill(config)


def commands(config: dict[str, Any]) -> list[str]:
    return [each for key, value in config.items() if key.endswith("_commands") for each in value]


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_ray_takes_the_cluster_files(path: Path) -> None:
    """By the schema and the checks with which ``ray up`` begins."""
    config = prepare_config(cluster(path))
    validate_config(config)
    assert not re.findall(r"\b[A-Z]{3,}(?:_\d)?\b", yaml.safe_dump([config["provider"], config["auth"]]))
    assert config["max_workers"] >= sum(each["min_workers"] for each in config["available_node_types"].values())
    with pytest.raises(ValidationError):
        validate_config({**config, "idle_minutes": 1})


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_cluster_demands_the_token_and_hides_its_dashboard(path: Path) -> None:
    config = cluster(path)
    started = [each for each in commands(config) if "ray start" in each]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in each for each in started)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    head = shlex.split(config["head_start_ray_commands"][-1])
    assert {"--head", "--port=6379", "--dashboard-host=127.0.0.1"} <= set(head)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert any("RAY_AUTH_MODE=token' >> ~/.bashrc" in each for each in config["setup_commands"])


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_a_cluster_installs_this_version(path: Path) -> None:
    config = cluster(path)
    assert config["file_mounts"]["~/mesh-wheels"] == "dist"
    installing = " ".join(each for each in commands(config) if "mesh-wheels" in each)
    assert f"$HOME/mesh-wheels/{WHEEL}" in installing
    extras = {each for found in re.findall(r"\[([a-z,]+)\]", installing) for each in found.split(",")}
    assert extras
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_the_commands_of_a_cluster_are_shell(path: Path) -> None:
    for command in commands(cluster(path)):
        told = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert told.returncode == 0, (command, told.stderr)


@pytest.mark.parametrize("path", [each for each in CLUSTERS if "local" not in each.stem], ids=lambda path: path.stem)
def test_a_cloud_has_a_kind_of_machine_for_each_size_of_agent(path: Path) -> None:
    kinds = dict(cluster(path)["available_node_types"])
    assert "GPU" not in kinds.pop("head")["resources"]
    for name, kind in kinds.items():
        assert kind["min_workers"] == 0, "idle machines are given back"
        assert kind["resources"] | {"GPU": 1, name.replace("-", "_"): 1} == kind["resources"]
    spot = [kind for kind in kinds.values() if "spot" in yaml.safe_dump(kind["node_config"]).lower()]
    assert len(spot) == 1, "who answers when all others are gone is on no spot machine"


def test_the_local_cluster_file_names_each_port_that_it_opens() -> None:
    path = DEPLOY / "cluster-local.yaml"
    config, told = cluster(path), path.read_text()
    for started in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        ports = {int(port) for port in re.findall(r"-port=(\d+)", started)}
        assert {6380, 6381, 6382, 6383, 6384, 6385, 10002, 19999} <= ports
        assert all(6379 <= port <= 6385 or 10001 <= port <= 19999 for port in ports)
    assert "6379-6385 and 10001-19999" in told
    assert "RAY_enable_autoscaler_v2=0" in config["head_start_ray_commands"][-1]


# ---------------------------------------------------------------------------------- Kubernetes


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text()))


def test_kuberay_knows_every_field() -> None:
    service = documents()[0]
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    spec = service["spec"]
    made = spec["rayClusterConfig"]
    groups = made["workerGroupSpecs"]
    assert spec.keys() <= RAY_SERVICE
    assert made.keys() <= RAY_CLUSTER
    assert made["autoscalerOptions"].keys() <= AUTOSCALER
    assert made["headGroupSpec"].keys() <= HEAD
    assert all(group.keys() <= WORKERS for group in groups)
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)
    assert made["authOptions"] == {"mode": "token"}
    for group in (made["headGroupSpec"], *groups):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert container.keys() <= CONTAINER
            assert container["resources"]["requests"] == container["resources"]["limits"], "what Ray takes for its own"
            assert container["envFrom"] == [{"secretRef": {"name": "mesh-keys"}}]


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Ray Serve's own
def test_kubernetes_runs_the_ray_that_we_pin_and_the_server_as_print_config_writes_it() -> None:
    from mesh.ingress.deploy import written

    spec = documents()[0]["spec"]
    version = spec["rayClusterConfig"]["rayVersion"]
    assert any(each.startswith("ray[default,serve]>=" + version.rpartition(".")[0]) for each in dependencies())
    settings = Settings("qwen2.5", "0.0.0.0", 8000, 0, 2, read_keys(KEY), Limits())
    assert yaml.safe_load(spec["serveConfigV2"]) == yaml.safe_load(written(settings, "qwen2.5", None, None))
    assert load("qwen2.5").agents[0].num_gpus == 1


def test_kubernetes_lets_nobody_but_the_operator_to_the_dashboard() -> None:
    service, policy = documents()
    ports = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    named = {each["name"]: each["containerPort"] for each in ports}
    own, served, dashboard = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": policy["spec"]["podSelector"]}]}
    assert served == {"ports": [{"port": named["serve"]}]}
    assert dashboard["ports"] == [{"port": named["dashboard"]}]
    assert "kuberay-operator" in str(dashboard["from"])


# ---------------------------------------------------------------------------------- the image


def dockerfile() -> list[list[str]]:
    """Its instructions, in words."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]


def dependencies() -> list[str]:
    return list(PROJECT["project"]["dependencies"])


def runs() -> list[str]:
    return [part.strip() for word, rest in dockerfile() if word == "RUN" for part in rest.split("&&")]


def copied() -> list[tuple[str, str]]:
    """What is copied into the first stage, from the repository: source and target."""
    end = next(number for number, (word, rest) in enumerate(dockerfile()) if word == "FROM" and rest.endswith("base"))
    pairs = []
    for word, rest in dockerfile()[:end]:
        if word == "COPY":
            *sources, target = rest.split()
            pairs += [(source, target) for source in sources]
    return pairs


def test_the_image_has_a_target_for_cpus_and_one_for_gpus() -> None:
    stages = [rest.rpartition(" AS ")[2] for word, rest in dockerfile() if word == "FROM"]
    assert stages == ["wheel", "base", "cpu", "gpu"]
    python = PROJECT["project"]["requires-python"]
    assert python == ">=3.11,<3.13"
    assert (DEPLOY / "Dockerfile").read_text().count("FROM python:3.11-") == 2


def test_what_the_image_copies_is_there_and_all_that_the_wheel_needs() -> None:
    sources = {source for source, _ in copied()}
    built = PROJECT["tool"]["hatch"]["build"]
    needed = {*built["targets"]["wheel"]["packages"], built["hooks"]["custom"]["path"], "pyproject.toml"}
    needed |= {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert sources == needed
    elsewhere = [rest.split()[0] for word, rest in dockerfile() if word == "COPY" and not rest.startswith("--from")]
    assert all((REPO / source).exists() for source in elsewhere)


def test_the_image_installs_what_everybody_else_does() -> None:
    made = (REPO / "Makefile").read_text()
    extras = PROJECT["project"]["optional-dependencies"]
    for command in runs():
        words = shlex.split(command)
        assert words[0] in ("pip", "apt-get", "useradd", "rm"), command
        for word in words[2:] if words[0] == "pip" else ():
            name, _, chosen = word.partition("[")
            if "==" in word:
                assert word in made, f"{word}: `make setup` installs another"
            elif name.endswith(".whl"):
                assert name == f"/dist/{WHEEL}"
                assert set(chosen.rstrip("]").split(",")) <= extras.keys()
    assert extras["vllm"] == ["vllm==0.32.0"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_image_can_be_built_and_answers(tmp_path: Path) -> None:
    """Its steps one by one: the wheel of the copied files alone, in an environment with the dependencies and not us."""
    source, made = tmp_path / "src", tmp_path / "dist"
    for each, target in copied():
        place = source / (target if target != "./" and not target.endswith("/") else f"{target}{Path(each).name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        ours = ["--exclude=__pycache__", "--exclude=*_pb2*.py"]
        subprocess.run(["tar", *ours, "-cf", tmp_path / "one.tar", "-C", REPO, each], check=True)
        subprocess.run(["tar", "-xf", tmp_path / "one.tar", "-C", source], check=True)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(made), "."], source)
    image(tmp_path / "venv")
    python = str(tmp_path / "venv" / "bin" / "python")
    run([python, "-m", "pip", "install", "--quiet", f"{made / WHEEL}[training]"], tmp_path)
    assert "Usage" in run([str(tmp_path / "venv" / "bin" / "mesh"), "--help"], tmp_path)
    asked = [str(tmp_path / "venv" / "bin" / "mesh"), "ask", "37+58=", "--pool", "lab", "--runtime", "local"]
    assert run(asked, tmp_path).startswith("95")


def run(command: list[str], where: Path) -> str:
    done = subprocess.run(
        command,
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(where)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
