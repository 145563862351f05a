"""Every rule mutation applies and names its tests; its runner tells killed from survived."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mutants.__main__ import TIMEOUT, Child, result_of, wait
from tests.mutants.patches import AREAS, PatchError, apply, patches_of, read

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
ADD = "def add(a, b):\n    return a + b\n"
TESTS = """\
from distill.sums import add
def test_an_even_sum():
    assert add(2, 2) == 4
def test_an_odd_sum():
    assert add(2, 3) == 5
"""


def test_patches_have_the_head_lines_and_are_in_a_known_area() -> None:
    patches = patches_of(FOLDER)
    assert {patch.area for patch in patches} <= set(AREAS)
    for patch in patches:
        assert len(patch.name) <= 48, "the name does not fit into the table"
        assert patch.tests
        for test in patch.tests:
            assert (ROOT / test.partition("::")[0]).is_file(), f"{patch.path} names {test}"


@pytest.mark.parametrize(
    "patch", patches_of(FOLDER), ids=lambda patch: f"{patch.area}/{patch.name}"
)
def test_a_patch_applies_and_changes_the_package_alone(patch) -> None:
    apply(patch, ROOT, only_check=True)
    assert patch.changed and all(path.startswith("distill/") for path in patch.changed)


def test_a_patch_without_its_head_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "area" / "rule.patch"
    path.parent.mkdir()
    path.write_text("Rule: sums add\n--- a/distill/sums.py\n")
    with pytest.raises(PatchError, match="one line 'Tests: …'"):
        read(path)


def sums_mutated(root: Path, changes: dict[str, tuple[str, str, str]]) -> None:
    """A repository with one function, two tests, and a patch for each change of its last line."""
    for folder in ("distill", "tests/mutants/sums"):
        (root / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "distill/__init__.py", "tests/__init__.py"):
        (root / name).touch()
    (root / "distill" / "sums.py").write_text(ADD)
    (root / "tests" / "test_sums.py").write_text(TESTS)
    for name, (old, new, test) in changes.items():
        (root / "tests" / "mutants" / "sums" / f"{name}.patch").write_text(
            f"Rule: sums add\nTests: tests/test_sums.py{test}\n\n--- a/distill/sums.py\n"
            f"+++ b/distill/sums.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    {old}\n+    {new}\n"
        )


def run(root: Path, *options: str) -> tuple[int, dict[str, str]]:
    """Exit status, and the second column to the third."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--root", str(root), *options],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # their import takes longest
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("sums ")]
    assert rows and all(len(line) <= 80 for line in rows), done.stdout
    return done.returncode, {line.split()[1]: line.split()[2] for line in rows}


def test_the_runner_fails_for_a_survivor_and_a_patch_that_no_longer_applies(tmp_path: Path) -> None:
    line = "return a + b"
    sums_mutated(
        tmp_path,
        {
            "killed": (line, "return a - b", ""),
            "survives": (line, "return a * b", "::test_an_even_sum"),
            "old": ("return b + a", "return a", ""),
            "no-module": (line, "return (", ""),
        },
    )
    status, results = run(tmp_path)
    assert status == 1
    assert results == {
        "killed": "killed",
        "survives": "SURVIVED",
        "old": "ERROR",  # no longer applies
        "no-module": "ERROR",  # an import that fails is no test that fails
    }
    assert run(tmp_path, "sums/killed") == (0, {"killed": "killed"})


def test_a_test_that_hangs_is_ended_and_shown_as_such(tmp_path: Path) -> None:
    hangs = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = wait(Child(hangs.pid, tmp_path, time.monotonic(), None), limit_s=0.1)
    assert result_of(status) == TIMEOUT
    hangs.communicate()
