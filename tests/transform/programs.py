"""The corpus of small programs, and what programs print."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distill.transform import LANGUAGES

CORPUS = Path(__file__).parent / "corpus"
COMPILERS = {"c": ("gcc", "-x", "c"), "cpp": ("g++", "-x", "c++", "-std=c++17")}
SECONDS = 120
"""A program that runs longer hangs: all of the corpus end within milliseconds."""

_PYTHON = """
import contextlib, io, json, signal, sys

def late(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, late)
outcomes = []
for source in json.load(sys.stdin):
    out, code = io.StringIO(), 0
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        out.write(f"{type(error).__name__}: {error}")
        code = 1
    signal.alarm(0)
    outcomes.append((out.getvalue(), code))
json.dump(outcomes, sys.stdout)
"""
_JAVA = """
import java.io.*;
public class Driver {
    public static void main(String[] names) throws Exception {
        PrintStream console = System.out;
        for (String name : names) {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            System.setOut(new PrintStream(bytes, true, "UTF-8"));
            int code = 0;
            try {
                Class.forName(name + ".Main").getMethod("main", String[].class)
                    .invoke(null, (Object) new String[0]);
            } catch (Throwable error) { code = 1; System.out.print(error.getCause()); }
            String hex = new java.math.BigInteger(1, bytes.toByteArray()).toString(16);
            console.println(code + " " + hex);
        }
    }
}
"""


class Outcome(NamedTuple):
    """What a program printed, and its exit code; -1 if it does not compile."""

    stdout: str
    code: int


def programs(language: str) -> dict[str, str]:
    """The corpus of a language: name to source."""
    return {path.stem: path.read_text("utf-8") for path in sorted((CORPUS / language).iterdir())}


def can_run(language: str) -> bool:
    tools = {"c": ("gcc",), "cpp": ("g++",), "java": ("javac", "java"), "python": ()}
    return all(shutil.which(tool) for tool in tools[language])


def outcomes(sources: Sequence[str], language: str, folder: Path) -> list[Outcome]:
    """What each source prints; the work is done in ``folder``."""
    assert language in LANGUAGES
    if language == "python":
        return _python(sources)
    if language == "java":
        return _java(sources, folder)
    return [_compiled(source, COMPILERS[language], folder / "program") for source in sources]


def _compiled(source: str, compiler: Sequence[str], program: Path) -> Outcome:
    build = subprocess.run(
        [*compiler, "-O0", "-pipe", "-w", "-", "-o", str(program), "-lm"],
        input=source.encode(),
        capture_output=True,
    )
    if build.returncode:
        return Outcome(build.stderr.decode("utf-8", "replace"), -1)
    try:
        run = subprocess.run([str(program)], capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome("hangs", 124)
    return Outcome(run.stdout.decode("utf-8", "replace"), run.returncode)


def _python(sources: Sequence[str]) -> list[Outcome]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PYTHON.replace("SECONDS", str(SECONDS))],
        input=json.dumps(list(sources)),
        capture_output=True,
        text=True,
        check=True,
    )
    return [Outcome(*outcome) for outcome in json.loads(run.stdout)]


def _java(sources: Sequence[str], folder: Path) -> list[Outcome]:
    """One compiler and one machine for all: each program is in a package of its own."""
    found = dict.fromkeys(range(len(sources)), Outcome("", -1))
    for number, source in enumerate(sources):
        (folder / f"p{number}").mkdir()
        (folder / f"p{number}/Main.java").write_text(f"package p{number}; {source}", "utf-8")
    (folder / "Driver.java").write_text(_JAVA)
    numbers = list(found)
    while numbers:
        files = [f"p{number}/Main.java" for number in numbers]
        build = subprocess.run(
            ["javac", "-nowarn", "-encoding", "UTF-8", "Driver.java", *files],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if build.returncode == 0:
            break
        errors = re.findall(r"^p(\d+)/Main\.java:\d+: error: (.*)$", build.stderr, re.M)
        assert errors, build.stderr
        for number, message in errors:
            found[int(number)] = Outcome(message, -1)
        numbers = [number for number in numbers if found[number] == Outcome("", -1)]
    names = [f"p{number}" for number in numbers]
    run = subprocess.run(
        ["java", "-ea", "-Xshare:auto", "Driver", *names],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    for number, line in zip(numbers, run.stdout.splitlines(), strict=True):
        code, _, digits = line.partition(" ")
        printed = bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
        found[number] = Outcome(printed.decode("utf-8", "replace"), int(code))
    return list(found.values())
