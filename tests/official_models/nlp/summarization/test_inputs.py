"""Positions, tokens and batches of documents."""

import keras
import numpy as np
import pytest

from official_models.nlp.bert.config import BertConfig
from official_models.nlp.summarization import (
    inputs,
    positions,
)
from official_models.nlp.summarization.prepare import Document
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.summarization.small_models import (
    ENCODER,
    H,
)


class FakeSource:
    """As `checkpoint.source.Source`, of one table."""

    def __init__(self):
        self.config = BertConfig(**ENCODER)
        self.table = np.arange(32.0 * H).reshape(32, H).astype("float32")

    def shape_of(self, path):
        return self.table.shape

    def read(self, path):
        return self.table

    def _replace(self, **values):
        found = FakeSource()
        for name, value in values.items():
            setattr(found, name, value)
        return found


def test_positions_behind_the_last_one():
    source = FakeSource()
    assert positions.lengthened(source, 32, "code", 1) is source
    copied = positions.lengthened(source, 40, "code", 1)
    table = copied.read(positions.POSITIONS)
    assert copied.shape_of(positions.POSITIONS) == table.shape == (40, H)
    assert copied.config.max_position_embeddings == 40
    np.testing.assert_array_equal(table[:32], source.table)
    np.testing.assert_array_equal(table[32:], source.table[31:].repeat(8, 0))
    drawn = positions.lengthened(source, 400, "paper", 1)
    table = drawn.read(positions.POSITIONS)
    np.testing.assert_array_equal(table[:32], source.table)
    assert table[32:].std() == pytest.approx(0.3, rel=0.05)
    again = positions.lengthened(source, 400, "paper", 1)
    np.testing.assert_array_equal(again.read(positions.POSITIONS), table)
    other = again.read("bert/embeddings/word_embeddings")
    np.testing.assert_array_equal(other, source.table)


@pytest.fixture
def encoding(tmp_path):
    tokenizer = wordpiece.load_tokenizer(small_tasks.write_vocab(tmp_path))
    return inputs.Encoding(tokenizer, max_tokens=14, max_target=9)


def words(encoding, ids):
    return " ".join(encoding.tokenizer.id_to_token(int(i)) for i in ids)


def test_a_document_as_tokens(encoding):
    document = Document(
        "here",
        ["the film is good .", "it was bad .", "anna", "bob"],
        [["the film", "good and bad and good"], ["bob"]],
        [1, 3],
    )
    found = encoding.encode(document)
    assert words(encoding, found.input_ids) == (
        "[CLS] the film is good . [SEP] [CLS] it was bad . [SEP]"
    )
    assert found.segment_ids.tolist() == [0] * 7 + [1] * 6
    assert found.clss.tolist() == [0, 7]
    assert found.labels.tolist() == [0, 1]
    # The vocabulary has no [unused0]: [CLS], [SEP], [MASK] are the marks.
    assert words(encoding, found.target) == (
        "[CLS] the film [MASK] good and bad and [SEP]"
    )
    assert encoding.text(found.target) == ["the film", "good and bad and"]


def test_a_long_sentence_is_cut_with_its_end(encoding):
    found = encoding.encode(Document("here", ["good " * 30]))
    assert len(found.input_ids) == 14
    assert words(encoding, found.input_ids[-1:]) == "[SEP]"
    assert len(found.target) == 0


def test_marks_of_a_published_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    marks = ["[unused0]", "[unused1]", "[unused2]"]
    path.write_text("\n".join([*small_tasks.WORDS, *marks]) + "\n")
    found = inputs.Encoding(wordpiece.load_tokenizer(path), 14, 9)
    n = len(small_tasks.WORDS)
    assert found.marks == (n, n + 1, n + 2)


def test_batches_are_a_function_of_their_number(encoding):
    texts = ["good", "bad film", "the very good film", "it was in paris"]
    rows = inputs.encode_all(
        [Document("", [text, text], [[text]]) for text in texts * 3], encoding
    )
    for extractive in (True, False):
        batches = inputs.Batches(rows, 4, inputs.BertForm(extractive), seed=1)
        assert batches.per_epoch == 3
        whole = list(batches.dataset(0, 7))
        rest = list(batches.dataset(5, 7))
        for one, other in zip(whole[5:], rest, strict=True):
            keras.tree.map_structure(np.testing.assert_array_equal, one, other)
        seen = sorted(
            row[: int(mask.sum())].tolist()
            for x, _, _ in whole[:3]
            for row, mask in zip(
                np.asarray(x["input_ids"]), np.asarray(x["input_mask"])
            )
        )
        assert seen == sorted(row.input_ids.tolist() for row in rows)
    x, labels, weight = whole[0]
    shifted = np.asarray(x["target_ids"])[:, 1:]
    inside = np.asarray(weight)[:, 1:] > 0
    np.testing.assert_array_equal(
        shifted[inside], np.asarray(labels)[:, :-1][inside]
    )


def test_the_digest_knows_each_array(encoding):
    rows = inputs.encode_all([Document("", ["good"], [["bad"]])], encoding)
    other = [rows[0]._replace(labels=rows[0].labels + 1)]
    assert inputs.digest({"train": rows}) == inputs.digest({"train": rows})
    assert inputs.digest({"train": rows}) != inputs.digest({"train": other})
    assert inputs.digest({"train": rows}) != inputs.digest({"test": rows})
