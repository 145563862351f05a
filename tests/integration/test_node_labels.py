"""Node labels of the configuration against a running cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.cluster.placement import check_labels
from distill.config import parse
from distill.errors import ConfigError
from tests.toys import toy_experiment


@pytest.mark.slow
def test_labels_that_no_node_has_are_named_before_anything_starts(
    ray_cluster: None, tmp_path: Path
) -> None:
    raw = toy_experiment(tmp_path)
    raw["trainer"] |= {"node_labels": {"role": "student"}}
    raw["experts"]["serving"] |= {"node_labels": {"role": "teacher"}}
    payloads: list[str] = []
    with pytest.raises(
        ConfigError, match=r"trainer.node_labels needs a node with {'role': 'student'}.*remove"
    ):
        check_labels(parse(raw), payloads.append)
    assert payloads == []
    # A cluster that was joined may grow: it is said, and waited for.
    check_labels(parse(raw | {"cluster": {"address": "auto"}}), payloads.append)
    assert ["experts.serving.node_labels" in line for line in payloads] == [False, True]
    assert all("waiting for such a node to join" in line for line in payloads)
