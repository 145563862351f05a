"""What the sources of a checkout look like, read with ast: ``python -m tests.layout PATH …``.

Imports nothing of the project, so that it counts any checkout, also one whose packages are others.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 450
MAX_PARAMETERS = 8

TASK_QUESTIONS = re.compile(
    r"(?<!\")is_language_model|isinstance\([^)]*Blocks|\bblocks is (not )?None"
    r"|task (==|!=|is|in|not in) [\"'(]|[=!]= \"(language_model|classification)\""
)
"""A line that depends on which task it is."""
MAY_KNOW_THE_TASK = ("tasks", "data")
"""The packages whose lines may: the tasks, and data, which has a class for each kind of rows."""


@dataclass(frozen=True)
class Import:
    """An imported module or name. ``kind``: top, function, or typing (TYPE_CHECKING)."""

    target: str
    kind: str
    line: int


@dataclass(frozen=True)
class Function:
    """``num_parameters`` is without self and cls."""

    name: str
    num_lines: int
    num_parameters: int
    where: str


@dataclass(frozen=True)
class Module:
    """One source file; ``name`` is dotted and without ``distill``: "" is distill/__init__.py."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """The package, or the file at the top, that the module belongs to."""
        return self.name.partition(".")[0]

    @property
    def contents(self) -> str:
        """The first sentence of its docstring, as Markdown."""
        paragraph = (ast.get_docstring(self.tree) or "").partition("\n\n")[0]
        text = " ".join(paragraph.split()).replace("``", "`")
        return text.partition(". ")[0].removesuffix(".")

    @cached_property
    def functions(self) -> list[Function]:
        return list(_functions(self.tree, self.name, self.path))

    @property
    def task_lines(self) -> list[str]:
        lines = enumerate(self.text.splitlines(), 1)
        return [f"{self.path}:{i}: {line.strip()}" for i, line in lines if _asks(line)]

    @property
    def num_any(self) -> int:
        names = (node for node in ast.walk(self.tree) if isinstance(node, ast.Name))
        return sum(name.id == "Any" for name in names)

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, in whatever place of the module."""
        return list(_imports(self.tree, "top"))

    def imported(self, root: str) -> list[Import]:
        """The imports of the package ``root``, of its modules and of names in them."""
        return [one for one in self.imports if f"{one.target}.".startswith(f"{root}.")]


def _imports(node: ast.AST, kind: str) -> Iterator[Import]:
    if isinstance(node, ast.ImportFrom):
        assert node.module is not None and not node.level, "a relative import"
        for alias in node.names:
            yield Import(f"{node.module}.{alias.name}", kind, node.lineno)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, kind, node.lineno)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _imports(child, "typing")
        for child in node.orelse:
            yield from _imports(child, kind)
    elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case | ast.Module):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, "function" if is_function else kind)


def _asks(line: str) -> bool:
    return TASK_QUESTIONS.search(line.partition("  #")[0]) is not None


MAP = re.compile(r"^\| `(\w+)(?:/|\.py)` \| (.+) \| ([\w, ]+) \|$", re.MULTILINE)


