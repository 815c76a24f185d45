"""Documents from files: whole, in pieces, gzipped, with bad lines."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from official_models.common.errors import InputError
from official_models.nlp.text import corpus, documents
from official_models.nlp.text.documents import BadLines, Format

SUFFIXES = {
    "text": "txt",
    "sentences": "txt",
    "jsonl": "jsonl",
    "wikiextractor": "wiki",
}


def _texts(count=40, seed=0):
    """Documents of 1 to 12 sentences, no two alike, as sentences."""
    rng = np.random.default_rng(seed)
    return [
        [
            f"Sentence {number} of document {document} has ünïcode"
            f"{' more' * rng.integers(4)}."
            for number in range(rng.integers(1, 13))
        ]
        for document in range(count)
    ]


def _write(folder, name, texts, form, gzipped=False):
    """A file of documents in a format."""
    if form == "jsonl":
        lines = [json.dumps({"id": 1, "text": "\n".join(t)}) for t in texts]
    elif form == "wikiextractor":
        lines = [
            f'<doc id="{i}" url="u" title="t">\n' + "\n".join(t) + "\n</doc>"
            for i, t in enumerate(texts)
        ]
    else:
        lines = ["\n".join(text) + "\n" for text in texts]
    content = ("\n".join(lines) + "\n").encode()
    path = folder / f"{name}.{SUFFIXES[form]}{'.gz' if gzipped else ''}"
    path.write_bytes(gzip.compress(content) if gzipped else content)
    return path


def _open(path):
    return open(path, "rb")


def _read(paths, form, bucket_bytes=1 << 20, group_bytes=1 << 30, bad=None):
    """The documents of each bucket."""
    files = sorted((str(path), path.stat().st_size) for path in paths)
    return [
        [
            document
            for group in documents.read_groups(
                bucket, form, group_bytes, bad or BadLines(), _open
            )
            for document in group
        ]
        for bucket in documents.buckets(files, form, bucket_bytes, seed=3)
    ]


def _flat(buckets):
    return sorted(document for bucket in buckets for document in bucket)


@pytest.mark.parametrize("form", ["sentences", "jsonl", "wikiextractor"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_each_document_once_however_files_are_cut(tmp_path, form, gzipped):
    texts = _texts()
    one = [_write(tmp_path, "one", texts, form, gzipped)]
    shards = [
        _write(tmp_path, f"shard-{n}", texts[n::3], form, gzipped)
        for n in range(3)
    ]
    for bucket_bytes in (8, 100, 333, 1024, 4096, 1 << 20):
        for paths in (one, shards):
            buckets = _read(paths, Format(form), bucket_bytes)
            assert _flat(buckets) == sorted(texts)
            if not gzipped and bucket_bytes < 4096:
                assert len(buckets) > 3


def test_a_bucket_holds_no_more_than_its_bytes(tmp_path):
    path = _write(tmp_path, "a", _texts(), "jsonl")
    files = [(str(path), path.stat().st_size)]
    buckets = documents.buckets(files, Format("jsonl"), 1000, seed=1)
    assert buckets != documents.buckets(files, Format("jsonl"), 1000, seed=2)
    assert all(sum(piece.size for piece in b) <= 1000 for b in buckets)
    assert sum(piece.size for b in buckets for piece in b) == files[0][1]
    # Pieces of a bucket come from all over the file.
    begins = [[piece.begin for piece in bucket] for bucket in buckets]
    assert any(max(b) - min(b) > 2000 for b in begins)


def test_text_is_read_as_the_corpus_reader_reads_it(tmp_path):
    paths = [_write(tmp_path, n, [t], "text") for n, t in zip("abc", _texts())]
    marked = "\ufeffpreface\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n"
    (tmp_path / "d.txt").write_text(f"{marked}\r\nA line\r\nof verse. More?")
    paths.append(tmp_path / "d.txt")
    (found,) = _read(paths, Format("text"))
    assert found == corpus.read_documents(paths)
    assert found[-1] == ["A line of verse. More?"]


def test_groups_of_a_packed_file(tmp_path):
    texts = _texts()
    path = _write(tmp_path, "a", texts, "jsonl", gzipped=True)
    (bucket,) = documents.buckets([(str(path), 1)], Format("jsonl"), 9, seed=0)
    groups = list(
        documents.read_groups(bucket, Format("jsonl"), 2000, BadLines(), _open)
    )
    assert len(groups) > 4
    assert [d for group in groups for d in group] == texts


@pytest.mark.parametrize("form", ["text", "sentences"])
def test_a_long_document_is_cut(tmp_path, form):
    (text,) = [[f"Here is sentence number {n}." for n in range(100)]]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(text))
    (found,) = _read([path], Format(form, max_document_bytes=500))
    assert 4 < len(found) < 8
    assert [sentence for document in found for sentence in document] == text


BAD = {
    "not UTF-8": b'{"text": "caf\xe9 is latin."}\n',
    "NUL": b'{"text": "a\0b is one more."}\n',
    "too long": b'{"text": "' + b"word " * 200 + b'"}\n',
}
BAD_JSON = {
    "not JSON": b'{"text": \n',
    "no text field": b'{"title": "none"}\n',
}


@pytest.mark.parametrize("form", ["sentences", "jsonl", "text"])
@pytest.mark.parametrize("bucket_bytes", [64, 1 << 20])
@pytest.mark.parametrize("gzipped", [False, True])
def test_bad_lines(tmp_path, form, bucket_bytes, gzipped):
    good = b'{"text": "This one is good."}\n'
    kinds = {**BAD, **(BAD_JSON if form == "jsonl" else {})}
    content, expected = good, []
    path = tmp_path / f"a.txt{'.gz' if gzipped else ''}"
    for kind, line in kinds.items():
        expected.append((kind, str(path), len(content)))
        content += line + good
    path.write_bytes(gzip.compress(content) if gzipped else content)
    bad = BadLines()
    limits = Format(form, max_line_bytes=500)
    found = _flat(_read([path], limits, bucket_bytes, bad=bad))
    assert bad.counts == dict.fromkeys(kinds, 1)
    assert sorted(bad.places) == sorted(expected)
    sentences = [sentence for document in found for sentence in document]
    if form == "jsonl":
        assert sentences == ["This one is good."] * (len(kinds) + 1)
    else:
        assert "".join(sentences).count("This one is good.") == len(kinds) + 1


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (r'{"text": "half \ud800 a pair"}', "not UTF-8"),
        (r'{"text": "a \u0000 NUL"}', "NUL"),
        ('{"text": 5}', "no text field"),
        ('["text"]', "no text field"),
        ("[" * 100_000, "not JSON"),
        ('{"text": ' + "1" * 5000 + "}", "not JSON"),
    ],
)
def test_json_that_is_no_text(tmp_path, line, kind):
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    bad = BadLines()
    assert _read([path], Format("jsonl"), bad=bad) == [[]]
    assert bad.counts == {kind: 1}


def test_a_line_of_100_mb_is_never_held(tmp_path):
    path = tmp_path / "a.txt"
    with open(path, "wb") as file:
        file.write(b"A good line is here.\n")
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b"\nAnother good line is here.\n")
    bad = BadLines()
    tracemalloc.start()
    try:
        form = Format("sentences", max_line_bytes=1 << 20)
        found = _read([path], form, 200 << 20, bad=bad)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    good = ["A good line is here.", "Another good line is here."]
    assert _flat(found) == [good]
    assert bad.places == [("too long", str(path), 21)]
    assert peak < 8 << 20


def test_places_are_bounded_and_counts_are_not(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\n" * 3000)
    bad = BadLines()
    _read([path], Format("jsonl"), bad=bad)
    assert bad.counts == {"not UTF-8": 3000} and len(bad.places) == 1000


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_damaged_gzip(tmp_path, damage):
    path = _write(tmp_path, "a", _texts(500), "jsonl", gzipped=True)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[-8] ^= 1
    else:
        content = b"plain text is here\n"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a.jsonl.gz: the gzip stream is dama"):
        _read([path], Format("jsonl"))


def test_a_file_that_is_gone(tmp_path):
    bucket = [documents.Piece(str(tmp_path / "gone"), 0, None, 1)]
    with pytest.raises(InputError, match="gone: No such file"):
        list(
            documents.read_groups(bucket, Format(), 1 << 20, BadLines(), _open)
        )


def test_bad_lines_and_long_documents_of_wikiextractor(tmp_path):
    path = tmp_path / "wiki_00"
    lines = [f"Line {i} of the document is here." for i in range(8)]
    content = "\n".join(['<doc id="1">', *lines, "</doc>", ""]).encode()
    path.write_bytes(content.replace(b"Line 3", b"Line\0 3"))
    bad = BadLines()
    form = Format("wikiextractor", max_document_bytes=100)
    ((*parts,),) = _read([path], form, bad=bad)
    assert [len(part) for part in parts] == [3, 4]
    assert [*parts[0], *parts[1]] == lines[:3] + lines[4:]
    assert bad.counts == {"NUL": 1}
    assert bad.places == [("NUL", str(path), content.index(b"Line 3"))]
