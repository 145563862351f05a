"""The files below cluster/ against Ray's own validation, and what the code does with labels."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.cluster.placement import Node, admits, check_persistent_paths, requirements, unmet
from distill.config import Experiment, load, parse
from distill.errors import ConfigError
from tests.toys import toy_experiment

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PACKAGED = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE", "distill")


# ---- ray up ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_up() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file(ray_up: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(ray_up)
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] == "head" and types["head"]["max_workers"] == 0
    assert {name: kind["labels"] for name, kind in types.items()} == {
        name: {"role": name} for name in ("head", "teacher", "student")
    }
    most = sum(kind["max_workers"] for kind in types.values())
    assert prepared["max_workers"] == most, "every type can reach its own limit"


def test_ray_refuses_a_cluster_file_with_a_slip(ray_up: dict[str, Any]) -> None:
    """That the validation looks at all: labels must be text, unknown keys are refused."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    types = ray_up["available_node_types"]
    for slip in ({"labels": {"role": 1}}, {"label": {"role": "teacher"}}):
        bad = ray_up | {"available_node_types": types | {"teacher": types["teacher"] | slip}}
        with pytest.raises(ValidationError):
            validate_config(prepare_config(bad))


def test_only_teachers_are_spot(ray_up: dict[str, Any]) -> None:
    types = ray_up["available_node_types"]
    assert [n for n, t in types.items() if "InstanceMarketOptions" in t["node_config"]] == [
        "teacher"
    ]
    assert types["head"]["resources"] == {"CPU": 0}, "nothing without a label lands on the head"


def test_the_cluster_file_installs_this_repository_from_its_lock(ray_up: dict[str, Any]) -> None:
    mounted = {k: v for k, v in ray_up["file_mounts"].items() if k.startswith("/home/ray/distill/")}
    assert set(PACKAGED) <= set(mounted.values())
    for remote, local in mounted.items():
        assert (ROOT / local).exists() and remote == f"/home/ray/distill/{local}"
    assert any("-c /home/ray/distill/requirements.lock" in c for c in ray_up["setup_commands"])
    version = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M)
    assert version is not None
    texts = [path.read_text() for path in CLUSTER.iterdir()]
    images = {found for text in texts for found in re.findall(r"rayproject/ray:(\S+?)-py311", text)}
    assert images == {version[1]}, "the image's Ray is the lock's"


# ---- KubeRay -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
    return {document["kind"]: document for document in documents}


def groups_of(rayjob: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def test_the_rayjob_is_whole(manifests: dict[str, dict[str, Any]]) -> None:
    rayjob = manifests["RayJob"]
    assert rayjob["apiVersion"] == "ray.io/v1"
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] >= 1
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    groups = groups_of(rayjob)
    assert {name: group["labels"] for name, group in groups.items()} == {
        name: {"role": name} for name in ("head", "teacher", "student")
    }
    for name, group in groups.items():
        pod = group["template"]["spec"]
        assert "spot" not in str(pod).lower() or name == "teacher"
        assert pod["restartPolicy"] == "Never", "the autoscaler replaces pods"
        claimed = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {"requests", "limits"} <= container["resources"].keys()
            assert {mount["name"] for mount in container["volumeMounts"]} <= claimed
        if name != "head":
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["name"] == "distill"


def test_the_rayjob_runs_a_valid_experiment_on_labelled_nodes(
    manifests: dict[str, dict[str, Any]],
) -> None:
    entrypoint = manifests["RayJob"]["spec"]["entrypoint"]
    command = shlex.split(entrypoint.split("&&")[-1])
    assert command[:2] == ["distill", "train"] and command[3:5] == ["--address", "auto"]
    config = ROOT / Path(command[2]).relative_to("/home/ray/distill")
    experiment = load(config, [*command[5:], "cluster.address=auto"])
    roles = {want.key: want.labels["role"] for want in requirements(experiment)}
    assert roles == {
        "trainer.node_labels": "student",
        "experts.node_labels": "teacher",
        "experts.serving.node_labels": "teacher",
        "experts.router.serving.node_labels": "teacher",
    }
    nodes = [Node(g["labels"], resources_of(g)) for g in groups_of(manifests["RayJob"]).values()]
    assert unmet(requirements(experiment), nodes) == []
    serving, router = experiment.experts.serving, experiment.experts.router.serving  # type: ignore[union-attr]
    assert 4 * serving.num_gpus + router.num_gpus <= 1, "four experts and a router share one GPU"
    paths = re.findall(r"/mnt/distill\S*", entrypoint)
    assert len(paths) >= 4 and "data/" not in re.sub(r"/mnt/distill\S*", "", entrypoint)


