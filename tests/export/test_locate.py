"""Folders of a run that are given as students."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import ModelError
from distill.export.locate import locate


def test_the_folder_of_a_link_is_its_model(tmp_path: Path) -> None:
    for name in ("run/links/1/model", "elsewhere/model"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "run/experiment.json").write_text("{}")
    found = locate(tmp_path / "run/links/1")
    assert (found.folder, found.run) == (tmp_path / "run/links/1/model", tmp_path / "run")
    assert locate(tmp_path / "run/links/1/model") == found
    with pytest.raises(ModelError, match="neither a run nor an exported student"):
        locate(tmp_path / "elsewhere")
