"""Readers, sentences, oracle labels, ranking, ROUGE: no network."""

import json
import random

import pytest
from rouge_score import rouge_scorer

from official_models.common.errors import InputError
from official_models.nlp.summarization import (
    oracle,
    prepare,
    readers,
    sentences,
)
from official_models.nlp.summarization.readers import BadDocuments, Raw
from tests.official_models.scripts import refusal

STORY = """The cat sat on the mat. It was a red mat.

The dog ran away.

@highlight

A cat sat

@highlight

The dog is gone
"""
XSUM = """[SN]URL[SN]
http://example.org/1

[SN]TITLE[SN]
Cats

[SN]FIRST-SENTENCE[SN]

A cat sat on
 a mat.

[SN]RESTBODY[SN]
The cat was red. It sat.
The dog ran.
"""


def read(form, folder, split="train", most=0):
    bad = BadDocuments(most)
    return list(readers.read(form, str(folder), split, bad)), bad


def test_a_story_of_cnn_daily_mail(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.story").write_text(STORY)
    ((raw,), _) = read("cnn_dm", tmp_path)
    assert raw.references == [["A cat sat", "The dog is gone"]]
    assert prepare.cut(raw).sentences == [
        "The cat sat on the mat.",
        "It was a red mat.",
        "The dog ran away.",
    ]
    refusal(lambda: read("cnn_dm", tmp_path, "test"), ".story", "test")


def test_a_split_without_a_folder_has_no_story_of_the_others(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for i in range(40):
            (tmp_path / split / f"{i}.story").write_text(STORY)
    assert len(read("cnn_dm", tmp_path)[0]) == 40
    refusal(
        lambda: read("cnn_dm", tmp_path, "validation"), ".story", "validation"
    )


def test_stories_without_a_split_are_split_once_and_for_all(tmp_path):
    for i in range(40):
        # Stories 2 n and 2 n + 1 are the same one, by other highlights.
        article = STORY.replace("red mat", f"mat {i // 2}")
        (tmp_path / f"{i}.story").write_text(f"{article}\n\nAnd {i}.")
    parts = {}
    for split in readers.SPLITS:
        found, _ = read("cnn_dm", tmp_path, split)
        parts[split] = {raw.place for raw in found}
    assert len(set.union(*parts.values())) == 40
    assert sum(map(len, parts.values())) == 40
    assert len(parts["train"]) > len(parts["test"]) > 0
    for i in range(0, 40, 2):
        pair = {str(tmp_path / f"{j}.story") for j in (i, i + 1)}
        assert any(pair <= part for part in parts.values())


def test_a_story_that_cannot_be_read_is_noted_once(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.story").write_text(f"Mat {i}.\n\n{STORY}")
    (tmp_path / "gone.story").symlink_to(tmp_path / "nowhere")
    noted = [read("cnn_dm", tmp_path, s, 1)[1].places for s in readers.SPLITS]
    (place,) = sum(noted, [])
    assert "gone.story" in place


def test_documents_in_two_splits_are_said():
    def documents(*words):
        return [prepare.Document(f"{w}.txt", ["It is:", w]) for w in words]

    found = {
        "train": documents("a", "b", "c"),
        "validation": documents("d", "b"),
        "test": documents("c", "d", "e", "a"),
    }
    assert prepare.overlaps(found) == [
        "1 of 2 documents of validation are in train, too; the first: b.txt",
        "2 of 4 documents of test are in train, too; the first: c.txt",
        "1 of 4 documents of test are in validation, too; the first: d.txt",
    ]


def test_xsum_as_it_is_published(tmp_path):
    split = {"train": ["7"], "validation": [], "test": ["../8"]}
    (tmp_path / readers.XSUM_SPLITS).write_text(json.dumps(split))
    (tmp_path / "bbc-summary-data").mkdir()
    (tmp_path / "bbc-summary-data" / "7.summary").write_text(XSUM)
    ((raw,), _) = read("xsum", tmp_path)
    assert raw.references == [["A cat sat on a mat."]]
    found = prepare.cut(raw)._replace(references=[["It sat."]])
    assert found.sentences == ["The cat was red.", "It sat.", "The dog ran."]
    # A name that leads out of the folder is one in it, and not there.
    refusal(
        lambda: read("xsum", tmp_path, "test"), "data/8.summary", "--max_bad"
    )


def test_scitldr_and_plain_lines(tmp_path):
    line = {"source": ["One two.", "Three."], "target": ["A b.", "C."]}
    (tmp_path / "dev.jsonl").write_text(json.dumps(line) + "\n\n")
    ((raw,), _) = read("scitldr", tmp_path, "validation")
    assert raw.document == ["One two.", "Three."]
    found = prepare.cut(raw)
    assert found.references == [["A b."], ["C."]]
    line["target"] = []
    (tmp_path / "test.jsonl").write_text(json.dumps(line))
    refusal(lambda: read("scitldr", tmp_path, "test"), "line 1", "'target'")
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"document": "One two. Three.", "summary": "One."})
    )
    ((raw,), _) = read("jsonl", tmp_path)
    assert prepare.cut(raw).sentences == ["One two.", "Three."]


