"""A run on several nodes: who lands where, by Ray's state API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config import parse
from distill.errors import ConfigError
from distill.placement import check_labels
from tests.toys import toy_experiment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)  # machines may be busy
def test_teachers_and_student_land_on_their_nodes(tmp_path: Path) -> None:
    """Experts are trained and served on role: teacher; students and trials run on student."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.three_nodes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout.splitlines()[-1])
    assert ran["TeacherActor"] == ["teacher"]
    assert [ran[f"fit:{name}"] for name in ("cluster-0", "cluster-1")] == [["teacher"]] * 2
    assert ran["RayTrainWorker"] == ran["fit:alone"] == ["student"]
    assert (tmp_path / "run/student/model.safetensors").exists()
    assert ran["ImplicitFunc"] == ["student"]  # Ray Tune's name for what runs a trial
    assert len(list(tmp_path.glob("sweep/trials/*/student/model.safetensors"))) == 4


@pytest.mark.slow
def test_labels_that_no_node_has_are_named_before_anything_starts(
    ray_cluster: None, tmp_path: Path
) -> None:
    raw = toy_experiment(tmp_path)
    raw["trainer"] |= {"node_labels": {"role": "student"}}
    raw["experts"]["serving"] |= {"node_labels": {"role": "teacher"}}
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"trainer.node_labels wants {'role': 'student'}.*remove"):
        check_labels(parse(raw), said.append)
    assert said == []
    # A cluster that was joined may grow: it is said, and waited for.
    check_labels(parse(raw | {"cluster": {"address": "auto"}}), said.append)
    assert ["experts.serving.node_labels" in line for line in said] == [False, True]
    assert all("waiting for such a node to join" in line for line in said)