def rows_of_the_map(root: Path) -> dict[str, tuple[str, str]]:
    """Contents and ring of each package or file of distill/, low to high, as in CONTRIBUTING."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return {match[1]: (match[2], match[3]) for match in MAP.finditer(text)}


def modules(root: Path) -> dict[str, Module]:
    """The modules of distill/ in a checkout, by their dotted name."""
    found = {}
    for path in sorted((root / "distill").rglob("*.py")):
        relative = path.relative_to(root / "distill")
        parts = relative.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path.relative_to(root), path.read_text(encoding="utf-8"))
    return found


def edges(sources: dict[str, Module]) -> dict[tuple[str, str], list[tuple[str, Import]]]:
    """The imports from one module to another, by (importing, imported)."""
    found = defaultdict(list)
    for module in sources.values():
        for one in module.imported("distill"):
            target = one.target.removeprefix("distill").lstrip(".")
            while target not in sources:  # a name in a module
                target = target.rpartition(".")[0]
            if target != module.name:
                found[module.name, target].append((str(module.path), one))
    return dict(found)


def between_packages(sources: dict[str, Module]) -> dict[tuple[str, str], list[str]]:
    """The imports from one package to another as ``path:line: module (kind)``; the root apart."""
    found = defaultdict(list)
    for (importing, imported), uses in edges(sources).items():
        pair = importing.partition(".")[0], imported.partition(".")[0]
        if pair[0] != pair[1] and all(pair):
            found[pair] += [f"{path}:{one.line}: {imported} ({one.kind})" for path, one in uses]
    return dict(found)


def imported_at_import(sources: dict[str, Module]) -> dict[str, set[str]]:
    """The modules that are loaded by the import of each: its own, theirs, and every parent."""
    follows: dict[str, set[str]] = {name: set() for name in sources}
    for (importing, imported), uses in edges(sources).items():
        if any(one.kind == "top" for _, one in uses):
            follows[importing].add(imported)
    for name in sources:
        follows[name].add(name.rpartition(".")[0])
    return {name: {name} | _reached(name, follows) for name in sources}


def users(sources: dict[str, Module], library: str, *kinds: str) -> set[str]:
    """The modules that import a library in a way of ``kinds``; without kinds, in any way."""
    return {
        name
        for name, module in sources.items()
        if any(not kinds or one.kind in kinds for one in module.imported(library))
    }


def loading(sources: dict[str, Module], library: str) -> set[str]:
    """The modules whose import loads a library."""
    direct = users(sources, library, "top")
    return {name for name, loaded in imported_at_import(sources).items() if loaded & direct}


def cycles(pairs: Any) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected, more than one node)."""
    follows = defaultdict(set)
    for importing, imported in pairs:
        follows[importing].add(imported)
    reached = {node: _reached(node, follows) for node in list(follows)}
    groups = {
        tuple(sorted(o for o in reached[node] if node in reached.get(o, ())))
        for node in reached
        if node in reached[node]
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reached(start: str, follows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(follows[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += follows.get(node, ())
    return found


def _functions(tree: ast.AST, name: str, path: Path) -> Iterator[Function]:
    for node in ast.iter_child_nodes(tree):
        own = name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own = f"{name}.{node.name}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            num = sum(n not in ("self", "cls") for n in names)
            num += (given.vararg is not None) + (given.kwarg is not None)
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            yield Function(own, lines, num, f"{path}:{node.lineno}")
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _functions(node, own, path)


def shared_class_names(sources: dict[str, Module]) -> dict[str, list[str]]:
    """Public classes of one name, by that name."""
    found = defaultdict(list)
    for module in sources.values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module.name)
    return {name: where for name, where in found.items() if len(where) > 1}


def shared_module_names(sources: dict[str, Module]) -> dict[str, list[str]]:
    """Modules of one name in different packages. The tasks have files of the same names, and the
    settings of a package are the module of its name in config/."""
    found = defaultdict(list)
    for name in sources:
        own = name.rpartition(".")[2]
        if own != "__main__" and not name.startswith("tasks.") and name != f"config.{own}":
            found[own].append(name)
    return {name: where for name, where in found.items() if len(where) > 1}


def hidden_modules(sources: dict[str, Module]) -> set[str]:
    """Modules that a function or class in the __init__ of their package hides."""

    def is_module(target: str) -> bool:
        return target.removeprefix("distill").lstrip(".") in sources

    found = set()
    for module in sources.values():
        if module.path.name == "__init__.py":
            names = [one.target for one in module.imports if not is_module(one.target)]
            bound = {name.rpartition(".")[2] for name in names} | set(public_names(module))
            found |= {f"{module.name}.{name}".lstrip(".") for name in bound} & set(sources)
    return found


def public_names(module: Module) -> list[str]:
    """Classes and functions at the top of a module, without those that begin with _."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in module.tree.body if isinstance(node, kinds)]
    return [name for name in dict.fromkeys(names) if not name.startswith("_")]


def long_functions(sources: dict[str, Module]) -> list[str]:
    found = [f for m in sources.values() for f in m.functions if f.num_lines > MAX_FUNCTION_LINES]
    return [f"{f.where}: {f.name}: {f.num_lines} lines" for f in found]


def wide_functions(sources: dict[str, Module]) -> list[str]:
    """Without the commands: each of their parameters is an option of the command line."""
    found = [
        function
        for module in sources.values()
        if module.package != "cli"
        for function in module.functions
        if function.num_parameters > MAX_PARAMETERS
    ]
    return [f"{f.where}: {f.name}: {f.num_parameters} parameters" for f in found]


def long_files(sources: dict[str, Module]) -> list[str]:
    sizes = {module.path: module.text.count("\n") for module in sources.values()}
    return [f"{path}: {num} lines" for path, num in sizes.items() if num > MAX_FILE_LINES]


def uses_of_one_task(sources: dict[str, Module]) -> list[str]:
    """Imports of the package of one task, outside of the tasks."""
    found = {
        f"{path}:{one.line}: {imported}"
        for (importing, imported), uses in edges(sources).items()
        for path, one in uses
        if re.match(r"tasks\.(classification|language_model)\b", imported)
        and not importing.startswith("tasks.")
    }
    return sorted(found)


def task_lines(sources: dict[str, Module], allowed: tuple[str, ...] = ("tasks",)) -> list[str]:
    found = [module for module in sources.values() if module.package not in allowed]
    return [line for module in found for line in module.task_lines]


def counts(root: Path) -> dict[str, int]:
    """What an issue about the layout compares before and after."""
    sources = modules(root)
    asking = task_lines(sources)
    text_of_tests = [p.read_text(encoding="utf-8") for p in (root / "tests").rglob("*.py")]
    return {
        "lines of Python in distill/": sum(m.text.count("\n") for m in sources.values()),
        "lines of Python in tests/": sum(text.count("\n") for text in text_of_tests),
        "files in distill/": len(sources),
        "files at the top of distill/": sum(len(m.path.parts) == 2 for m in sources.values()),
        "files over 450 lines": len(long_files(sources)),
        "functions": sum(len(m.functions) for m in sources.values()),
        "functions over 60 lines": len(long_functions(sources)),
        "functions with more than 8 parameters": len(wide_functions(sources)),
        "occurrences of Any": sum(m.num_any for m in sources.values()),
        "lines that depend on the task, outside tasks/": len(asking),
        "files with such lines": len({line.partition(":")[0] for line in asking}),
        "such lines outside tasks/ and data/": len(task_lines(sources, MAY_KNOW_THE_TASK)),
        "imports of the package of one task, outside tasks/": len(uses_of_one_task(sources)),
        "groups of packages that import each other": len(cycles(between_packages(sources))),
        "packages in such groups": sum(map(len, cycles(between_packages(sources)))),
        "public classes of one name": len(shared_class_names(sources)),
        "modules of one name": len(shared_module_names(sources)),
        "modules that import each other": sum(map(len, cycles(edges(sources)))),
    }


def main() -> None:
    """A table with one column for each checkout."""
    columns = [counts(Path(path)) for path in sys.argv[1:] or ["."]]
    for what in columns[0]:
        print(f"| {what} | {' | '.join(f'{column[what]:,}' for column in columns)} |")


if __name__ == "__main__":
    main()