def resources_of(group: dict[str, Any]) -> dict[str, float]:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    return {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}


# ---- security ----------------------------------------------------------------------------------


def test_every_file_asks_for_a_token_and_holds_none(
    ray_up: dict[str, Any], manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    mode = "--env RAY_AUTH_MODE=token"
    assert mode in ray_up["docker"]["run_options"]
    assert ray_up["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    auth = manifests["RayJob"]["spec"]["rayClusterSpec"]["authOptions"]
    assert auth == {"mode": "token", "secretName": "distill-ray-token"}
    assert "Secret" not in manifests, "the token is made by kubectl, not kept in a file"
    assert all("RAY_AUTH_MODE=token" in line for line in planned(tmp_path))
    for path in CLUSTER.iterdir():
        assert not re.search(r"\b[0-9a-f]{32,}\b|RAY_AUTH_TOKEN=\S", path.read_text()), path


def test_dashboards_and_mlflow_are_on_loopback(
    ray_up: dict[str, Any], manifests: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for line in (*ray_up["head_start_ray_commands"], planned(tmp_path)[0]):
        if "ray start" in line:
            assert "--dashboard-host=127.0.0.1" in line
        if "mlflow server" in line:
            assert "--host 127.0.0.1" in line
    head = groups_of(manifests["RayJob"])["head"]
    _, mlflow = head["template"]["spec"]["containers"]
    assert mlflow["command"][:4] == ["mlflow", "server", "--host", "127.0.0.1"]
    # KubeRay's operator asks the dashboard through the Service, so a policy keeps others out.
    assert head["serviceType"] == "ClusterIP"
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress"]
    assert all("from" in rule for rule in policy["ingress"])


# ---- on-prem.sh --------------------------------------------------------------------------------


HOSTS = "head.lan head  # the driver\n\nme@gpu1.lan teacher\ngpu2.lan student\n"


def on_prem(action: str, hosts: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "hosts").write_text(hosts)
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(folder / "ray/token"), "RAY_BIN": "ray"}
    return subprocess.run(
        ["bash", str(CLUSTER / "on-prem.sh"), action, str(folder / "hosts")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def planned(folder: Path) -> list[str]:
    done = on_prem("plan", HOSTS, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def ray_starts(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Host and options of every planned ``ray start``, as Ray's own command line reads them."""
    from ray.scripts.scripts import start

    for line in planned(folder):
        host, command = line.split(": ", 1)
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
        assert words[:2] == ["ray", "start"]
        yield host, start.make_context("start", words[2:]).params


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray Serve's
def test_on_prem_starts_every_host_with_its_label(tmp_path: Path) -> None:
    from ray._private.label_utils import parse_node_labels_string

    started = dict(ray_starts(tmp_path))
    labels = {host: parse_node_labels_string(given["labels"]) for host, given in started.items()}
    assert labels == {
        "head.lan": {"role": "head"},
        "me@gpu1.lan": {"role": "teacher"},
        "gpu2.lan": {"role": "student"},
    }
    head, *others = started.values()
    assert head["head"] and head["num_cpus"] == 0 and head["dashboard_host"] == "127.0.0.1"
    assert [(given["head"], given["address"]) for given in others] == [(False, "head.lan:6379")] * 2
    assert not (tmp_path / "ray").exists(), "a plan leaves nothing behind"


BAD_HOSTS = [
    ("", "first host must have the role head"),
    ("a teacher\n", "first host must have the role head"),
    ("a head\nb\n", "'b ' is not 'host role'"),
    ("a head\nb teacher now\n", "'b teacher now' is not 'host role'"),
    ("a head\nb$(touch x) teacher\n", "is not 'host role'"),
    ("a head\n-v teacher\n", "is not 'host role'"),
]


@pytest.mark.parametrize(("hosts", "message"), BAD_HOSTS)
def test_on_prem_refuses_bad_hosts(tmp_path: Path, hosts: str, message: str) -> None:
    done = on_prem("plan", hosts, tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""


def test_on_prem_keeps_its_token_to_the_user(tmp_path: Path) -> None:
    token = tmp_path / "ray/token"
    # ".invalid" never resolves (RFC 2606), and without ssh there is none to call: it ends there.
    first = on_prem("start", "nowhere.invalid head\n", tmp_path)
    assert first.returncode != 0 and f"a new token in {token}" in first.stdout
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text()) == 64
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    token.chmod(0o644)
    again = on_prem("start", "nowhere.invalid head\n", tmp_path)
    assert again.returncode == 2 and f"chmod 600 {token}" in again.stderr


def test_scripts_parse() -> None:
    subprocess.run(["bash", "-n", str(CLUSTER / "on-prem.sh")], check=True)
    assert os.access(CLUSTER / "on-prem.sh", os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(CLUSTER / "on-prem.sh")], check=True)


# ---- labels and addresses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "label", "is_admitted"),
    [
        ("teacher", "teacher", True),
        ("teacher", "student", False),
        ("teacher", None, False),
        ("!teacher", "student", True),
        ("!teacher", None, True),
        ("!teacher", "teacher", False),
        ("in(teacher,both)", "both", True),
        ("in(teacher, both)", "student", False),
        ("!in(teacher,both)", "both", False),
        ("!in(teacher,both)", None, True),
    ],
)
def test_selectors_read_as_rays_do(rule: str, label: str | None, is_admitted: bool) -> None:
    from ray._private.label_utils import validate_label_selector

    assert validate_label_selector({"role": rule}) is None
    assert admits({"role": rule}, {"role": label} if label else {}) is is_admitted


def labelled(root: Path, **trainer: Any) -> Experiment:
    raw = toy_experiment(root)
    raw["trainer"] |= {"node_labels": {"role": "student"}, **trainer}
    return parse(raw)


def test_what_no_node_can_meet_is_named(tmp_path: Path) -> None:
    teacher = Node({"role": "teacher", "ray.io/node-id": "ab"}, {"CPU": 8.0})
    student = Node({"role": "student"}, {"CPU": 2.0})
    wanted = requirements(labelled(tmp_path))
    assert unmet(wanted, [teacher, student]) == []
    (text,) = unmet(wanted, [teacher])
    assert "trainer.node_labels needs a node with {'role': 'student'}" in text
    assert "no node has them (node labels: [{'role': 'teacher'}])" in text
    (text,) = unmet(requirements(labelled(tmp_path, num_cpus_per_worker=4)), [teacher, student])
    assert "of the 1 nodes with them none has 4 CPUs and 0 GPUs" in text


@pytest.mark.parametrize("address", ["ray://head:10001", "http://127.0.0.1:8265"])
def test_ray_client_is_refused_with_the_way_out(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"must be auto or host:port.*ray job submit") as caught:
        parse(toy_experiment(tmp_path, cluster={"address": address}))
    assert len(str(caught.value).splitlines()) == 1


def test_the_address_option_is_the_key(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from distill.cli import app

    config = tmp_path / "toy.yaml"
    config.write_text(yaml.safe_dump(toy_experiment(tmp_path)))
    for command in ("train", "check", "experts"):
        refused = CliRunner().invoke(app, [command, str(config), "--address", "ray://x:1"])
        assert refused.exit_code == 2 and "got 'ray://x:1'" in refused.output


def test_a_run_folder_that_ray_would_delete_is_refused(tmp_path: Path) -> None:
    unpacked = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_ab"
    experiment = parse(toy_experiment(tmp_path, output="runs/toy"))
    check_persistent_paths(experiment, tmp_path)
    with pytest.raises(ConfigError, match=r"output 'runs/toy' .* give an absolute path"):
        check_persistent_paths(experiment, unpacked)
    kept = toy_experiment(tmp_path, output=str(tmp_path / "run"))
    check_persistent_paths(parse(kept), unpacked)
    for section in ("cache", "memory"):
        with pytest.raises(
            ConfigError, match=rf"{section}\.path 'shared' .* give an absolute path"
        ):
            check_persistent_paths(parse(kept | {section: {"path": "shared"}}), unpacked)
