"""The order of the packages, what each ring imports, names, and sizes: read from the sources.

Nothing is imported. The order is that of the map in CONTRIBUTING.md; a failing test prints each
offender with its line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import layout
from tests.layout import Module

ROOT = Path(__file__).parents[1]
SOURCES = layout.modules(ROOT)
MAP = layout.rows_of_the_map(ROOT)
PACKAGES = {module.package for module in SOURCES.values()} - {"", "__main__"}

ALLOWED_UPWARDS: dict[tuple[str, str], str] = {}
"""Imports from a higher package, under TYPE_CHECKING only, each with its reason."""

OUTER = {
    "ray": {"api", "cluster", "driver", "teachers"},
    "deepspeed": {"training"},
    "mlflow": {"tracking"},
}
"""Packages with an import of each outer library, in whatever place. The others have none."""

NEEDS_RAY = {f"teachers.{name}" for name in ("direct", "replica_pool", "ray_client")}
"""The only modules that cannot be imported without Ray. The others work in one process without
Ray, DeepSpeed or MLflow installed: they import them in the functions that start or read these."""

WITHOUT_TORCH = {"errors", "names", "wording", "variant", "lazy_torch", "metrics", "records"}
WITHOUT_TORCH |= {"config", "wires", "run_folder", "transform", "cli"}
"""Packages whose import loads no torch: a refused configuration and ``--help`` must not wait
seconds. Of ``objectives`` and ``aggregation`` the same is true of the package itself, so of all
configuration classes."""

HIDDEN = {
    "experts": "distill.experts() of the Python interface; see distill/__init__.py",
    "export": "distill.export()",
    "report": "distill.report()",
    "cli.options": "the options of `distill` without a command",
    "data.encode": "encode() is the one function of data/encode.py that others call",
}
"""Modules that a public function of one name hides, each with its reason."""


def test_the_map_has_every_package_with_its_contents():
    assert set(MAP) == PACKAGES
    expected = {name: SOURCES[name].contents for name in MAP}
    assert {name: contents for name, (contents, _) in MAP.items()} == expected


def test_the_tests_lie_in_folders_of_the_packages():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert sorted(folders - PACKAGES) == ["docs", "integration", "mutants"]


def test_a_package_imports_only_from_lower_ones():
    rank = {name: place for place, name in enumerate((*MAP, "__main__"))}
    upwards = {
        pair: uses
        for pair, uses in layout.between_packages(SOURCES).items()
        if rank[pair[0]] < rank[pair[1]]
    }
    refused = [use for pair, uses in upwards.items() for use in uses if not is_allowed(pair, use)]
    assert refused == []
    assert set(ALLOWED_UPWARDS) <= set(upwards), "an exception that nothing needs"


def is_allowed(pair: tuple[str, str], use: str) -> bool:
    return pair in ALLOWED_UPWARDS and use.endswith("(typing)")


def test_no_packages_import_each_other():
    pairs = set(layout.between_packages(SOURCES)) - set(ALLOWED_UPWARDS)
    assert layout.cycles(pairs) == []


@pytest.mark.parametrize("library", OUTER)
def test_only_these_packages_import_the_outer_libraries(library: str):
    found = {SOURCES[name].package for name in layout.users(SOURCES, library)}
    assert found == OUTER[library]


def test_the_core_imports_no_outer_library():
    rings = {name: ring for name, (_, ring) in MAP.items()}
    assert set(rings.values()) == {"core", "core, cluster", "cluster", "edge"}
    core = {name for name, ring in rings.items() if ring == "core"}
    assert [name for users in OUTER.values() for name in users if name in core] == []
    assert [name for name in OUTER["mlflow"] if rings[name] != "edge"] == []


def test_all_but_the_actors_can_be_imported_without_ray_deepspeed_and_mlflow():
    assert layout.loading(SOURCES, "ray") == NEEDS_RAY
    assert layout.loading(SOURCES, "deepspeed") == set()
    assert layout.loading(SOURCES, "mlflow") == set()


def test_the_configuration_and_the_help_load_no_torch():
    loading = layout.loading(SOURCES, "torch")
    assert sorted(name for name in loading if SOURCES[name].package in WITHOUT_TORCH) == []
    assert not {"", "objectives", "aggregation"} & loading
    assert "training.loop" in loading  # the search finds what it must


def test_no_function_hides_a_module():
    assert layout.hidden_modules(SOURCES) == set(HIDDEN)


MOST: dict[str, tuple[Callable[[dict[str, Module]], list[str]], int]] = {
    "lines that depend on the task": (
        lambda sources: layout.task_lines(sources, layout.MAY_KNOW_THE_TASK),
        0,
    ),
    "imports of the package of one task": (layout.uses_of_one_task, 2),
    "functions over 60 lines": (layout.long_functions, 4),
    "functions with more than 8 parameters": (layout.wide_functions, 11),
    "files over 450 lines": (layout.long_files, 2),
    "public classes of one name": (lambda s: listed(layout.shared_class_names(s)), 8),
    "modules of one name": (lambda s: listed(layout.shared_module_names(s)), 23),
}
"""What may only become fewer: lower a number here when the code has fewer."""


def listed(found: dict[str, list[str]]) -> list[str]:
    return [f"{name}: {', '.join(where)}" for name, where in sorted(found.items())]


@pytest.mark.parametrize("what", MOST)
def test_what_may_only_become_fewer(what: str):
    find, most = MOST[what]
    found = find(SOURCES)
    assert len(found) <= most, "\n".join([f"{len(found)} {what}, at most {most}:", *found])


def sources_of(tmp_path: Path, **texts: str) -> dict[str, Module]:
    for name, text in texts.items():
        path = tmp_path / "distill" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return layout.modules(tmp_path)


def test_an_import_inside_a_function_closes_a_cycle(tmp_path: Path):
    sources = sources_of(
        tmp_path,
        a__one="from distill.b import two\n",
        b__two="def f():\n    from distill.a.one import g\n",
        c__three="import distill.a.one\n",
    )
    assert layout.cycles(layout.between_packages(sources)) == [["a", "b"]]
    uses = layout.between_packages(sources)["b", "a"]
    assert uses == ["distill/b/two.py:2: a.one (function)"]


def test_a_library_is_loaded_through_other_modules_and_not_through_typing(tmp_path: Path):
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray\n"
    sources = sources_of(
        tmp_path,
        a="from ray.util import queue\n",
        b="from distill.a import x\n",
        c="def f():\n    import ray\n",
        d=typing + "else:\n    from distill.b import x\n",
        e=typing,
    )
    assert layout.loading(sources, "ray") == {"a", "b", "d"}
    assert layout.users(sources, "ray") == {"a", "c", "d", "e"}


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("if experiment.is_language_model:", True),
        ("if isinstance(rows, Blocks):", True),
        ("if d.plan.blocks is not None:", True),
        ('if experiment.task == "language_model":', True),
        ('LONGEST = {"classification": 512}', False),
        ("x = 1  # is_language_model", False),
    ],
)
def test_lines_that_depend_on_the_task_are_found(tmp_path: Path, line: str, is_found: bool):
    sources = sources_of(tmp_path, driver__a=line, tasks__a=line)
    assert len(layout.task_lines(sources)) == is_found


def test_parameters_and_lines_of_functions(tmp_path: Path):
    names = ", ".join(f"p{i}" for i in range(8))
    body = "        pass\n"
    text = (
        f"class A:\n    def f(self, {names}):\n{body}    def g(self, {names}, *, z):\n{body * 60}"
    )
    sources = sources_of(tmp_path, a__b=text)
    assert layout.wide_functions(sources) == ["distill/a/b.py:4: a.b.A.g: 9 parameters"]
    assert layout.long_functions(sources) == ["distill/a/b.py:4: a.b.A.g: 61 lines"]
