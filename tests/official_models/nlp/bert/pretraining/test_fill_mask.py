"""What stands in place of [MASK]."""

import keras
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from official_models.nlp.bert.pretraining import fill_mask
from tests.official_models.scripts import refusal

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "ant", "bee", "cat"]


@pytest.fixture
def tokenizer():
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_a_text_becomes_ids_between_cls_and_sep(tokenizer):
    ids = fill_mask.encode("ant [MASK] cat", tokenizer, 8)
    assert [WORDS[i] for i in ids] == ["[CLS]", "ant", "[MASK]", "cat", "[SEP]"]
    # A text that is too long is cut, its end stays [SEP].
    ids = fill_mask.encode("ant [MASK] cat bee bee bee", tokenizer, 4)
    assert [WORDS[i] for i in ids] == ["[CLS]", "ant", "[MASK]", "[SEP]"]


def test_a_text_needs_a_mask_that_is_read(tokenizer):
    refusal(
        lambda: fill_mask.encode("ant bee", tokenizer, 8),
        "--fill 'ant bee': expected at least one [MASK]",
    )
    refusal(
        lambda: fill_mask.encode("ant bee cat [MASK]", tokenizer, 4),
        "[MASK] is beyond the 4 tokens",
    )


def test_the_likeliest_tokens_come_first(tokenizer):
    """The model gives token i the logit log(i) wherever it is asked."""

    class Model(keras.Model):
        def call(self, inputs):
            rows = keras.ops.shape(inputs["input_ids"])[0]
            logits = np.log(np.maximum(np.arange(7.0), 1e-9))
            tiled = keras.ops.tile(
                keras.ops.reshape(logits, (1, 1, 7)), (rows, 1, 1)
            )
            return {"masked_lm": tiled}

    (filling,) = fill_mask.fill_masks(
        Model(), tokenizer, ["ant [MASK]"], max_seq_length=8, top=2
    )
    assert filling.tokens == ["cat", "bee"]
    np.testing.assert_allclose(filling.probabilities, [6 / 21, 5 / 21], 1e-5)
    assert str(filling) == "ant [MASK]\n    cat 29%, bee 24%"
    assert fill_mask.fill_masks(Model(), tokenizer, [], max_seq_length=8) == []