def test_bbc_pairs_whose_summaries_are_glued_sentences(tmp_path):
    for name in ("News Articles", "Summaries"):
        (tmp_path / name / "tech").mkdir(parents=True)
    article = "Headline\n\nIt rose 2% to $1.1bn. The U.S. won. Dogs left.\n"
    for i in range(30):
        path = tmp_path / "News Articles" / "tech" / f"{i:03}.txt"
        path.write_text(f"{i}. {article}" + " " * i)  # other headlines
        path = tmp_path / "Summaries" / "tech" / f"{i:03}.txt"
        path.write_text("The U.S. won.It rose 2% to $1.1bn.New one.")
    found, _ = read("bbc", tmp_path)
    assert len(found) == 30  # all in one split: the article is the same
    document = prepare.cut(found[0])
    assert document.sentences == [
        "It rose 2% to $1.1bn.",
        "The U.S. won.",
        "Dogs left.",
    ]
    assert document.references == [
        ["The U.S. won.", "It rose 2% to $1.1bn.", "New one."]
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"document": "a", "summary": "\xff"}', "not UTF-8"),
        (b'{"document": ', "not JSON"),
        (b"[1]", "no JSON object"),
        (b'{"document": "a"}', "'summary'"),
        (b'{"document": [1], "summary": "a"}', "'document'"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_lines_are_named_and_counted(tmp_path, content, reason):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content + b'\n{"document": "a b", "summary": "a"}\n')
    refusal(lambda: read("jsonl", tmp_path), "line 1", reason, "--max_bad")
    (good,), bad = read("jsonl", tmp_path, most=1)
    assert good.place.endswith("line 2")
    assert "1 documents left out" in str(bad) and reason in str(bad)


@pytest.mark.parametrize(
    ("document", "summary", "reason"),
    [
        (" \n", "a", "empty document"),
        (".. !", "a", "no sentence"),
        ("A b c.", "", "empty summary"),
        ("A b c.", "A b c d.", "4 words, longer than its source of 3"),
    ],
)
def test_documents_that_cannot_be_used(tmp_path, document, summary, reason):
    raws = [Raw("here", document, [summary]), Raw("there", "A b.", ["B."])]
    cache = tmp_path / "cache.jsonl"
    refusal(
        lambda: prepare.prepare(raws, cache, BadDocuments(), jobs=1),
        *("here", reason, "--max_bad"),
    )
    bad = BadDocuments(1)
    (found,) = prepare.prepare(raws, cache, bad, jobs=1)
    assert found.place == "there" and reason in str(bad)


def test_missing_folders_and_files(tmp_path):
    refusal(lambda: read("jsonl", tmp_path / "no"), "no such folder")
    refusal(lambda: read("jsonl", tmp_path), "train.jsonl")
    refusal(lambda: read("bbc", tmp_path), "News Articles")
    refusal(lambda: read("xsum", tmp_path), readers.XSUM_SPLITS)
    (tmp_path / readers.XSUM_SPLITS).write_text("[]")
    refusal(lambda: read("xsum", tmp_path), "no list 'train'")
    (tmp_path / "a.story").write_text("nothing")
    refusal(
        lambda: [read("cnn_dm", tmp_path, split) for split in readers.SPLITS],
        ".story",
    )


@pytest.mark.parametrize("form", ["jsonl", "cnn_dm", "xsum", "cache"])
def test_damaged_files_are_refused_or_read(tmp_path, form):
    rng = random.Random(5)
    line = json.dumps({"document": "One two. Three.", "summary": "One."})
    cache = tmp_path / "cache.jsonl"
    (tmp_path / "train.jsonl").write_text(line + "\n" + line.upper())
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.story").write_text(STORY)
    (tmp_path / "7.summary").write_text(XSUM)
    (tmp_path / readers.XSUM_SPLITS).write_text('{"train": ["7"]}')
    path = {
        "jsonl": tmp_path / "train.jsonl",
        "cnn_dm": tmp_path / "train" / "a.story",
        "xsum": tmp_path / "7.summary",
        "cache": cache,
    }[form]
    raws = [Raw("0", "A cat sat. It ran.", ["A cat."])]
    prepare.prepare(raws, cache, BadDocuments(), jobs=1)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
        for _ in range(rng.randrange(3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content))
        try:
            if form == "cache":
                prepare.prepare(raws, cache, BadDocuments(), jobs=1)
                continue
            for raw in read(form, tmp_path, most=9)[0]:
                prepare.label(raw, 3)
        except InputError as error:
            assert "\n" not in str(error)


def test_sentences_end_where_lines_do():
    assert sentences.split("Dr. Smith came.  He\tleft\nAt once") == [
        "Dr. Smith came.",
        "He left",
        "At once",
    ]


def random_text(rng, words=6, alphabet="abcdefgh"):
    return " ".join(rng.choice(alphabet) for _ in range(words))


def test_the_oracle_of_one_sentence_is_that_of_brute_force():
    rng = random.Random(1)
    for _ in range(50):
        document = [random_text(rng) for _ in range(rng.randint(1, 8))]
        summary = [random_text(rng) for _ in range(2)]
        score = oracle.Score(document, summary)
        best = max(score([i]) for i in range(len(document)))
        found = oracle.greedy(document, summary, 1)
        assert score(found) == best if best else found == []


def test_greedy_gains_with_each_sentence_and_stops():
    rng = random.Random(2)
    lengths = set()
    for _ in range(50):
        document = [random_text(rng) for _ in range(6)]
        summary = [random_text(rng) for _ in range(2)]
        score = oracle.Score(document, summary)
        found = oracle.greedy(document, summary, 3)
        lengths.add(len(found))
        assert found == sorted(set(found)) and len(found) <= 3
        if len(found) < 3:
            rest = set(range(6)) - set(found)
            assert all(score([*found, i]) <= score(found) for i in rest)
        alone = [score([i]) for i in range(6)]
        assert score(found) >= max(alone)
        assert all(alone[i] <= score(found) for i in found)
    assert lengths >= {2, 3}


def test_bigrams_of_a_candidate_do_not_cross_sentences():
    # "b c" is a bigram of the summary, but not of ["a b", "c d"].
    score = oracle.Score(["a b", "c d"], ["a b c d"])
    bigrams = 2 * 2 / (2 + 3)
    assert score([0, 1]) == pytest.approx(1 + bigrams)


def test_set_rouge_is_rouge_score_where_no_ngram_repeats():
    rng = random.Random(3)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"])
    letters = "abcdefghijklmnop"
    for _ in range(30):
        candidate = " ".join(rng.sample(letters, 9))
        reference = " ".join(rng.sample(letters, 7))
        found = scorer.score(reference, candidate)
        expected = found["rouge1"].fmeasure + found["rouge2"].fmeasure
        score = oracle.Score([candidate], [reference])
        assert score([0]) == pytest.approx(expected)


def test_of_several_references_the_nearest_decides():
    document = ["a b c", "d e f", "g h i"]
    assert oracle.best_of(document, [["a x"], ["g h i"]]) == [2]


def test_labels_are_kept_and_a_cut_line_is_made_again(tmp_path, monkeypatch):
    raws = [
        Raw(f"{i}", f"Cat {i} sat here. A dog ran.", [f"Cat {i} sat."])
        for i in range(3)
    ]
    cache = tmp_path / "kept" / "train.jsonl"
    first = prepare.prepare(raws, cache, BadDocuments(), jobs=1)
    assert [found.oracle for found in first] == [[0]] * 3
    content = cache.read_bytes()
    cache.write_bytes(content[:-20])  # as a kill leaves it
    labelled = []
    label = prepare.label
    monkeypatch.setattr(
        prepare,
        "label",
        lambda raw, most: labelled.append(raw) or label(raw, most),
    )
    again = prepare.prepare(raws, cache, BadDocuments(), jobs=1)
    assert again == first
    assert labelled == [raws[2]]
    prepare.prepare(raws, cache, BadDocuments(), jobs=1)
    assert len(labelled) == 1
    prepare.prepare(raws, cache, BadDocuments(), most=1, jobs=1)
    assert len(labelled) == 4  # of another oracle


def test_two_processes_label_as_one(tmp_path):
    raws = [
        Raw(f"{i}", f"Cat {i} sat here. A dog ran.", [f"Cat {i} sat."])
        for i in range(70)
    ]
    found = [
        prepare.prepare(
            raws, tmp_path / f"{jobs}.jsonl", BadDocuments(), jobs=jobs
        )
        for jobs in (1, 2)
    ]
    assert found[0] == found[1]
    assert [document.place for document in found[0]] == [r.place for r in raws]
